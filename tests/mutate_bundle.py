"""Mutations of the real bundle: `python -m tests.mutate_bundle [--count N] [--commands N] [--seed S]` (some minutes).

Owns which bytes are changed and what counts as refused: exit code 3 or 4, and an error whose subject names the file.
One byte of one file is flipped in one bit, taken away or doubled at a time; each kind of file has an equal share. The
tests do a part of it. It exits with 1 where a mutation was accepted, or refused in another way.

Rules:
- the bundle itself is only read. What is changed is a copy; its big files are links, and never written to;
- `README.txt` is left out: nothing is decided by what it says (FORMAT).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundles.bundle import open_bundle
from bundles.chunks.check import check_all
from bundles.oci.layout import Layout
from signing.digest import sha256
from signing.errors import ApplianceError
from signing.floors import Floors
from tests.toy import NOW

TOP = Path(__file__).resolve().parents[1]
DEMO = TOP / ".demo" / "workspace"
REAL = DEMO / "dist" / "smollm2-1.0.0"
KINDS = ("flip", "delete", "double")
REFUSED = (3, 4)
File = tuple[Path, tuple[str, ...]]
"""A file that is changed, and the words that may name it in an error."""
Verifier = Callable[[Path], tuple[int, list[str]]]
"""Verifies a bundle; gives the exit code and the subjects of all errors."""


@dataclass(frozen=True)
class Copy:
    """A copy of a bundle that may be changed, and the files that are.

    Args:
        path: the copy.
        files: by what they are.
    """

    path: Path
    files: dict[str, list[File]]


@dataclass(frozen=True)
class Mutation:
    """One byte of one file, changed in one way; `names` are the words for the file in an error."""

    file: Path
    at: int
    kind: str
    names: tuple[str, ...]

    def of(self, data: bytes) -> bytes:
        """The changed bytes."""
        return mutated(data, self.at, self.kind)


def mutated(data: bytes, at: int, kind: str) -> bytes:
    """Flip a bit of a byte, take the byte away, or double it."""
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
    return data[:at] + (b"" if kind == "delete" else data[at : at + 1] * 2) + data[at + 1 :]


def copy_bundle(bundle: Path, folder: Path) -> Copy:
    """Link a bundle into a folder, and copy what is going to be changed."""
    path = folder / "bundle"
    shutil.copytree(bundle, path, copy_function=_link)
    index = json.loads((path / "index.json").read_bytes())
    manifest = _blob(path, index["manifests"][0]["digest"])
    contents = _blob(path, json.loads(manifest.read_bytes())["config"]["digest"])
    files: dict[str, list[File]] = {
        "BOOT.sha256": [_named(path / "BOOT/BOOT.sha256")],
        "BOOT": [_named(file) for file in sorted((path / "BOOT").iterdir()) if file.suffix not in (".pyz", ".sha256")],
        "root.json": [_named(file) for file in (path / "metadata/1.root.json", path / "BOOT/root.json")],
        "timestamp": [_named(path / "metadata/timestamp.json")],
        "snapshot": [_named(file) for file in path.glob("metadata/*.snapshot.json")],
        "targets": [_named(file) for file in path.glob("metadata/*.targets.json")],
        "manifest": [
            *(_named(file) for file in path.rglob("*.manifest.json")),
            (manifest, ("manifest", manifest.name)),
        ],
        # Another digest or size there is reported where the blob is looked for.
        "index": [(path / "index.json", ("index.json", "blobs/sha256/", "manifest")), _named(path / "oci-layout")],
        "contents": [(contents, ("contents.json", contents.name))],
        "model.sig": [_named(file) for file in sorted((path / "attestations").rglob("*.oms"))],
        "statements": [_named(file) for file in sorted((path / "attestations").rglob("*.dsse"))],
    }
    for place in (path, *(one for one in path.rglob("*") if one.is_dir())):
        place.chmod(0o755)
    for file, _ in (one for found in files.values() for one in found):
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data)
    assert all(files.values())
    return Copy(path, files)


def _named(file: Path) -> File:
    return file, (file.name,)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _blob(path: Path, digest: str) -> Path:
    return path / "blobs/sha256" / digest.removeprefix("sha256:")


def seeded_of(copy: Copy, count: int, seed: int) -> Iterator[Mutation]:
    """Mutations of every kind of file in turn."""
    chance = random.Random(seed)
    kinds = list(copy.files)
    for number in range(count):
        file, names = chance.choice(copy.files[kinds[number % len(kinds)]])
        yield Mutation(file, chance.randrange(file.stat().st_size), chance.choice(KINDS), names)


def wrong(copy: Copy, mutations: Iterable[Mutation], verify: Verifier) -> list[str]:
    """The mutations that were accepted, or were refused in another way than they should be."""
    found = []
    for one in mutations:
        data = one.file.read_bytes()
        new = one.of(data)
        if new == data:
            continue
        one.file.write_bytes(new)
        try:
            code, subjects = verify(copy.path)
        finally:
            one.file.write_bytes(data)
        if code not in REFUSED or not any(name in subject for name in one.names for subject in subjects):
            place = one.file.relative_to(copy.path)
            found.append(f"{one.kind} {place}:{one.at} gave exit code {code} about {', '.join(subjects) or 'nothing'}")
    return found


def in_process(root: bytes) -> Verifier:
    """What `appliance verify` does, as functions."""

    def verify(path: Path) -> tuple[int, list[str]]:
        try:
            check_all(Layout(path), open_bundle(path, root, Floors(), NOW))
        except ApplianceError as error:
            return error.exit_code, [one.subject for one in (error, *error.others)]
        return 0, []

    return verify


def by_command(root_file: Path) -> Verifier:
    """The command itself, in a process of its own."""

    def verify(path: Path) -> tuple[int, list[str]]:
        argv = [sys.executable, "-m", "appliance", "verify", str(path), "--trust", str(root_file), "--json"]
        done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=300)
        return done.returncode, [fault["subject"] for fault in json.loads(done.stdout or "{}").get("errors", [])]

    return verify


def main(arguments: Sequence[str]) -> int:
    """The command line: returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate_bundle", description="Mutate the real bundle.")
    parser.add_argument("--count", type=int, default=2000, help="how many mutations in this process")
    parser.add_argument("--commands", type=int, default=50, help="how many through the command line")
    parser.add_argument("--seed", type=int, default=5, help="which ones")
    asked = parser.parse_args(arguments)
    root_file, begun = DEMO / "trust" / "root.json", time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy = copy_bundle(REAL, Path(folder))
        root = root_file.read_bytes()
        before = [sha256(file.read_bytes()) for found in copy.files.values() for file, _ in found]
        for verify in (in_process(root), by_command(root_file)):
            assert verify(copy.path) == (0, []), "the untouched bundle does not verify"
        found = wrong(copy, seeded_of(copy, asked.count, asked.seed), in_process(root))
        found += wrong(copy, seeded_of(copy, asked.commands, asked.seed + 1), by_command(root_file))
        assert before == [sha256(file.read_bytes()) for files in copy.files.values() for file, _ in files]
    for line in found:
        print(line)
    minutes = (time.monotonic() - begun) / 60
    tried = f"{asked.count} mutations in this process and {asked.commands} through the command"
    print(f"{tried}: {len(found)} not refused as they should be, {minutes:.1f} minutes")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
