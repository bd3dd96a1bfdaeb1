"""What the attack tests share: the table of threats, a signed stick to attack, and the switch that turns a guard off.

Every module `test_tNN_*.py` has three parts (docs/architecture.md, Decisions), known by the start of a test's name:
- `test_unattacked_…`: the same input without the attack passes;
- `test_attacked_…`: it is refused with the row's exit code, an error code and a subject;
- `test_unguarded_…`: with the row's guard off the attack gets through, or meets the second guard that is named there.
"""

from __future__ import annotations

import importlib
import io
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from appliance.builder.bare_host.boot_writer import signed, unsigned
from appliance.cli.console.terminal import Terminal
from appliance.cli.main import run
from appliance.keys.signers.pem import PemKey
from bundles.bundle import Bundle, open_bundle
from bundles.chunks.check import check_all
from bundles.oci.layout import ATTESTATIONS, BOOT, INDEX_FILE, TARGETS, Layout, blob_path, target_name, target_path
from bundles.oci.manifest import CHUNK_TYPE, write_index
from signing.digest import Digest, sha256
from signing.errors import ApplianceError
from signing.floors import Floors
from signing.strictjson import load, to_file
from signing.verified import Verified
from tests.sim.tuf import Signed, TufRepository, entry
from tests.toy import NOW

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = Path(__file__).with_name("threats.toml")
PARTS = ("test_unattacked_", "test_attacked_", "test_unguarded_")
ANSWERED, OPEN = "answered", "open"
MAX_JSON = 64 << 20


@dataclass(frozen=True)
class Threat:
    """One row of the table.

    Args:
        row: its number in the list of threats.
        attack: in a few words.
        exit: the exit codes that refuse it; none where it is not about a command.
        owner: the module that answers it.
        guard: dotted name of what stops it; empty while the row is open.
        status: `answered` or `open`.
        note: what is missing, or what a reader should know.
        waits_for: modules that do not exist yet, and whose arrival makes this row incomplete.
    """

    row: int
    attack: str
    exit: tuple[int, ...]
    owner: str
    guard: str
    status: str
    note: str = ""
    waits_for: tuple[str, ...] = ()


@cache
def table() -> tuple[tuple[Threat, ...], int]:
    """Every row, and how many of them may be open."""
    value = tomllib.loads(TABLE.read_text())
    rows = (Threat(**{name: _frozen(item) for name, item in row.items()}) for row in value["threat"])
    return tuple(rows), value["open_count_max"]


def row(number: int) -> Threat:
    """One row of the table."""
    return next(threat for threat in table()[0] if threat.row == number)


def resolve(dotted: str) -> tuple[Any, str, Any]:
    """What a dotted name stands for: its module or class, its last part, and the thing itself."""
    parts = dotted.split(".")
    for at in range(len(parts) - 1, 0, -1):
        try:
            holder = importlib.import_module(".".join(parts[:at]))
        except ModuleNotFoundError:
            continue
        for part in parts[at:-1]:
            holder = getattr(holder, part)
        # A class gives its properties only through its dictionary.
        return holder, parts[-1], vars(holder)[parts[-1]]
    raise ModuleNotFoundError(dotted)


@contextmanager
def guard_off(dotted: str, stand_in: object) -> Iterator[None]:
    """Put something harmless in place of a guard, wherever the project has imported it, for the length of a block."""
    holder, name, guard = resolve(dotted)
    holders = [(holder, name)]
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] in ("signing", "bundles", "appliance"):
            holders += [(module, other) for other, value in vars(module).items() if value is guard]
    with ExitStack() as stack:
        for where, attribute in holders:
            stack.enter_context(mock.patch.object(where, attribute, stand_in))
        yield


class Agreeing(str):
    """A digest that equals every other: what a comparison sees when it is switched off."""

    def __eq__(self, _other: object) -> bool:
        return True

    def __ne__(self, _other: object) -> bool:
        return False

    __hash__ = str.__hash__


AGREES = Agreeing("0" * 64)


@contextmanager
def hashes_off(module: str) -> Iterator[None]:
    """Let every digest that a module computes with `hashlib` equal the one it is compared with."""
    state = SimpleNamespace(update=lambda _data: None, hexdigest=lambda: AGREES)
    with mock.patch.object(importlib.import_module(module), "hashlib", SimpleNamespace(sha256=lambda *_: state)):
        yield


def refused(threat: Threat, act: Callable[[], object], code: str, subject: str) -> ApplianceError:
    """Assert that an act is refused as the row states, and return the error."""
    with pytest.raises(ApplianceError) as caught:
        act()
    error = caught.value
    assert (error.code, error.subject) == (code, subject), str(error)
    assert error.exit_code in threat.exit, str(error)
    return error


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    talk: str


def command(*arguments: str | Path) -> Answer:
    """Run a command line in this process."""
    out, talk = io.StringIO(), io.StringIO()
    code = run([str(argument) for argument in arguments], Terminal(out, talk))
    return Answer(code, out.getvalue(), talk.getvalue())


@dataclass
class Stick:
    """A stick with one bundle, signed by two of three people for content and two of three for the root.

    Args:
        path: its folder.
        repository: the publisher's metadata; `save` writes it to the stick.
        root_file: the root that the host has pinned; it lies elsewhere.
    """

    path: Path
    repository: TufRepository
    root_file: Path

    def save(self) -> Stick:
        """Write the repository's metadata to the stick, and its first root to the host."""
        self.repository.write_to(self.path / "metadata")
        self.root_file.write_bytes(self.repository.pinned)
        return self

    @property
    def root(self) -> bytes:
        """The pinned root."""
        return self.root_file.read_bytes()

    @property
    def layout(self) -> Layout:
        """The stick, as the product sees it."""
        return Layout(self.path)

    @property
    def manifest(self) -> Digest:
        """The digest of its manifest."""
        value = load((self.path / INDEX_FILE).read_bytes(), INDEX_FILE)
        return Digest(value["manifests"][0]["digest"].removeprefix("sha256:"))

    def blob(self, digest: Digest) -> Path:
        """Where a blob lies."""
        return self.path / blob_path(digest)

    def open(self, floors: Floors | None = None, now: datetime = NOW) -> Verified[Bundle]:
        """Verify the chain down to the contents."""
        return open_bundle(self.path, self.root, floors or Floors(), now)

    def verify(self, floors: Floors | None = None, now: datetime = NOW) -> Verified[Bundle]:
        """Verify the chain, every byte and every name."""
        found = self.open(floors, now)
        check_all(self.layout, found)
        return found

    def command(self, *more: str | Path) -> Answer:
        """`appliance verify` of this stick."""
        return command("verify", self.path, "--trust", self.root_file, *more)

    def publish(self, status: str = "current", name: str = "toy", version: str = "1.0.0") -> None:
        """Sign the stick's manifest as a target of that name, and save."""
        manifest = self.blob(self.manifest).read_bytes()
        self.repository.publish({target_name(name, version): entry(manifest, status)})
        path = self.path / target_path(name, version, sha256(manifest))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest)
        self.save()

    def put_boot(self, by: Sequence[PemKey] | None = None, serial: int = 1, verifier: bytes | None = None) -> None:
        """Replace `BOOT/` by one that the root's threshold has signed, or those who are named.

        Args:
            by: the signers.
            serial: how new it claims to be.
            verifier: other bytes for `verify.pyz`.
        """
        shutil.rmtree(self.path / BOOT, ignore_errors=True)
        (self.path / BOOT).mkdir()
        root = self.repository.files[f"{self.repository.root_version}.root.json"]
        files = unsigned(root, serial, verifier=verifier)
        for name, data in signed(files, self.repository.signers("root") if by is None else by).items():
            (self.path / BOOT / name).write_bytes(data)

    def forge(self, change: Callable[[Signed], object], title: str = "toy") -> None:
        """Change `contents.json` and sign it all again: what people with keys and bad intentions could publish.

        Args:
            change: edits the contents in place.
            title: the name in the manifest, and in the target.
        """
        old = self.blob(self.manifest)
        manifest = load(old.read_bytes(), "manifest", MAX_JSON)
        config = self.blob(Digest(manifest["config"]["digest"].removeprefix("sha256:")))
        contents = load(config.read_bytes(), "contents", MAX_JSON)
        change(contents)
        data = to_file(contents)
        chunks = dict.fromkeys(tuple(chunk) for file in contents["files"] for chunk in file["chunks"])
        manifest["config"] |= {"digest": f"sha256:{sha256(data)}", "size": len(data)}
        manifest["layers"] = [
            {"mediaType": CHUNK_TYPE, "digest": f"sha256:{digest}", "size": size} for digest, size in chunks
        ]
        manifest["annotations"]["org.opencontainers.image.title"] = title
        written = to_file(manifest)
        shutil.rmtree(self.path / TARGETS)
        for blob in (data, written):
            self.blob(sha256(blob)).write_bytes(blob)
        for path in old.parent.iterdir():
            if path.name not in {sha256(data), sha256(written), *(digest for digest, _ in chunks)}:
                path.unlink()
        (self.path / INDEX_FILE).write_bytes(write_index(written))
        self.publish(name=title)


def make_stick(bundle: Path, folder: Path, name: str = "stick", version: str = "1.0.0") -> Stick:
    """Copy a bundle and sign it by new metadata under the usual people."""
    shutil.copytree(bundle, folder / name)
    shutil.rmtree(folder / name / TARGETS)
    shutil.rmtree(folder / name / ATTESTATIONS)  # signed by the people of that bundle, not by these
    made = Stick(folder / name, TufRepository(), folder / f"{name}.root.json")
    made.publish(version=version)
    made.put_boot()
    return made


def _frozen(item: Any) -> Any:
    return tuple(item) if isinstance(item, list) else item
