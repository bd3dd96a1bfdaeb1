"""Every byte that is signed or decides: flipped, deleted or doubled, it is refused, and the error names the file."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.builder.chunking.chunker import Source
from bundles.bundle import open_bundle
from bundles.chunks.check import check_all
from bundles.oci.layout import Layout
from signing.errors import ApplianceError, DamagedError, NotTrustedError
from signing.floors import Floors
from tests.attacks.harness import command
from tests.mutate_bundle import DEMO, KINDS, REAL, Copy, copy_bundle, in_process, mutated, seeded_of, wrong
from tests.toy import NOW, build_toy

COVERED = ("metadata", "targets", "blobs", "attestations", "BOOT")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    workspace, path = build_toy(
        tmp_path_factory.mktemp("toy"), extra=[Source("licences/x/LICENSE", "licence", data=b"x")]
    )
    target = tmp_path_factory.mktemp("copy") / "bundle"
    shutil.copytree(path, target)
    return workspace.root_file.read_bytes(), target


def small_files(path: Path) -> list[Path]:
    """What is signed or decides: all but big chunks, which are hashed and have tests of their own, and verify.pyz."""
    found = [file for folder in COVERED for file in sorted((path / folder).rglob("*")) if file.is_file()]
    return [file for file in found if file.stat().st_size < 32_000]


def verify(root: bytes, path: Path) -> None:
    found = open_bundle(path, root, Floors(), NOW)
    check_all(Layout(path), found)


def accepted(root: bytes, path: Path, places: Iterator[tuple[Path, int, str]]) -> list[str]:
    """The mutations that were not refused, or whose error does not name the file."""
    wrong = []
    for file, at, kind in places:
        data = file.read_bytes()
        new = mutated(data, at, kind)
        if new == data:
            continue
        file.write_bytes(new)
        name = str(file.relative_to(path))
        try:
            verify(root, path)
            wrong.append(f"accepted: {kind} {name}:{at}")
        except ApplianceError as error:
            told = [error, *error.others]
            if error.exit_code not in (3, 4) or not any(_names(one.subject, file, name) for one in told):
                wrong.append(f"{error.code} {error.subject}: {kind} {name}:{at}")
        finally:
            file.write_bytes(data)
    return wrong


def _names(subject: str, file: Path, name: str) -> bool:
    # A blob is named by the file of the bundle that it is part of; contents and manifest by their own words.
    return file.name in subject or name in subject or name.startswith("blobs/")


def seeded(path: Path, count: int) -> Iterator[tuple[Path, int, str]]:
    chance = random.Random(5)
    files = small_files(path)
    for _ in range(count):
        file = chance.choice(files)
        yield file, chance.randrange(file.stat().st_size), chance.choice(KINDS)


def test_the_untouched_bundle_verifies(toy: tuple[bytes, Path]) -> None:
    verify(*toy)


def test_seeded_mutations_of_everything_small_are_refused_and_named(toy: tuple[bytes, Path]) -> None:
    assert accepted(*toy, seeded(toy[1], 150)) == []


PLACES = (
    "oci-layout",
    "index.json",
    "metadata/timestamp.json",
    "metadata/1.root.json",
    "metadata/*.snapshot.json",
    "metadata/*.targets.json",
    "targets/bundles/toy/1.0.0/*.json",
    "BOOT/BOOT.sha256",
    "BOOT/root.json",
    "BOOT/*.sig",
    "attestations/*/*.oms",
    "attestations/*/*.dsse",
)
HOSTILE: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a file of the system": lambda path: path.symlink_to("/etc/passwd"),
    "nothing": lambda path: path.write_bytes(b""),
    "null": lambda path: path.write_bytes(b"null"),
    "a number": lambda path: path.write_bytes(b"9" * 100_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "half a character": lambda path: path.write_bytes(b'"\\ud800"'),
    "deep lists": lambda path: path.write_bytes(b"[" * 100_000),
    "deep objects": lambda path: path.write_bytes(b'{"a":' * 100_000),
    "an empty envelope": lambda path: path.write_bytes(b'{"signatures":[],"signed":{}}'),
    "empty lists": lambda path: path.write_bytes(b'{"manifests":[{}],"schemaVersion":2}'),
    "much": lambda path: path.write_bytes(b"\n" * (5 << 20)),
}


@pytest.mark.parametrize("place", PLACES)
def test_whatever_lies_in_a_files_place_is_refused_and_is_never_our_bug(toy: tuple[bytes, Path], place: str) -> None:
    root, bundle = toy
    for file in bundle.glob(place):
        data = file.read_bytes()
        for put in HOSTILE.values():
            file.unlink()
            try:
                put(file)
                with pytest.raises((NotTrustedError, DamagedError)):
                    verify(root, bundle)
            finally:
                file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
                file.write_bytes(data)
    verify(root, bundle)


@pytest.mark.ci
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_of_metadata_and_signatures_is_covered(toy: tuple[bytes, Path], kind: str) -> None:
    root, path = toy
    chosen = [file for file in small_files(path) if file.parts[-2] == "metadata" or file.suffix in (".oms", ".sig")]
    places = ((file, at, kind) for file in chosen for at in range(file.stat().st_size))
    assert accepted(root, path, places) == []


@pytest.mark.ci
@pytest.mark.timeout(600)
def test_fifty_mutations_are_refused_by_the_command(toy: tuple[bytes, Path], tmp_path: Path) -> None:
    root, path = toy
    (tmp_path / "root.json").write_bytes(root)
    for file, at, kind in seeded(path, 50):
        data = file.read_bytes()
        new = mutated(data, at, kind)
        if new == data:
            continue
        file.write_bytes(new)
        try:
            answer = command("verify", path, "--trust", tmp_path / "root.json")
        finally:
            file.write_bytes(data)
        assert answer.code in (3, 4), (file, at, kind, answer.talk)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    if not REAL.is_dir():
        pytest.skip("the bundle of the demo is not built: run `make runtime`")
    return copy_bundle(REAL, tmp_path_factory.mktemp("real"))


@pytest.mark.ci
def test_seeded_mutations_of_the_real_bundle_are_refused_and_named(real: Copy) -> None:
    """`make soak` makes two thousand."""
    verify = in_process((DEMO / "trust/root.json").read_bytes())
    assert verify(real.path) == (0, [])
    assert wrong(real, seeded_of(real, 60, 7), verify) == []


@pytest.mark.ci
def test_mutations_of_the_real_bundle_are_refused_by_the_command_and_named(real: Copy) -> None:
    """The command in this process; `make soak` starts it fifty times."""

    def verify(path: Path) -> tuple[int, list[str]]:
        answer = command("verify", path, "--trust", DEMO / "trust/root.json", "--json")
        return answer.code, [fault["subject"] for fault in json.loads(answer.out or "{}").get("errors", [])]

    assert verify(real.path) == (0, [])
    assert wrong(real, seeded_of(real, 50, 8), verify) == []
