"""A bundle is installed by the program that it brings: verified, copied, started once, with the same arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from appliance.builder.wheels.appliance_wheel import build_appliance_wheel
from appliance.host.install import hand_over as module
from appliance.host.install.hand_over import MARK, NEWER_FLAGS, PLAN_FILE, hand_over, remove_unused_sets, words_for
from bundles.bootstrap_set import LAUNCHER_FILE, bootstrap_argv, bootstrap_folder, bootstrap_root
from bundles.chunks.source import Seed
from bundles.contents.wheel_record import RecordEntry
from bundles.oci.layout import Layout, blob_path
from signing.digest import Digest, sha256
from signing.errors import DamagedError, UsageError
from tests.appliance.sim_host import SimHost, new_host, write_program

MAIN = b"""import json, sys
def main():
    print(json.dumps(sys.argv[1:]))
    sys.stderr.write("the new one\\n")
    sys.exit(77)
"""
OTHER = {
    "appliance/__init__.py": (b"", 0o644),
    "appliance/cli/__init__.py": (b"", 0o644),
    "appliance/cli/main.py": (MAIN, 0o644),
    MARK: (b"", 0o644),
}


class Replaced(BaseException):
    """This process would have been replaced."""


@dataclass
class Started:
    """What was started."""

    argv: list[str] = field(default_factory=list)

    def __call__(self, _program: str, argv: list[str]) -> NoReturn:
        self.argv = argv
        raise Replaced


def test_program_without_the_check_of_older_bundles_gets_no_word_of_it() -> None:
    typed = ["install", "--older", "--yes", "--", "--older"]
    file = NEWER_FLAGS["--older"]
    assert words_for((), typed) == ["install", "--yes", "--", "--older"]
    assert words_for([RecordEntry(file, sha256(b""), 0)], typed) == typed
    assert (Path(module.__file__).parents[3] / file).is_file()


def test_program_that_compares_no_plan_is_not_started_with_one() -> None:
    typed = ["install", "--plan", "plan.json", "--", "/media/stick"]
    with pytest.raises(UsageError, match=r"plan\.older-program"):
        words_for((), typed)
    assert words_for([RecordEntry(PLAN_FILE, sha256(b""), 0)], typed) == typed
    assert words_for((), ["install", "--", "--plan"]) == ["install", "--", "--plan"]
    assert (Path(module.__file__).parents[3] / PLAN_FILE).is_file()


def run(sim: SimHost, *words: str) -> list[str]:
    """Hand over, and return what was started; nothing where the running program goes on."""
    started = Started()
    try:
        hand_over(sim.verify().value, Layout(sim.source), sim.prefix, "debian-12", ["install", *words], execute=started)
    except Replaced:
        return started.argv
    return []


def folder_of(sim: SimHost) -> Path:
    return bootstrap_folder(sim.prefix.root, sim.verify().value.manifest)


@pytest.fixture
def other(tmp_path: Path) -> SimHost:
    """A host whose bundle brings another program than the running one."""
    return new_host(tmp_path, program=lambda folder: write_program(folder, OTHER))


def test_program_of_the_bundle_is_started_with_the_same_arguments(other: SimHost) -> None:
    argv = run(other, "/media/stick", "--json")
    assert argv[1:] == bootstrap_argv(folder_of(other), ["install", "/media/stick", "--json"])[1:]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (77, ["install", "/media/stick", "--json"])


def test_command_ends_as_the_other_program_ends(other: SimHost) -> None:
    words = ["install", "--trust", str(other.workspace.root_file), "--prefix", str(other.prefix.root), "--yes"]
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", *words, str(other.source)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 77, done.stderr
    taken = json.loads(done.stdout)
    assert taken[0] == "install"
    assert taken[-2:] == ["--", str(other.source)]
    assert sorted(taken[1:-2]) == sorted(words[1:])
    assert done.stderr.splitlines()[-2:] == [
        "toy 1.0.0 was verified and brings another program: that one installs it",
        "the new one",
    ]


def test_same_program_goes_on_wherever_it_lies(tmp_path: Path) -> None:
    same = new_host(tmp_path, program=lambda folder: build_appliance_wheel(folder, 1_700_000_000))
    assert run(same) == []
    assert not folder_of(same).exists()


def test_program_that_runs_from_the_set_of_the_bundle_never_hands_over(
    other: SimHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(other) != []
    top = folder_of(other) / "program"
    monkeypatch.setattr(module, "running_top", lambda: top)
    assert run(other) == []
    (top / "appliance/cli/main.py").write_bytes(b"changed")
    assert run(other) == [], "else two programs could start each other for ever"


def test_bundle_of_a_program_that_cannot_take_over_is_installed_by_the_running_one(tmp_path: Path) -> None:
    older = {name: file for name, file in OTHER.items() if name != MARK}
    assert run(new_host(tmp_path, program=lambda folder: write_program(folder, older))) == []


def test_program_that_differs_from_its_signed_digest_is_not_started(other: SimHost) -> None:
    wheel = next(file for file in other.verify().value.contents.of_kind("wheel") if "airgap" in file.path)
    blob = other.source / blob_path(wheel.chunks[0].sha256)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    with pytest.raises(DamagedError):
        run(other)
    assert not folder_of(other).exists()


def test_chunk_that_the_medium_leaves_out_comes_from_a_right_copy_on_this_host(
    other: SimHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = other.verify().value
    wheel = next(file for file in bundle.contents.of_kind("wheel") if "airgap" in file.path)
    blob = other.source / blob_path(wheel.chunks[0].sha256)
    (tmp_path / "held").write_bytes(b"before" + blob.read_bytes())
    (tmp_path / "damaged").write_bytes(bytes(6 + blob.stat().st_size))
    blob.unlink()
    seeds = {wheel.chunks[0].sha256: (Seed(tmp_path / "damaged", 6), Seed(tmp_path / "held", 6))}
    monkeypatch.setattr(module, "held_chunks", lambda _prefix: seeds)
    assert run(other) != []


def test_sets_that_nothing_needs_are_removed_and_one_in_use_stays(
    other: SimHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bootstrap_root(other.prefix.root)
    mine, used, old = "a" * 64, "b" * 64, "c" * 64
    for manifest in (mine, used, old):
        (root / manifest[:12] / "program").mkdir(parents=True)
        (root / manifest[:12] / LAUNCHER_FILE).write_bytes(b"")
    (root / f"{'d' * 12}.partial").mkdir()
    monkeypatch.setattr(module, "running_top", lambda: root / used[:12] / "program")
    with module.own_set_kept():
        remove_unused_sets(other.prefix, Digest(mine))
        assert sorted(path.name for path in root.glob("*/")) == [mine[:12], used[:12]]
    remove_unused_sets(other.prefix, Digest(mine))
    assert [path.name for path in root.glob("*/")] == [mine[:12]]
