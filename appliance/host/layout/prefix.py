"""The tree of a host: where everything lies below one folder (docs/architecture.md, The host).

Owns the paths and the modes of the folders. It must never read or write the files in them.

Rules:
- a prefix is an absolute path without links in it, so that paths that are recorded inside stay valid;
- folders are created with the modes given here, independent of the umask; those that exist are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bundles.bare_host.prefix_path import check_prefix
from signing.digest import Digest
from signing.errors import UsageError

PUBLIC = 0o755
PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class Prefix:
    """The root of a host's tree.

    Args:
        root: absolute; `Prefix.at` makes it so.
    """

    root: Path

    @classmethod
    def at(cls, path: Path) -> Prefix:
        """Make the prefix for a path that a person gave.

        Raises:
            UsageError: something that is not a folder lies there, or the path holds a character that has a meaning of
                its own in a PATH, a shell or a template.
        """
        return cls(check_prefix(path))

    @property
    def opt(self) -> Path:
        """The installed releases, and the link to the current one."""
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
        """Files that outlive a release."""
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
        """The journal of installs, and their lock."""
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
    def gateway_state(self) -> Path:
        """What the gateway itself writes: the usage of keys. On a whole machine systemd makes it for its user."""
        return self.state.with_name("appliance-gateway")

    @property
    def audit(self) -> Path:
        """The log of requests and who sent them."""
        return self.state / "audit"

    @property
    def engine_state(self) -> Path:
        """What engines and scrubs record: incidents, the last scrub. On a whole machine it is of the engines' user."""
        return self.root / "var" / "lib" / "appliance-engine"

    @property
    def state_format(self) -> Path:
        """The number of the format that the stored state may have."""
        return self.state / "state-format"

    @property
    def scratch(self) -> Path:
        """Temporary files; every install empties this folder."""
        return self.state / "tmp"

    @property
    def etc(self) -> Path:
        """What the site has decided: its configuration."""
        return self.root / "etc" / "appliance"

    @property
    def site_file(self) -> Path:
        """The site's configuration."""
        return self.etc / "site.yaml"

    @property
    def option(self) -> str:
        """The option that names this host in a command, quoted for a shell; empty for the whole machine."""
        import shlex

        return "" if self.is_system else f" --prefix {shlex.quote(str(self.root))}"

    @property
    def is_system(self) -> bool:
        """Whether this is the whole machine, whose services systemd runs, and not a folder of a user."""
        return self.root == Path("/")

    @property
    def units(self) -> Path:
        """Where systemd reads the units of an administrator. Used on a whole machine only."""
        return self.root / "etc" / "systemd" / "system"

    @property
    def default_key(self) -> Path:
        """The file with the first key that this host granted."""
        return self.etc / "default.key"

    @property
    def run_dir(self) -> Path:
        """Files that last until the machine starts again."""
        return self.root / "run" / "appliance"

    @property
    def logs(self) -> Path:
        """Logs of what serves below a prefix; on a whole machine systemd keeps them."""
        return self.root / "var" / "log" / "appliance"

    def release_path(self, version: str, manifest: Digest) -> Path:
        """The folder of one release, named after its version and 12 digits of its manifest's digest."""
        return self.releases / f"{version}-{manifest[:12]}"

    def model_path(self, file_sha256: Digest, name: str) -> Path:
        """The path of a model's file.

        Args:
            file_sha256: of the whole file.
            name: its last path part, as the bundle names it.
        """
        return self.models / file_sha256 / name

    def folders(self) -> tuple[Path, ...]:
        """Every folder of the tree whose owner can exchange the files that serve, from the top."""
        above = (self.root, self.root / "opt", self.root / "var", self.root / "var" / "lib", self.root / "etc")
        own = (self.opt, self.releases, self.state, self.models, self.trust, self.journal, self.etc, self.run_dir)
        return (*above, *own)

    def create(self) -> None:
        """Create the folders that are missing. Cost: a few system calls where none is.

        Raises:
            UsageError: a path of a folder belongs to something else.
        """
        public = (self.root, self.releases, self.models, self.trust, self.etc, self.run_dir)
        private = (self.journal, self.runs, self.audit, self.scratch)
        for path in public:
            make_folder(path, PUBLIC)
        for path in private:
            make_folder(path, PRIVATE)


def make_folder(path: Path, mode: int = PUBLIC) -> None:
    """Create a folder and its missing parents (mode 0755), independent of the umask.

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
