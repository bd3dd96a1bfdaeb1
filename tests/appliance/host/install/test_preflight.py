"""Preflight tells every reason at once, changes nothing, and believes no clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.install import preflight
from appliance.host.install.preflight import Fit, check_host
from appliance.host.machine.cpu import FLAGS, cpu_flags, fitting_variants
from appliance.host.machine.machine import Machine, read_machine
from appliance.host.release.environment import Interpreter
from appliance.host.tree.prefix import Prefix
from bundles.contents.model import Contents, Target
from signing.errors import ApplianceError, HostUnfitError
from tests.appliance.sim_host import PYTHON, SimHost, new_host

FIT = Machine("debian-12", "x86_64", "2.36", "3.4.30", "1.3.13", frozenset({"sse4_2"}), 1 << 34)
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    return new_host(tmp_path_factory.mktemp("preflight"))


def check(
    host: SimHost, machine: Machine, contents: Contents | None = None, now: datetime = NOW, floor: str = ""
) -> Fit:
    contents = contents or host.verify().value.contents
    return check_host(contents, host.prefix, host.prefix.releases / "r", machine, now, floor, "")


def test_fit_host_passes_and_nothing_is_written(host: SimHost) -> None:
    fit = check(host, FIT)
    assert fit.require_python().minor == PYTHON
    assert fit.variants == ("x64",)
    assert fit.warnings == ()
    assert not host.prefix.root.exists()


def test_every_problem_is_told_at_once_with_a_remedy_each(host: SimHost) -> None:
    machine = Machine("plan9-4", "mips", "2.3", "3.4.2", "", frozenset(), 1000)
    contents = host.verify().value.contents
    contents = replace(
        contents,
        targets=(Target("debian-12", "x86_64", ("2.7",)),),
        needs=replace(contents.needs, cpu_variants=("haswell",)),
    )
    with pytest.raises(HostUnfitError) as caught:
        check(host, machine, contents)
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


def test_disk_that_is_too_small_is_named_with_needed_and_free_bytes(host: SimHost) -> None:
    contents = host.verify().value.contents
    files = tuple(replace(file, size=1 << 60) if file.kind == "model" else file for file in contents.files)
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


def test_backend_that_this_version_does_not_use_is_said_and_keeps_no_host_from_the_bundle(host: SimHost) -> None:
    contents = host.verify().value.contents
    fit = check(host, FIT, replace(contents, needs=replace(contents.needs, gpu_driver="580")))
    assert [warning for warning in fit.warnings if "CUDA" in warning]
    assert fit.variants == ("x64",)


def test_bundle_without_a_model_or_programs_is_told_before_the_host_is_looked_at(host: SimHost) -> None:
    contents = host.verify().value.contents
    files = tuple(replace(file, members=()) for file in contents.files)
    with pytest.raises(ApplianceError) as caught:
        check(host, FIT, replace(contents, models=(), files=files))
    assert caught.value.code == "bundle.not-installable"
    assert "llama-server, llama-bench, a model" in caught.value.found


def test_this_machine_can_be_read() -> None:
    machine = read_machine()
    assert machine.arch
    assert machine.os.count("-") >= 1
    assert [int(part) for part in machine.glibc.split(".")] >= [2, 17]
    assert machine.glibcxx.startswith("3.4")
    assert machine.ram_bytes > 1 << 28


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
    monkeypatch.setattr(preflight, "find_python", lambda *_: found["python"])
    return found


BARE = replace(FIT, is_root=True, systemd=252)


def with_package(host: SimHost, name: str, system: str = FIT.os) -> Contents:
    contents = host.verify().value.contents
    packed = replace(contents.files[0], path=f"os-packages/{system}/{name}", kind="os-package")
    return replace(contents, files=(*contents.files, packed))


def test_python_that_comes_with_the_packages_is_looked_for_after_them(
    host: SimHost, bare: dict[str, Interpreter | None]
) -> None:
    fit = check(host, BARE, with_package(host, f"python{PYTHON}_{PYTHON}.2-6_amd64.deb"))
    assert fit.python is None
    bare["python"] = Interpreter(Path(f"/usr/bin/python{PYTHON}"), f"{PYTHON}.2")
    assert fit.require_python() == bare["python"]


def test_packages_that_brought_no_python_are_told_when_it_is_looked_for(
    host: SimHost, bare: dict[str, Interpreter | None]
) -> None:
    fit = check(host, BARE, with_package(host, f"python{PYTHON}_{PYTHON}.2-6_amd64.deb"))
    with pytest.raises(HostUnfitError) as caught:
        fit.require_python()
    assert caught.value.subject == "python"


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("python2.7_2.7.18_amd64.deb", FIT.os),
        (f"python{PYTHON}-doc_{PYTHON}.2-6_all.deb", FIT.os),
        (f"python{PYTHON}_{PYTHON}.2-6_amd64.deb", "debian-13"),
    ],
)
def test_python_of_another_version_or_system_does_not_come(
    host: SimHost, bare: dict[str, Interpreter | None], name: str, system: str
) -> None:
    with pytest.raises(HostUnfitError) as caught:
        check(host, BARE, with_package(host, name, system))
    assert (caught.value.subject, caught.value.others) == ("python", ())


def test_below_a_prefix_no_package_brings_a_python(
    host: SimHost, bare: dict[str, Interpreter | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prefix, "is_system", False)
    with pytest.raises(HostUnfitError):
        check(host, BARE, with_package(host, f"python{PYTHON}_{PYTHON}.2-6_amd64.deb"))
