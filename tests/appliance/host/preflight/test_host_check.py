"""Preflight reports every reason at once, changes nothing, and lets no clock decide."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.console.terminal import Terminal
from appliance.cli.main import run
from appliance.host.install.bundle_admission import model_workloads
from appliance.host.layout.places import OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Card, card_value
from appliance.host.machine.cpu import FLAGS, cpu_flags, fitting_variants
from appliance.host.machine.probe import probe_essentials
from appliance.host.preflight import host_check
from appliance.host.preflight.host_check import PreflightResult, check_host, wanted_names
from appliance.host.preflight.inputs import Host
from appliance.host.preflight.surroundings import Listener, Process, Surroundings
from appliance.host.release.environment import Interpreter
from bundles.contents.contents import Contents, Target
from bundles.gguf.memory import RESERVE_BYTES
from bundles.oci.layout import Layout, blob_path
from signing.errors import ApplianceError, HostUnfitError
from tests.appliance.sim_card import CARD, GIB, write_machine
from tests.appliance.sim_host import PYTHON, SimHost, new_host

FIT = replace(CARD, cpu=replace(CARD.cpu, flags=("sse4_2",)))
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    return new_host(tmp_path_factory.mktemp("preflight"))


def check(
    host: SimHost,
    card: Card,
    contents: Contents | None = None,
    now: datetime = NOW,
    floor: str = "",
    is_root: bool = False,
) -> PreflightResult:
    contents = contents or host.verify().value.contents
    models = model_workloads(Layout(host.source), contents)
    where = Host(host.prefix, card, lambda: now, "", is_root)
    return check_host(contents, models, where, host.prefix.releases / "r", floor)


def test_fit_host_passes_and_nothing_is_written(host: SimHost) -> None:
    fit = check(host, FIT)
    assert fit.require_python().minor == PYTHON
    assert fit.variants == ("x64",)
    assert fit.warnings == ()
    assert not host.prefix.root.exists()


def test_every_problem_is_reported_at_once_with_a_remedy_each(host: SimHost) -> None:
    card = replace(
        CARD,
        system=replace(CARD.system, os="plan9-4", arch="mips", glibc="2.3", glibcxx="3.4.2", cxxabi=""),
        cpu=replace(CARD.cpu, flags=()),
        memory=replace(CARD.memory, ram_bytes=1000),
    )
    contents = host.verify().value.contents
    contents = replace(
        contents,
        targets=(Target("debian-12", "x86_64", ("2.7",)),),
        needs=replace(contents.needs, cpu_variants=("haswell",)),
    )
    with pytest.raises(HostUnfitError) as caught:
        check(host, card, contents)
    problems = (caught.value, *caught.value.others)
    assert caught.value.exit_code == 6
    assert [problem.subject for problem in problems] == [
        "system",
        "glibc",
        "libstdc++ GLIBCXX",
        "libstdc++ CXXABI",
        "memory",
        "python",
        "cpu",
    ]
    assert all(problem.hint and problem.expected and problem.found for problem in problems)


def in_group(folder: Path, limit_bytes: int, used_bytes: int = 0) -> Card:
    """A machine of 16 GB whose control group allows this process only so much."""
    files = {"sys/fs/cgroup/job/memory.max": f"{limit_bytes}\n", "sys/fs/cgroup/job/memory.current": f"{used_bytes}\n"}
    card = probe_essentials(NOW, lambda _command: "", write_machine(folder, files))
    return replace(card, system=FIT.system)


def plan_json(host: SimHost, card: Card, folder: Path) -> tuple[int, dict[str, Any]]:
    """What `appliance plan` answers for this bundle and that machine."""
    (folder / "card.json").write_text(json.dumps(card_value(card)))
    given = ("--host", folder / "card.json", "--workspace", host.workspace.path, "--prefix", folder / "nothing")
    out = io.StringIO()
    words = [str(word) for word in ("plan", host.source, *given, "--json")]
    return run(words, Terminal(out, io.StringIO())), json.loads(out.getvalue())


@pytest.mark.parametrize(("limit_bytes", "used_bytes"), [(RESERVE_BYTES, 0), (8 * GIB, 7 * GIB), (1 << 20, 0)])
def test_control_group_that_leaves_too_little_memory_is_refused_with_the_verdict_of_plan(
    host: SimHost, tmp_path: Path, limit_bytes: int, used_bytes: int
) -> None:
    card = in_group(tmp_path, limit_bytes, used_bytes)
    code, planned = plan_json(host, card, tmp_path)
    assert (code, planned["fits"]) == (6, False)
    with pytest.raises(HostUnfitError) as caught:
        check(host, card)
    assert (caught.value.subject, caught.value.exit_code, caught.value.others) == ("memory", 6, ())
    assert caught.value.expected == f"{planned['total']} bytes for models"
    assert caught.value.found == f"{planned['budget']} bytes for models"


def test_control_group_that_leaves_just_enough_is_accepted_as_by_plan(host: SimHost, tmp_path: Path) -> None:
    _, planned = plan_json(host, in_group(tmp_path, 8 * GIB), tmp_path)
    needed = planned["total"] + RESERVE_BYTES
    assert plan_json(host, in_group(tmp_path, needed), tmp_path)[0] == 0
    assert check(host, in_group(tmp_path, needed)).variants
    with pytest.raises(HostUnfitError):
        check(host, in_group(tmp_path, needed - 1))


def test_release_that_serves_in_this_control_group_can_be_repaired(host: SimHost, tmp_path: Path) -> None:
    card = in_group(tmp_path, 8 * GIB, used_bytes=7 * GIB)
    finished = host.prefix.releases / "r" / OK_FILE
    finished.parent.mkdir(parents=True)
    finished.touch()
    try:
        assert check(host, card).variants
    finally:
        shutil.rmtree(host.prefix.root)


def test_release_that_serves_in_this_control_group_can_be_followed_by_another(host: SimHost, tmp_path: Path) -> None:
    card = in_group(tmp_path, 8 * GIB, used_bytes=7 * GIB)
    (host.prefix.releases / "old").mkdir(parents=True)
    host.prefix.current.symlink_to("releases/old")
    try:
        assert check(host, card).variants
        too_small = replace(card, memory=replace(card.memory, ram_bytes=RESERVE_BYTES))
        with pytest.raises(HostUnfitError):
            check(host, too_small)
    finally:
        shutil.rmtree(host.prefix.root)


def test_model_whose_header_is_damaged_on_the_medium_is_left_to_the_import(host: SimHost, tmp_path: Path) -> None:
    contents = host.verify().value.contents
    shutil.copytree(host.source, tmp_path / "stick")
    chunk = contents.by_path[contents.models[0].path].chunks[0]
    blob = tmp_path / "stick" / blob_path(chunk.sha256)
    blob.chmod(0o644)
    blob.write_bytes(bytes(chunk.size))
    assert model_workloads(Layout(tmp_path / "stick"), contents) == ()


def test_disk_that_is_too_small_is_named_with_needed_and_free_bytes(host: SimHost) -> None:
    contents = host.verify().value.contents
    files = tuple(replace(file, size=1 << 60) if file.kind == "wheel" else file for file in contents.files)
    with pytest.raises(HostUnfitError) as caught:
        check(host, FIT, replace(contents, files=files))
    assert caught.value.subject.startswith("disk at ")
    assert int(caught.value.expected.split()[0]) >= 1 << 60


def test_folder_that_everybody_can_write_is_no_place_to_install(host: SimHost) -> None:
    host.prefix.releases.mkdir(parents=True, exist_ok=True)
    before = host.prefix.releases.stat().st_mode
    host.prefix.releases.chmod(0o777)
    try:
        with pytest.raises(HostUnfitError) as caught:
            check(host, FIT)
        assert str(host.prefix.releases) in caught.value.subject
    finally:
        host.prefix.releases.chmod(before & 0o7777)


@pytest.mark.parametrize("year", [1970, 2018, 2099])
def test_wrong_clock_is_a_warning_at_most(host: SimHost, year: int) -> None:
    now = datetime(year, 1, 1, tzinfo=timezone.utc)
    fit = check(host, FIT, now=now, floor="2026-01-01T00:00:00Z")
    assert bool(fit.warnings) == (year < 2026)


def test_backend_that_this_version_does_not_use_is_a_warning_and_no_refusal(host: SimHost) -> None:
    contents = host.verify().value.contents
    fit = check(host, FIT, replace(contents, needs=replace(contents.needs, gpu_driver="580")))
    assert [warning for warning in fit.warnings if "CUDA" in warning]
    assert fit.variants == ("x64",)


def test_bundle_without_a_model_or_programs_is_refused_before_the_host_is_judged(host: SimHost) -> None:
    contents = host.verify().value.contents
    files = tuple(replace(file, members=()) for file in contents.files)
    with pytest.raises(ApplianceError) as caught:
        check(host, FIT, replace(contents, models=(), files=files))
    assert caught.value.code == "bundle.not-installable"
    assert "llama-server, llama-bench, a model" in caught.value.found


def test_variants_are_ordered_newest_first_and_filtered_by_flags() -> None:
    everything = frozenset(flag for flags in FLAGS.values() for flag in flags)
    assert fitting_variants(FLAGS, everything)[0] == "sapphirerapids"
    assert fitting_variants(("x64", "haswell", "zen4"), frozenset(FLAGS["haswell"])) == ("haswell", "x64")
    assert fitting_variants(("x64", "haswell"), frozenset()) == ("x64",)


def test_flags_of_a_machine_without_cpuinfo_are_empty(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "none") == frozenset()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> dict[str, Interpreter | None]:
    """A whole machine whose search for a Python finds what the test puts here."""
    found: dict[str, Interpreter | None] = {"python": None}
    monkeypatch.setattr(Prefix, "is_system", True)
    monkeypatch.setattr(host_check, "find_python", lambda *_: found["python"])
    return found


def with_package(host: SimHost, name: str, system: str = CARD.system.os) -> Contents:
    contents = host.verify().value.contents
    packed = replace(contents.files[0], path=f"os-packages/{system}/{name}", kind="os-package")
    return replace(contents, files=(*contents.files, packed))


def test_python_that_comes_with_the_packages_is_searched_after_them(
    host: SimHost, bare: dict[str, Interpreter | None]
) -> None:
    fit = check(host, FIT, with_package(host, f"python{PYTHON}_{PYTHON}.2-6_amd64.deb"), is_root=True)
    assert fit.python is None
    bare["python"] = Interpreter(Path(f"/usr/bin/python{PYTHON}"), f"{PYTHON}.2")
    assert fit.require_python() == bare["python"]


def test_packages_that_brought_no_python_are_reported_when_it_is_needed(
    host: SimHost, bare: dict[str, Interpreter | None]
) -> None:
    fit = check(host, FIT, with_package(host, f"python{PYTHON}_{PYTHON}.2-6_amd64.deb"), is_root=True)
    with pytest.raises(HostUnfitError) as caught:
        fit.require_python()
    assert caught.value.subject == "python"


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("python2.7_2.7.18_amd64.deb", CARD.system.os),
        (f"python{PYTHON}-doc_{PYTHON}.2-6_all.deb", CARD.system.os),
        (f"python{PYTHON}_{PYTHON}.2-6_amd64.deb", "debian-13"),
    ],
)
def test_python_of_another_version_or_system_does_not_come(
    host: SimHost, bare: dict[str, Interpreter | None], name: str, system: str
) -> None:
    with pytest.raises(HostUnfitError) as caught:
        check(host, FIT, with_package(host, name, system), is_root=True)
    assert (caught.value.subject, caught.value.others) == ("python", ())


def test_below_a_prefix_no_package_brings_a_python(
    host: SimHost, bare: dict[str, Interpreter | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prefix, "is_system", False)
    with pytest.raises(HostUnfitError):
        check(host, FIT, with_package(host, f"python{PYTHON}_{PYTHON}.2-6_amd64.deb"), is_root=True)


def test_every_hurdle_of_a_whole_machine_stands_on_one_card_with_its_remedy(
    host: SimHost, bare: dict[str, Interpreter | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.host.preflight.room_findings.TEMPORARY_BYTES", 1 << 60)
    around = Surroundings(
        "x" * 64,
        (Listener("127.0.0.1", 8443, Process(5, "nginx")),),
        Process(7, "apt-get"),
        broken=("torn",),
    )
    card = replace(FIT, system=replace(FIT.system, arch="aarch64", systemd=""), memory=replace(FIT.memory, ram_bytes=1))
    contents = with_package(host, "bubblewrap_0.8.0-2_amd64.deb")
    models = model_workloads(Layout(host.source), contents)
    place = Host(host.prefix, card, lambda: datetime(2018, 1, 1, tzinfo=timezone.utc), "", around=around)
    with pytest.raises(HostUnfitError) as caught:
        check_host(contents, models, place, host.prefix.releases / "r", "2026-01-01T00:00:00Z")
    problems = (caught.value, *caught.value.others)
    assert {one.code for one in problems} == {"host.unfit"}
    assert {one.exit_code for one in problems} == {6}
    subjects = [one.subject.replace(tempfile.gettempdir(), "TMP") for one in problems]
    assert subjects == [
        *("system", "memory", "user", "services", "python"),
        *("temporary files in TMP", "host name", "package manager", "packages", "port 8443"),
    ]
    assert all(one.expected and one.found and one.hint for one in problems)


@pytest.mark.parametrize(
    ("installed", "wanted"),
    [
        (("needed", "amd64", "1:1.0~rc1-2"), ()),
        (("needed", "amd64", "1.0-rc1-2"), ()),
        (("needed", "amd64", "1.0-rc1-3"), ("needed_1.0-rc1-2_amd64.deb",)),
        (("needed", "arm64", "1.0-rc1-2"), ("needed_1.0-rc1-2_amd64.deb",)),
    ],
)
def test_packages_are_compared_by_the_name_of_their_file(
    host: SimHost, bare: dict[str, Interpreter | None], installed: tuple[str, str, str], wanted: tuple[str, ...]
) -> None:
    contents = with_package(host, "needed_1.0-rc1-2_amd64.deb")
    place = Host(host.prefix, FIT, lambda: NOW, "", around=Surroundings("box", installed=(installed,)))
    assert wanted_names(contents, place) == wanted
    assert wanted_names(contents, replace(place, around=None)) == ("needed_1.0-rc1-2_amd64.deb",)
    assert wanted_names(contents, replace(place, card=replace(FIT, system=replace(FIT.system, os="debian-13")))) == ()
