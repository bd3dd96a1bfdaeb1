"""T102: a hand-over starts a program that is not the one of the verified bundle, or starts programs for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.install import hand_over as module
from bundles.bootstrap_set import LAUNCHER_FILE, PROGRAM_FOLDER, bootstrap_folder
from bundles.oci.layout import blob_path
from signing.errors import ApplianceError
from tests.appliance.host.install.test_hand_over import OTHER, run
from tests.appliance.sim_host import SimHost, new_host, write_program
from tests.attacks.harness import guard_off, row

ROW = row(102)


@pytest.fixture
def host(tmp_path: Path) -> SimHost:
    """A host, and a stick whose bundle brings another program than the running one."""
    return new_host(tmp_path, program=lambda folder: write_program(folder, OTHER))


def program_of(host: SimHost) -> Path:
    return bootstrap_folder(host.prefix.root, host.verify().value.manifest) / PROGRAM_FOLDER


def exchange(host: SimHost) -> None:
    """Put other bytes of the same length into the blob of the program's wheel."""
    wheel = next(file for file in host.verify().value.contents.of_kind("wheel") if file.bootstrap)
    blob = host.source / blob_path(wheel.chunks[0].sha256)
    blob.write_bytes(blob.read_bytes().replace(b"sys.exit(77)", b"sys.exit(66)"))


def test_unattacked_program_of_the_bundle_is_started_from_a_copy_on_the_host(host: SimHost) -> None:
    assert str(program_of(host).parent / LAUNCHER_FILE) in run(host)
    assert b"sys.exit(77)" in (program_of(host) / "appliance/cli/main.py").read_bytes()


def test_attacked_by_another_program_on_the_stick(host: SimHost) -> None:
    exchange(host)
    with pytest.raises(ApplianceError) as caught:
        run(host)
    assert caught.value.exit_code in ROW.exit
    assert not program_of(host).exists()


def test_attacked_by_a_program_that_lay_on_the_host_before(host: SimHost) -> None:
    """A folder of the right name with other bytes is made again, from the stick."""
    program_of(host).mkdir(parents=True)
    (program_of(host).parent / LAUNCHER_FILE).write_bytes(b"print('mine')")
    run(host)
    assert b"mine" not in (program_of(host).parent / LAUNCHER_FILE).read_bytes()


def run_from_its_set(host: SimHost, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hand over, change a file of the program that was started, and let that one install."""
    run(host)
    (program_of(host) / "appliance/cli/main.py").write_bytes(b"changed")
    monkeypatch.setattr(module, "running_top", lambda: program_of(host))
    return run(host)


def test_attacked_by_a_program_that_would_hand_over_again(host: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_from_its_set(host, monkeypatch) == []


def test_unguarded_it_would_hand_over_to_itself(host: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    with guard_off(ROW.guard, lambda *_: False):
        assert run_from_its_set(host, monkeypatch) != []
