"""The folder `BOOT/` of a bundle, with which a bare host begins: written once for each trust root and verifier.

Owns its files, when they are written again, and where a workspace stores them: `trust/boot/<serial>/BOOT/`, byte for
byte as every bundle carries it. Its format and its checks are in `bundles.bare_host.boot_check`.

Rules:
- only root keys sign it: somebody who holds all release keys cannot replace the verifier or the root (threat T9);
- a signed folder is used again, and the serial rises with every new one;
- a development root signs by itself, whenever the root or the verifier changes;
- under any other root, people are asked to sign once for each root version, with the first bundle after it. Until they
  have signed, bundles have no `BOOT/`;
- they are asked again with the first bundle of a format that the signed verifier does not read. Until they have signed,
  bundles carry the older one, which refuses that bundle;
- the packages for a host without python3 are those of the bundle with which it was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from appliance.builder.bare_host.verifier_format import format_read_by
from appliance.builder.bare_host.verifier_zip import build_verifier
from appliance.keys.ceremony import signatures_made
from appliance.keys.signature_requests.request import BOOT as BOOT_KIND
from appliance.keys.signature_requests.request import Item
from appliance.keys.signers.pem import PemKey
from appliance.keys.workspace import Workspace
from bundles.bare_host.boot_check import (
    LIST_FILE,
    MAX_FILE_BYTES,
    PACKAGES_FILE,
    ROOT_FILE,
    VERIFIER_FILE,
    check_boot,
    key_file,
    serial_file,
    signature_file,
    write_list,
)
from bundles.contents.contents import Contents, File
from bundles.medium import Medium
from bundles.oci.layout import BOOT, Layout
from signing.chain import read_root
from signing.errors import ApplianceError
from signing.roles import DEVELOPMENT, Role

Files = dict[str, bytes]


def request_boot(workspace: Workspace, root: bytes, contents: Contents) -> tuple[Item, ...]:
    """The item that people have to sign before a bundle can carry `BOOT/`.

    Args:
        workspace: locked by the caller.
        root: the newest root file.
        contents: of the bundle that is published with it.

    Returns:
        The list to sign; none where it is signed already, or where a development root signs by itself.
    """
    stored = newest(workspace, root)
    is_signed = stored.get(ROOT_FILE) == root and format_read_by(stored[VERIFIER_FILE]) >= contents.format
    if is_signed or read_root(root, ROOT_FILE).profile == DEVELOPMENT:
        return ()
    serial = _last_serial(workspace)
    draft = _stored(workspace, serial)
    if draft != unsigned(root, serial, draft.get(PACKAGES_FILE, b"")):
        draft = unsigned(root, serial + 1, list_packages(contents.files))
        _store(workspace, draft)
    return (Item(BOOT_KIND, f"{BOOT}/{LIST_FILE}", draft[LIST_FILE]),)


def boot_files(workspace: Workspace, root: bytes, files: Iterable[File] = ()) -> Files:
    """The files of `BOOT/` for a bundle, by their path in it; written and signed where there are none yet.

    Args:
        workspace: locked by the caller.
        root: the newest root file.
        files: of the bundle; a new `BOOT/` lists its OS packages for a host without python3.

    Returns:
        No files where people have yet to sign.

    Raises:
        UsageError: the development root's key is not here.
    """
    stored = newest(workspace, root)
    if read_root(root, ROOT_FILE).profile != DEVELOPMENT:
        stored = _with_signatures(workspace, root) or (stored if stored.get(ROOT_FILE) == root else {})
    else:
        packages = stored.get(PACKAGES_FILE) or list_packages(files)
        if not stored or unsigned(root, serial_of(stored), packages).items() - stored.items():
            stored = signed(unsigned(root, _last_serial(workspace) + 1, packages), [workspace.key("root")])
            _store(workspace, stored)
    return {f"{BOOT}/{name}": data for name, data in stored.items()}


def update_bundles(workspace: Workspace, root: bytes, bundles: Iterable[Path]) -> None:
    """Put the signed `BOOT/` into bundles, and remove one that the root's people did not sign: it would not verify.

    Args:
        workspace: locked by the caller.
        root: the newest root file.
        bundles: their folders.
    """
    files, role = boot_files(workspace, root), read_root(root, ROOT_FILE).roles["root"]
    for bundle in bundles:
        medium = Medium(bundle)
        for path, data in files.items():
            medium.write(path, data)
        if files or not _holds(Layout(bundle), role):
            for path in [path for path in medium.walk(BOOT) if path not in files]:
                medium.remove(path)


def _holds(layout: Layout, role: Role) -> bool:
    try:
        check_boot(layout, role)
    except ApplianceError:
        return False
    return True


def unsigned(root: bytes, serial: int, packages: bytes = b"", verifier: bytes | None = None) -> Files:
    """The files by their name in `BOOT/`, with the list that is to be signed.

    Args:
        root: a root file.
        serial: of this `BOOT/`; a higher one is newer.
        packages: of `list_packages`.
        verifier: bytes of `verify.pyz`; None for that of this program.
    """
    files = {key_file(key): key.spki for key in read_root(root, ROOT_FILE).roles["root"].keys.values()}
    files[serial_file(serial)] = f"{serial}\n".encode()
    files[VERIFIER_FILE] = build_verifier() if verifier is None else verifier
    files[ROOT_FILE] = root
    files[PACKAGES_FILE] = packages
    return {**files, LIST_FILE: write_list(files, serial)}


def signed(files: Mapping[str, bytes], keys: Iterable[PemKey]) -> Files:
    """The files with the signatures of some root keys."""
    return {**files, **{signature_file(key.public): key.sign(files[LIST_FILE]) for key in keys}}


def list_packages(files: Iterable[File]) -> bytes:
    """The packages for a host without python3, as a list for `sha256sum`: each package is the blob of that digest."""
    packages = (file for file in files if file.kind == "os-package")
    return "".join(f"{file.sha256}  {file.path}\n" for file in packages).encode("ascii")


def newest(workspace: Workspace, root: bytes) -> Files:
    """The files that were signed last in this workspace, by name; none where no key of this root signed any."""
    role = read_root(root, ROOT_FILE).roles["root"]
    for serial in range(_last_serial(workspace), 0, -1):
        # Incomplete, of another root, or not yet signed: an earlier one may be complete.
        with suppress(ApplianceError):
            if check_boot(Layout(_place(workspace, serial)), role) is not None:
                return _stored(workspace, serial)
    return {}


def serial_of(files: Iterable[str]) -> int:
    """The serial among the names of a `BOOT/`; 0 where there is none."""
    return max((int(name.partition("-")[2]) for name in files if name.startswith("serial-")), default=0)


def _with_signatures(workspace: Workspace, root: bytes) -> Files:
    draft = _stored(workspace, _last_serial(workspace))
    if draft.get(ROOT_FILE) != root or LIST_FILE not in draft:
        return {}
    for key, signature in signatures_made(workspace).get(draft[LIST_FILE], {}).items():
        draft[signature_file(key)] = signature
    _store(workspace, draft)
    return draft if newest(workspace, root) == draft else {}


def _place(workspace: Workspace, serial: int) -> Path:
    return workspace.path / "trust" / "boot" / str(serial)


def _last_serial(workspace: Workspace) -> int:
    return max((int(name) for name in Medium(workspace.path).list("trust/boot") if name.isdigit()), default=0)


def _stored(workspace: Workspace, serial: int) -> Files:
    medium = Medium(_place(workspace, serial))
    return {name: medium.read(f"{BOOT}/{name}", MAX_FILE_BYTES) or b"" for name in medium.list(BOOT)}


def _store(workspace: Workspace, files: Files) -> None:
    medium = Medium(_place(workspace, serial_of(files)))
    for name in sorted(files, key=lambda name: name == LIST_FILE):
        medium.write(f"{BOOT}/{name}", files[name])
