"""`BOOT/`: what a bare host checks first, with `openssl` and `sha256sum` alone (FORMAT 9).

Owns which files lie there, the form of their list, and the check of all of it under a trust root. It decides nothing
about the rest of a medium, and an installed appliance never runs anything from there.

Rules (threats T9, T19, T20):
- `BOOT.sha256` names every file and begins with `serial-<n>`; one detached signature for each root key lies beside it;
- root keys sign it, by the threshold of the root role; release keys count for nothing;
- exactly the named files are there: one more is a refusal, one less or another is damaged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bundles.medium import REWRITTEN_HINT
from bundles.oci.covered_names import refuse_unlisted
from bundles.oci.layout import BOOT, Layout
from signing.digest import Digest, sha256
from signing.errors import DamagedError, NotTrustedError
from signing.keys import PublicKey
from signing.roles import Role

LIST_FILE = "BOOT.sha256"
VERIFIER_FILE, ROOT_FILE, PACKAGES_FILE = "verify.pyz", "root.json", "python3.sha256"
MAX_LIST_BYTES = 64 << 10
MAX_FILE_BYTES = 8 << 20
_LINE = re.compile(r"([0-9a-f]{64})  ([a-z0-9][a-z0-9.-]{0,99})\Z")
_OTHER_KEYS = (
    "the root keys may have changed since: write this stick or bundle again from the workspace; "
    "if it is refused again, ask a root key holder"
)
_SERIAL = re.compile(r"serial-([1-9][0-9]{0,8})\Z")


@dataclass(frozen=True)
class Boot:
    """A checked `BOOT/`: its serial, and the root keys that signed its list."""

    serial: int
    signers: tuple[PublicKey, ...]


def key_file(key: PublicKey) -> str:
    """The name of a root key's public half: its fingerprint is the sha256 of that file."""
    return f"{key.fingerprint}.der"


def signature_file(key: PublicKey) -> str:
    """The name of a root key's signature over the list."""
    return f"{key.fingerprint}.sig"


def serial_file(serial: int) -> str:
    """The name of the first file of the list: its number shows how new the list is."""
    return f"serial-{serial}"


def write_list(files: Mapping[str, bytes], serial: int) -> bytes:
    """Write the list as `sha256sum` does: the serial first, then by name.

    Args:
        files: every file but the list and the signatures, by name.
        serial: one of them is `serial_file(serial)`.
    """
    first = serial_file(serial)
    names = [first, *sorted(files.keys() - {first})]
    return "".join(f"{sha256(files[name])}  {name}\n" for name in names).encode("ascii")


def parse_list(data: bytes, subject: str) -> tuple[int, dict[str, Digest]]:
    """Read a list: its serial, and the digest of each file.

    Raises:
        NotTrustedError: a line that is not one digest and one name, a name twice, or no serial first.
    """
    lines = data.decode("ascii", "replace").split("\n")
    matches = [_LINE.match(line) for line in lines[:-1]]
    files = {match[2]: Digest(match[1]) for match in matches if match}
    serial = _SERIAL.match(next(iter(files), ""))
    if lines[-1] or len(files) != len(matches) or serial is None:
        raise NotTrustedError(
            "boot.malformed",
            subject,
            expected="lines of a digest, two spaces and a name, serial-<n> first",
            found="something else",
        )
    return int(serial[1]), files


def check_boot(layout: Layout, root: Role) -> Boot | None:
    """Check all of `BOOT/` on a medium.

    Args:
        layout: untrusted bytes.
        root: the root role that the chain of trust has proved.

    Returns:
        What it is; None where the medium has none.

    Raises:
        NotTrustedError: too few root keys signed it, or there is a file too many.
        DamagedError: a named file is missing or differs.
    """
    present = {path[len(BOOT) + 1 :] for path in layout.medium.walk(BOOT)}
    if not present:
        return None
    text = _read(layout, LIST_FILE, MAX_LIST_BYTES)
    signers = _signers(layout, root, present, text)
    serial, files = parse_list(text, f"{BOOT}/{LIST_FILE}")
    keys = {key_file(key) for key in root.keys.values()}
    wanted = {serial_file(serial), VERIFIER_FILE, ROOT_FILE, PACKAGES_FILE, *keys}
    if set(files) != wanted:
        raise NotTrustedError(
            "boot.malformed",
            f"{BOOT}/{LIST_FILE}",
            expected=", ".join(sorted(wanted)),
            found=", ".join(sorted(files)),
            hint=_OTHER_KEYS,
        )
    unlisted = present - {*files, LIST_FILE, *(signature_file(key) for key in root.keys.values())}
    refuse_unlisted([f"{BOOT}/{name}" for name in sorted(unlisted)])
    for name, digest in files.items():
        _check_file(layout, name, digest)
    return Boot(serial, signers)


def _signers(layout: Layout, root: Role, present: set[str], text: bytes) -> tuple[PublicKey, ...]:
    signers = [key for key in root.keys.values() if signature_file(key) in present]
    for key in signers:
        name = signature_file(key)
        # It is unknown which of the two was changed.
        key.verify(_read(layout, name, 1 << 10), text, f"{BOOT}/{LIST_FILE} with {BOOT}/{name}")
    if len({key.spki for key in signers}) < root.threshold:
        raise NotTrustedError(
            "signature.threshold",
            f"{BOOT}/{LIST_FILE}",
            expected=f"{root.threshold} signatures by distinct root keys",
            found=str(len(signers)),
            hint=_OTHER_KEYS,
        )
    return tuple(sorted(signers, key=lambda key: key.fingerprint))


def _check_file(layout: Layout, name: str, digest: Digest) -> None:
    found = sha256(_read(layout, name, MAX_FILE_BYTES))
    if found != digest:
        raise DamagedError(
            "boot.file-changed",
            f"{BOOT}/{name}",
            expected=f"sha256 {digest}",
            found=f"sha256 {found}",
            hint=REWRITTEN_HINT if name == VERIFIER_FILE else "write the stick again, or copy this bundle again",
        )


def _read(layout: Layout, name: str, most: int) -> bytes:
    data = layout.medium.read(f"{BOOT}/{name}", most)
    if data is None:
        raise DamagedError(
            "boot.missing", f"{BOOT}/{name}", expected="a file", found="none", hint="copy this bundle again"
        )
    if len(data) > most:
        raise NotTrustedError("boot.too-long", f"{BOOT}/{name}", expected=f"at most {most} bytes", found="more")
    return data
