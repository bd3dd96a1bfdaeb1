"""Making `BOOT/`, once for each trust root and verifier.

Owns what goes into it, when it is made anew, and where a workspace keeps it: `trust/boot/<serial>/BOOT/`, byte for
byte as every bundle carries it. How it is spelled and checked is `bundles.boot`'s.

Rules:
- only root keys sign it: whoever holds all release keys cannot replace the verifier or the root (threat T9);
- what was signed is used again as long as root and verifier are the same; otherwise the serial rises by one. The
  packages for a host without python3 are those of the bundle with which it was made;
- a development root signs by itself. Under any other root people sign, and a bundle goes without until they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from appliance.build.zipapp import build_verifier
from appliance.keys.pem import PemKey
from appliance.keys.workspace import Workspace
from bundles.boot import (
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
from bundles.contents import File
from bundles.layout import BOOT, Layout
from bundles.medium import Medium
from signing.chain import read_root
from signing.errors import ApplianceError
from signing.roles import DEVELOPMENT

_KEPT = "trust/boot"
Files = dict[str, bytes]


def boot_of(workspace: Workspace, root: bytes, files: Iterable[File]) -> Files:
    """The files of `BOOT/` for a bundle, by their path in it; made and signed where they must be.

    Args:
        workspace: locked by the caller.
        root: the newest root file.
        files: of the bundle; its OS packages are named for a host without python3, where no others are yet.

    Returns:
        Nothing where people have to sign first.

    Raises:
        UsageError: the development root's key is not here.
    """
    kept = newest(workspace, root)
    packages = kept.get(PACKAGES_FILE) or list_packages(files)
    if not kept or unsigned(root, serial_of(kept), packages).items() - kept.items():
        if read_root(root, ROOT_FILE).profile != DEVELOPMENT:
            return {}
        kept = signed(unsigned(root, _last_serial(workspace) + 1, packages), [workspace.key("root")])
        _keep(workspace, kept)
    return {f"{BOOT}/{name}": data for name, data in kept.items()}


def unsigned(root: bytes, serial: int, packages: bytes = b"", verifier: bytes | None = None) -> Files:
    """Every file by its name in `BOOT/`, and the list that is to be signed.

    Args:
        root: a root file.
        serial: how new it is.
        packages: of `list_packages`.
        verifier: bytes of `verify.pyz`; None is that of this program.
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
    """What a host without python3 needs: a list for `sha256sum`; each package is the blob of that digest."""
    packages = (file for file in files if file.kind == "os-package")
    return "".join(f"{file.sha256}  {file.path}\n" for file in packages).encode("ascii")


def newest(workspace: Workspace, root: bytes) -> Files:
    """The files that were signed last in this workspace, by name; none where no root key of this root signed any."""
    serial = _last_serial(workspace)
    layout = Layout(workspace.path / _KEPT / str(serial))
    try:
        if check_boot(layout, read_root(root, ROOT_FILE).roles["root"]) is None:
            return {}
    except ApplianceError:  # half written, or of another root: made anew under the next serial
        return {}
    names = layout.medium.list(BOOT)
    return {name: layout.medium.read(f"{BOOT}/{name}", MAX_FILE_BYTES) or b"" for name in names}


def serial_of(files: Iterable[str]) -> int:
    """The serial among the names of a `BOOT/`; 0 where there is none."""
    return max((int(name.partition("-")[2]) for name in files if name.startswith("serial-")), default=0)


def _last_serial(workspace: Workspace) -> int:
    return max((int(name) for name in Medium(workspace.path).list(_KEPT) if name.isdigit()), default=0)


def _keep(workspace: Workspace, files: Files) -> None:
    serial, medium = serial_of(files), Medium(workspace.path)
    for name in sorted(files, key=lambda name: name == LIST_FILE):
        medium.write(f"{_KEPT}/{serial}/{BOOT}/{name}", files[name])
