"""Where everything of a host lies: the tree of DESIGN 9 below one folder.

Owns the paths and the modes of the folders. It must never read or write what lies in them.

Rules:
- a prefix is an absolute path without links in it, so that what is recorded inside stays true;
- folders are made with the modes given here whatever the umask says, and those that exist are left alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from signing.digest import Digest
from signing.errors import UsageError

PUBLIC = 0o755
PRIVATE = 0o700
_ODD = ":%{}\"'\\$`"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The root of a host's tree.

    Args:
        root: absolute; `Prefix.at` makes it so.
    """

    root: Path

    @classmethod
    def at(cls, path: Path) -> Prefix:
        """The prefix at a path that a person gave.

        Raises:
            UsageError: something that is not a folder lies there, or the path holds a character that a PATH, a shell
                or a template would read as its own.
        """
        root = Path(os.path.realpath(path))
        odd = sorted({letter for letter in str(root) if letter in _ODD or not letter.isprintable()})
        if odd:
            raise UsageError(
                "prefix.characters",
                str(path),
                expected="a path without any of " + " ".join(_ODD),
                found=" ".join(ascii(letter) for letter in odd),
                hint="choose another --prefix",
            )
        if root.exists() and not root.is_dir():
            raise UsageError("prefix.not-a-folder", str(path), expected="a folder, or nothing yet", found="a file")
        return cls(root)

    @property
    def opt(self) -> Path:
        """What is installed: releases and the link to the current one."""
        return self.root / "opt" / "appliance"

    @property
    def releases(self) -> Path:
        """One folder for each installed bundle version."""
        return self.opt / "releases"

    @property
    def current(self) -> Path:
        """The link to the release that serves."""
        return self.opt / "current"

    @property
    def state(self) -> Path:
        """What outlives a release."""
        return self.root / "var" / "lib" / "appliance"

    @property
    def models(self) -> Path:
        """Models by the sha256 of their file, shared by releases."""
        return self.state / "models"

    @property
    def trust(self) -> Path:
        """The pinned root and the floors."""
        return self.state / "trust"

    @property
    def journal(self) -> Path:
        """What an install has done so far, and its lock."""
        return self.state / "journal"

    @property
    def runs(self) -> Path:
        """One folder for each run of Ansible."""
        return self.state / "runs"

    @property
    def access(self) -> Path:
        """The database of keys: who may use what is served."""
        return self.state / "access.db"

    @property
    def audit(self) -> Path:
        """The log of what was asked and by whom."""
        return self.state / "audit"

    @property
    def scratch(self) -> Path:
        """Files that no finished work needs; emptied by every install."""
        return self.state / "tmp"

    @property
    def etc(self) -> Path:
        """What the site decided."""
        return self.root / "etc" / "appliance"

    @property
    def site_file(self) -> Path:
        """The site's configuration."""
        return self.etc / "site.yaml"

    @property
    def option(self) -> str:
        """What names this host at the end of a command, to be typed in a shell; empty for the whole machine."""
        import shlex

        return "" if self.is_system else f" --prefix {shlex.quote(str(self.root))}"

    @property
    def is_system(self) -> bool:
        """Whether this is the whole machine, whose services systemd runs, and not a folder of somebody's."""
        return self.root == Path("/")

    @property
    def units(self) -> Path:
        """Where systemd reads what an administrator has installed. Used on a whole machine only."""
        return self.root / "etc" / "systemd" / "system"

    @property
    def default_key(self) -> Path:
        """Holds the first key that this host granted."""
        return self.etc / "default.key"

    @property
    def run_dir(self) -> Path:
        """What lasts until the next start of the machine."""
        return self.root / "run" / "appliance"

    def release_path(self, version: str, manifest: Digest) -> Path:
        """The folder of one release: its version, and 12 digits of its manifest's digest."""
        return self.releases / f"{version}-{manifest[:12]}"

    def model_path(self, file_sha256: Digest, name: str) -> Path:
        """Where a model's file lies.

        Args:
            file_sha256: of the whole file.
            name: its last path part, as the bundle names it.
        """
        return self.models / file_sha256 / name

    def folders(self) -> tuple[Path, ...]:
        """Every folder of the tree whose owner can exchange what serves, from the top."""
        above = (self.root, self.root / "opt", self.root / "var", self.root / "var" / "lib", self.root / "etc")
        own = (self.opt, self.releases, self.state, self.models, self.trust, self.journal, self.etc, self.run_dir)
        return (*above, *own)

    def create(self) -> None:
        """Make the folders that are missing; costs a few system calls when none is.

        Raises:
            UsageError: something that is not a folder stands in the way.
        """
        public = (self.root, self.releases, self.models, self.trust, self.etc, self.run_dir)
        private = (self.journal, self.runs, self.audit, self.scratch)
        for path in public:
            make_folder(path, PUBLIC)
        for path in private:
            make_folder(path, PRIVATE)


def make_folder(path: Path, mode: int = PUBLIC) -> None:
    """Make a folder and its missing parents (mode 0755), without the umask's say.

    Raises:
        UsageError: a part of the path is a file.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise UsageError(
                "prefix.not-a-folder", str(path), expected="a folder", found="a file", hint="choose another --prefix"
            ) from None
        return
    path.chmod(mode)
