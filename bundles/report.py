"""The report of a verification, as plain lines for people.

Owns the words of a good answer, of an error and of a size, so that `appliance verify` and `verify.pyz` print the same.
It never prints: `appliance.cli.console.terminal` and `bundles.bare_host.command_line` do.

Rules:
- text from outside is never trusted: each field is escaped by the one function `escape`;
- so no name begins a line, moves the cursor, turns the direction of writing, or hides a part of itself;
- an error is printed as what, expected, found; then the other errors of the same check; then every hint once.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from signing.errors import ApplianceError, NotTrustedError

if TYPE_CHECKING:  # every command imports this module, and few need those
    from bundles.attestation.attestation_check import Attested
    from bundles.bare_host.boot_check import Boot
    from bundles.bundle import Bundle
    from signing.verified import Verified

MAX_FAULTS = 20
NOT_TRUSTED_HINT = (
    "do not use it: write the stick again, or copy the file again; if it is refused again, stop and ask a key holder"
)
DEVELOPMENT_ROOT = "one key for trials, held by one machine: do not install this for real use"
# Characters that Python counts as printable and that show nothing: fillers, joiners and variation selectors.
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)}
_BLANK |= {0x2800, *range(0xE0100, 0xE01F0)}


def escape(text: str, keep: str = "") -> str:
    """Escape what a reader would not see as it is, so that text from outside cannot forge or hide anything.

    Control and format characters, line separators, spaces other than the ordinary one, lone surrogates (bytes of a file
    name that are no UTF-8) and blank letters become an escape such as `\\u202e`.

    Args:
        text: anything.
        keep: control characters that stay as they are, for example a tab.
    """
    return "".join(_escape_char(letter) if _is_hidden(letter) and letter not in keep else letter for letter in text)


def shell_word(path: str, otherwise: str) -> str:
    """A path to be pasted into a shell: one word of it, whatever the path holds.

    Args:
        path: untrusted: somebody named the medium.
        otherwise: stands for a path that cannot be shown as it is, and so must be typed.
    """
    return shlex.quote(path) if escape(path) == path else otherwise


def format_size(size_bytes: int) -> str:
    """A number of bytes in decimal units, as media are sold: `999 bytes`, `1.5 kB`, `150.7 MB`."""
    if size_bytes < 1000:
        return "1 byte" if size_bytes == 1 else f"{size_bytes} bytes"
    size, unit = size_bytes / 1000, "kB"
    for larger in ("MB", "GB", "TB", "PB"):
        if round(size, 1) < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:,.1f} {unit}"


def describe(found: Verified[Bundle]) -> dict[str, object]:
    """Who signed what, how fresh, as one JSON object."""
    evidence, bundle = found.evidence, found.value
    return {
        "verified": True,
        "name": bundle.contents.name,
        "version": bundle.contents.version,
        "manifest": bundle.manifest,
        "status": evidence.status,
        "signers": [key.fingerprint for key in evidence.signers],
        "threshold": evidence.threshold,
        "asked": evidence.asked,
        "profile": evidence.profile or "production",
        "root_fingerprints": list(evidence.root_fingerprints),
        "proved_time": evidence.floors.time,
        "expires": {"role": evidence.expires[1], "time": evidence.expires[0], "is_expired": evidence.is_expired},
        "passed_over": [fault_fields(fault) for fault in evidence.passed_over],
    }


def describe_boot(found: Verified[Bundle], boot: Boot | None) -> dict[str, object] | None:
    """What lies in `BOOT/` for a bare host, as a JSON object."""
    if boot is None:
        return None
    signers = [key.fingerprint for key in boot.signers]
    return {"serial": boot.serial, "signers": signers, "threshold": found.evidence.root.threshold}


def describe_attested(attested: tuple[Attested, ...]) -> list[dict[str, object]]:
    """The signatures in other formats, as JSON: whose each is, and whether its key still signs."""
    return [
        {"path": one.path, "format": one.format, "signer": one.signer.fingerprint, "counts": one.counts}
        for one in attested
    ]


def lines(answer: dict[str, object]) -> Iterator[str]:
    """A verification that passed, for people.

    Args:
        answer: of `describe`, with `path`, `files` and `bytes`: where it lies, and how much was compared; and `boot` of
            `describe_boot`, `attestations` of `describe_attested`, and what `bundles.oci.litter.describe_beside` gives,
            where there are such.
    """
    signers, expires = answer["signers"], answer["expires"]
    assert isinstance(signers, list)
    assert isinstance(expires, dict)
    yield f"verified   {answer['name']} {answer['version']} ({answer['status']})  {answer['path']}"
    yield f"manifest   sha256:{answer['manifest']}"
    bundles = answer.get("bundles")
    for one in bundles[1:] if isinstance(bundles, list) else ():
        yield f"verified   {one['name']} {one['version']} ({one['status']})"
        yield f"manifest   sha256:{one['manifest']}"
    yield f"signed by  {len(signers)} of {answer['asked']} keys, {answer['threshold']} needed; {answer['profile']} root"
    yield from (f"           {fingerprint}" for fingerprint in signers)
    yield f"fresh      proved {answer['proved_time']}, {expires['role']} expires {expires['time']}"
    boot = answer.get("boot")
    if isinstance(boot, dict):
        signed = f"{len(boot['signers'])} of at least {boot['threshold']} root keys"
        yield f"boot       serial {boot['serial']}, signed by {signed}"
    attested = answer.get("attestations")
    for one in attested if isinstance(attested, list) else ():
        if not one["counts"]:
            yield f"not counted: {one['path']}, by {one['signer']}, whose key was rotated out"
    if answer.get("beside"):
        yield f"beside     {_beside(answer)}; no part of the bundle, and never opened"
    yield from override_lines(answer.get("override"))
    if answer.get("judged_alone") is True:
        yield "judged by  the named root alone: the floors and revocations of this host did not count"
    if held := answer.get("on_this_host"):
        yield f"compared   {held} blobs that are on no medium, on this host"
    if rebuilt := answer.get("rebuilt"):
        yield f"rebuilt    {rebuilt} blobs that are on no medium here, from the parity of the set"
    yield f"checked    {answer['files']} files, {answer['bytes']} bytes: every byte is what was signed"


def _beside(answer: dict[str, object]) -> str:
    names, left_out = answer["beside"], answer.get("beside_left_out")
    assert isinstance(names, list)
    shown = [f"{one['name']} (left by {one['left_by']}, harmless)" if one["left_by"] else one["name"] for one in names]
    return ", ".join(shown) + (f" and {left_out} more" if left_out else "")


def override_lines(override: object) -> Iterator[str]:
    """The expiry override by which a release was installed, for people; nothing where it needed none."""
    if not isinstance(override, dict):
        return
    if "error" in override:
        yield f"override   one is recorded, and does not verify: {override['error']}"
        return
    place = f"host {override['host']}" if "host" in override else f"site {override['site']}"
    yield f"override   its expiry was lifted for {place}, until {override['last_day']}, signed by"
    yield from (f"           {fingerprint}" for fingerprint in override["signers"])


def clock_warning(found: Verified[Bundle]) -> str:
    """The warning about a clock that is behind what was signed; empty where it is not."""
    if not found.evidence.clock_is_behind:
        return ""
    return f"warning: this machine's clock is behind the signed time {found.evidence.floors.time}"


_HEADINGS = {
    "attestation.revoked-key": "signed by a revoked key",
    "bootstrap.busy": "another run copies the program",
    "bootstrap.none": "this bundle brings no program",
    "bootstrap.python": "this bundle is for another Python",
    "bundle.several": "several bundles lie here",
    "bundle.not-there": "this bundle does not lie here",
    "contents.model": "not a file of kind model",
    "contents.place": "a path that the installer fills itself",
    "manifest.blobs": "other blobs than the contents need",
    "medium.short-names": "burnt without Rock Ridge",
    "parity.differs": "the parity does not give this blob",
    "prefix.noexec": "no program may run from there",
    "ranges.check-word": "numbers and check word do not belong together",
    "root.not-of-this-chain": "not an older root of this chain",
    "signature.stranger": "a key that is not in the root",
    "signature.threshold": "too few signatures",
    "stick.next": "on a stick that is not here",
    "stick.unplugged": "the stick was pulled out",
    "target.statements": "statements are missing",
}


def fault_lines(error: ApplianceError, heading: str = "") -> Iterator[str]:
    """One error of a check: what it is about, then what was expected and found.

    Args:
        error: one of the tree; those beside it are left out.
        heading: what is wrong, in a few words; without it, the last part of the code.
    """
    phrase = heading or _HEADINGS.get(error.code) or error.code.rpartition(".")[2].replace("-", " ")
    yield escape(f"{error.subject}: {phrase} ({error.code})")
    if error.expected:
        yield escape(f"  expected {error.expected}")
    if error.found:
        yield escape(f"  found {error.found}")


def fault_fields(error: ApplianceError) -> dict[str, object]:
    """One error as a JSON object; its texts are escaped."""
    return {
        "code": error.code,
        "subject": escape(error.subject),
        "expected": escape(error.expected),
        "found": escape(error.found),
        "hint": escape(_hint(error)),
        "exit_code": error.exit_code,
    }


def hint_lines(error: ApplianceError) -> Iterator[str]:
    """The next steps for an error and those beside it, each once."""
    hints = (_hint(error), *(one.hint for one in error.others))
    yield from (f"hint: {escape(hint)}" for hint in dict.fromkeys(hints) if hint)


def _hint(error: ApplianceError) -> str:
    return error.hint or (NOT_TRUSTED_HINT if isinstance(error, NotTrustedError) else "")


def _is_hidden(letter: str) -> bool:
    return not letter.isprintable() or ord(letter) in _BLANK


def _escape_char(letter: str) -> str:
    short = repr(letter)[1:-1]
    return short if short != letter else f"\\U{ord(letter):08x}" if ord(letter) > 0xFFFF else f"\\u{ord(letter):04x}"
