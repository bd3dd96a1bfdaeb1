"""The workspace of a publisher: trust root, TUF repository, keys and finished bundles (docs/architecture.md, Trust).

Owns the folder's layout and its creation. It lies outside the project's tracked files, and `keys/` never leaves it.

    trust/root.json           the root that this workspace's bundles are verified against
    trust/repository/         the TUF repository: metadata/ and targets/
    trust/floors.json         the versions that were published last: an older copy of the repository is refused
    keys/                     0700; builder.pem, and in a development workspace root.pem and targets.pem
    requests/                 what waits for signatures; requests/done/ what was signed
    hosts/                    hosts whose receipts count; `appliance.keys.enrolled_hosts` owns it
    dist/                     bundles
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance import filelock
from appliance.keys.signers.pem import PemKey, create_key, load_key
from appliance.keys.tuf_metadata import new_repository, new_root
from bundles.medium import Medium, explain_write, sync_folder
from signing.chain import read_root
from signing.errors import BusyError, UsageError
from signing.keys import PublicKey
from signing.roles import Root

ROLES_WITH_KEYS = ("root", "targets", "builder")


@dataclass(frozen=True, slots=True)
class Workspace:
    """An opened workspace.

    Args:
        path: its folder.
    """

    path: Path

    @property
    def root_file(self) -> Path:
        """The root file that bundles of this workspace are verified against."""
        return self.path / "trust" / "root.json"

    @property
    def repository(self) -> Medium:
        """The TUF repository: `metadata/` and `targets/`."""
        return Medium(self.path / "trust" / "repository")

    @property
    def dist(self) -> Path:
        """Where finished bundles lie."""
        return self.path / "dist"

    @property
    def requests(self) -> Path:
        """Where requests for signatures wait."""
        return self.path / "requests"

    def root(self) -> Root:
        """The trust root, checked against its own signatures."""
        return read_root(self.root_file.read_bytes(), str(self.root_file))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the workspace alone: one build at a time signs the next version.

        Raises:
            BusyError: another build is at work here.
            UsageError: there is no workspace.
        """
        if not (self.path / "trust").is_dir():
            raise _missing(self.path)
        with filelock.hold(self.path / "trust" / ".lock", lambda _: _busy(self.path)):
            yield

    def key(self, role: str) -> PemKey:
        """The private key of `root`, `targets` or `builder`.

        Raises:
            UsageError: this workspace does not hold it.
        """
        return load_key(self.path / "keys" / f"{role}.pem")

    def builder(self, root: Root) -> PemKey:
        """The private key that signs snapshot and timestamp under a root: `builder.pem`, or a later `builder-N.pem`.

        Raises:
            UsageError: this workspace does not hold it.
        """
        for path in sorted((self.path / "keys").glob("builder*.pem")):
            key = load_key(path)
            if key.public.key_id in root.roles["timestamp"].keys and key.public.key_id in root.roles["snapshot"].keys:
                return key
        wanted = ", ".join(key.fingerprint for key in root.roles["timestamp"].keys.values())
        raise UsageError(
            "key.missing",
            str(self.path / "keys"),
            expected=f"the builder's key {wanted}",
            found="none with this fingerprint",
            hint="restore keys/ from a backup, or replace the key: appliance trust rotate --new-builder-key",
        )


def open_workspace(path: Path) -> Workspace:
    """Open a workspace whose trust root is signed.

    Raises:
        UsageError: there is none, or its first signatures are still missing.
    """
    workspace = Workspace(path)
    if workspace.root_file.is_file():
        return workspace
    if (workspace.requests / "root-1.json").is_file():
        raise UsageError(
            "workspace.unsigned",
            str(path),
            expected="a trust root that enough people have signed",
            found="one that waits for signatures",
            hint=f"collect them: appliance sign --add FILE --workspace {path}",
        )
    raise _missing(path)


def create_development(path: Path, now: datetime) -> tuple[Workspace, bool]:
    """Make a workspace with a development root: one key for each role, on this disk.

    Args:
        path: where; an existing workspace is left as it is.
        now: the time that root and targets state, in UTC.

    Returns:
        The workspace, and whether it was made just now. It appears whole or not at all.

    Raises:
        UsageError: something else lies where keys/ or trust/ would go.
        ApplianceError: the folder cannot be written.
    """
    workspace = Workspace(path)
    if workspace.root_file.is_file():
        return workspace, False
    making = path / ".init"
    try:
        if not _is_half_moved(making):
            refuse_occupied(path)
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            _fill(Workspace(making), now)
            os.replace(making / "keys", path / "keys")
        # trust/ moves last: a workspace is one that has trust/root.json.
        os.replace(making / "trust", path / "trust")
        making.rmdir()
        sync_folder(path)
    except OSError as error:
        raise explain_write(error, path, 16 << 10) from None
    return workspace, True


@contextmanager
def making_ceremony(path: Path) -> Iterator[PublicKey]:
    """Make the folders and the builder's key of a workspace of several people around what the caller adds.

    `.init` lies there until the caller is done, so that a creation that was killed is not taken for a workspace that
    lost a part, and continues with the same key.

    Args:
        path: where; holds no workspace, or one whose creation was killed.

    Raises:
        UsageError: something lies there.
        ApplianceError: the folder cannot be written.
    """
    making = path / ".init"
    try:
        if not _is_begun(path):
            refuse_occupied(path)
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            create_key(making / "keys" / "builder.pem")
            os.replace(making / "keys", path / "keys")
            sync_folder(path)
        (path / "trust").mkdir(exist_ok=True)
        yield load_key(path / "keys" / "builder.pem").public
        making.rmdir()
        sync_folder(path)
    except OSError as error:
        raise explain_write(error, path, 16 << 10) from None


def _busy(path: Path) -> BusyError:
    return BusyError(
        "workspace.busy",
        str(path),
        expected="one build at a time in a workspace",
        found="another one",
        hint="wait until the other `appliance build` has ended",
    )


def _missing(path: Path) -> UsageError:
    return UsageError(
        "workspace.missing",
        str(path),
        expected="a workspace with trust/root.json",
        found="none",
        hint=f"name your workspace with --workspace DIR; if you have none: appliance init {path}",
    )


def _is_half_moved(making: Path) -> bool:
    return (making / "trust" / "root.json").is_file() and not (making / "keys").exists()


def _is_begun(path: Path) -> bool:
    making, keys = path / ".init", path / "keys"
    if Workspace(path).root_file.exists() or not making.is_dir() or any(making.iterdir()):
        return False
    return keys.is_dir() and [one.name for one in keys.iterdir()] == ["builder.pem"]


def refuse_occupied(path: Path) -> None:
    """Refuse a folder that holds something where a workspace would go.

    Raises:
        UsageError: code `workspace.occupied`.
    """
    taken = [name for name in ("keys", "trust", "requests") if os.path.lexists(path / name)]
    if taken:
        raise UsageError(
            "workspace.occupied",
            str(path),
            expected="a folder without keys/, trust/ and requests/",
            found=" and ".join(f"{name}/" for name in taken),
            hint="finish what was interrupted: the same appliance init --ceremony once more"
            if _is_begun(path)
            else "choose another folder, or put trust/root.json back if this was a workspace",
        )


def _fill(workspace: Workspace, now: datetime) -> None:
    keys = {role: create_key(workspace.path / "keys" / f"{role}.pem") for role in ROLES_WITH_KEYS}
    root = new_root(keys["root"], keys["targets"], keys["builder"], now)
    workspace.repository.root.mkdir(parents=True)
    for name, data in new_repository(root, keys["targets"], keys["builder"], now).items():
        workspace.repository.write(f"metadata/{name}", data)
    Medium(workspace.path).write("trust/root.json", root)
