"""The CPU variant is chosen by trying: what dies, hangs or says nothing useful is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.host import trial
from appliance.host.lock import hold
from appliance.host.places import place
from appliance.host.prefix import Prefix
from appliance.host.programs import Programs
from appliance.host.release import check_runtime
from appliance.host.runtime import prepare_runtime
from appliance.host.trial import Choice, choose_variant, fastest, recall, remember
from bundles.progress import ignore
from signing.errors import DamagedError, HostUnfitError
from tests.appliance.sim_host import BENCH, SimHost, new_host


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    with hold(prefix) as lock:
        yield Programs(prefix.scratch, lock)


def folder_with(tmp_path: Path, variant: str, bench: str = BENCH) -> Path:
    folder = tmp_path / variant
    folder.mkdir()
    (folder / f"libggml-cpu-{variant}.so").touch()
    (folder / "llama-bench").write_text(bench)
    (folder / "llama-bench").chmod(0o755)
    return folder


def choose(tmp_path: Path, programs: Programs, *variants: str) -> Choice:
    model = tmp_path / "model"
    model.touch()
    return choose_variant(variants, lambda name: folder_with(tmp_path, name), model, 1, programs, ignore)


def test_variant_that_dies_of_an_illegal_instruction_means_the_next_one(tmp_path: Path, programs: Programs) -> None:
    assert choose(tmp_path, programs, "sapphirerapids", "haswell", "x64") == Choice("haswell", 320, 92)


def test_variant_that_hangs_means_the_next_one(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "BASE_TIMEOUT_S", 0.5)
    assert choose(tmp_path, programs, "zen4", "x64").variant == "x64"


def test_host_on_which_none_runs_is_unfit_and_each_end_is_told(tmp_path: Path, programs: Programs) -> None:
    with pytest.raises(HostUnfitError) as caught:
        choose(tmp_path, programs, "sapphirerapids")
    assert caught.value.exit_code == 6
    assert "sapphirerapids" in caught.value.found
    assert "SIGILL" in caught.value.found


@pytest.mark.parametrize("bench", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho '[\n]'\n", "#!/bin/sh\necho nothing\n"])
def test_variant_without_a_measurement_does_not_count(tmp_path: Path, programs: Programs, bench: str) -> None:
    model = tmp_path / "model"
    model.touch()
    with pytest.raises(HostUnfitError):
        choose_variant(("x64",), lambda name: folder_with(tmp_path, name, bench), model, 1, programs, ignore)


def test_fastest_at_generating_wins_and_near_it_the_fastest_at_reading() -> None:
    slow, quick = Choice("slow", 900, 50), Choice("quick", 100, 100)
    assert fastest([slow, quick]) == quick
    assert fastest([quick, Choice("close", 300, 98), Choice("far", 900, 96)]).variant == "close"


def test_choice_is_remembered_for_the_same_runtime_and_processor_only(tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    assert recall(path, "key") is None
    remember(path, "key", Choice("x64", 2, 1))
    assert recall(path, "key") == Choice("x64", 2, 1)
    assert recall(path, "other") is None
    path.write_text("garbage")
    assert recall(path, "key") is None


def test_runtime_holds_exactly_one_variant_and_is_left_alone_when_right(tmp_path: Path) -> None:
    host = new_host(tmp_path)
    release = host.install()
    assert sorted(path.name for path in release.runtime.iterdir()) == [
        "libggml-cpu-haswell.so",
        "libggml.so",
        "llama-bench",
        "llama-server",
    ]
    before = (release.runtime / "libggml.so").stat()
    with hold(host.prefix) as lock:
        programs = Programs(host.prefix.scratch, lock)
        # The recorded trial stands: this variant would not even run here.
        prepare_runtime(host.prefix, release.path, release.contents, ("sapphirerapids",), programs, ignore)
        after = (release.runtime / "libggml.so").stat()
        assert (before.st_ino, before.st_nlink) == (after.st_ino, 1)
        (release.runtime / "libggml.so").write_bytes(b"a libRary")
        assert check_runtime(release.runtime, release.contents, "haswell")
        prepare_runtime(host.prefix, release.path, release.contents, ("haswell",), programs, ignore)
    assert check_runtime(release.runtime, release.contents, "haswell") == []


def test_member_that_differs_from_its_signed_digest_is_damaged_and_the_wheel_is_named(tmp_path: Path) -> None:
    host: SimHost = new_host(tmp_path)
    release = host.install()
    file = release.contents.of_kind("runtime")[0]
    wheel = place(host.prefix, release.path, file)
    wheel.write_bytes(wheel.read_bytes().replace(b"a library", b"a libRary"))
    (release.runtime / "libggml.so").unlink()
    with hold(host.prefix) as lock, pytest.raises(DamagedError) as caught:
        programs = Programs(host.prefix.scratch, lock)
        prepare_runtime(host.prefix, release.path, release.contents, ("haswell",), programs, ignore)
    assert caught.value.subject == file.path
