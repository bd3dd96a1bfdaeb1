"""The doctor finds what is wrong on any machine, and names one command for each thing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.change.change_file import INSTALL, SWITCHING, HostChange, change_path, write_change
from appliance.host.layout.places import STAGED_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance import doctor
from appliance.host.maintenance.doctor import Diagnosis, Patient, examine, next_step
from bundles.stick.mounts import Mount
from signing.errors import ApplianceError, DriftError
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, new_host
from tests.attacks.harness import command
from tests.toy import NOW


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = new_host(tmp_path_factory.mktemp("doctor"))
    made.install()
    return made


def patient_of(host: SimHost) -> Patient:
    return Patient(host.prefix, CARD, datetime.now(timezone.utc), None, (), ())


def none_stopped(*_: object) -> Sequence[ApplianceError]:
    return ()


def wrong(patient: Patient) -> list[Diagnosis]:
    return [one for one in examine(patient, none_stopped) if one.state == "wrong"]


def one_wrong(patient: Patient, area: str) -> Diagnosis:
    [found] = wrong(patient)
    assert (found.area, bool(found.command)) == (area, True)
    assert next_step(patient, [found]) == found.command.partition("; ")[0]
    return found


def test_healthy_host_has_nothing_wrong(host: SimHost) -> None:
    assert wrong(patient_of(host)) == []
    found = command("doctor", "--prefix", host.prefix.root)
    assert (found.code, found.out.splitlines()[-2]) == (0, "nothing is wrong")


def test_machine_without_anything_is_shown_where_to_begin(tmp_path: Path) -> None:
    patient = Patient(Prefix.at(tmp_path / "host"), CARD, NOW, None, (), ())
    found = examine(patient, none_stopped)
    assert [(one.area, one.state) for one in found] == [("machine", "ok"), ("clock", "ok"), ("host", "note")]
    assert next_step(patient, found) == "appliance demo"
    assert not (tmp_path / "host").exists()


def test_host_with_a_root_and_a_staged_release_is_shown_the_next_command(host: SimHost, tmp_path: Path) -> None:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    shutil.copytree(host.prefix.trust, prefix.trust, dirs_exist_ok=True)
    patient = Patient(prefix, CARD, NOW, None, (), ())
    assert next_step(patient, ()) == f"appliance install STICK{prefix.option}"
    (prefix.releases / "1.0.0-3f2a9c0b7d15").mkdir(parents=True)
    (prefix.releases / "1.0.0-3f2a9c0b7d15" / STAGED_FILE).touch()
    assert next_step(patient, ()) == f"appliance switch 1.0.0-3f2a9c0b7d15{prefix.option}"


def test_stick_of_another_publisher_is_wrong_and_one_of_this_host_is_the_next_step(
    host: SimHost, tmp_path: Path
) -> None:
    fresh = Patient(Prefix.at(tmp_path / "fresh"), CARD, NOW, host.workspace.path, (host.source,), ())
    found = examine(fresh, none_stopped)
    [stick] = [one for one in found if one.area == "stick"]
    assert stick.state == "ok"
    assert stick.command == f"appliance install {host.source}{fresh.prefix.option}"
    stranger = replace(fresh, workspace=new_host(tmp_path / "other").workspace.path)
    assert one_wrong(stranger, "stick").area == "stick"


def test_mounted_stick_is_found_by_its_content_and_other_file_systems_are_left_alone(
    host: SimHost, tmp_path: Path
) -> None:
    mounts = tuple(
        Mount(at, "0:99", path, kind, "/dev/sdb1", False)
        for at, (path, kind) in enumerate([(host.source, "vfat"), (tmp_path, "ext4"), (host.source, "nfs4")])
    )
    found = examine(replace(patient_of(host), mounts=mounts), none_stopped)
    assert [one.state for one in found if one.area == "stick"] == ["ok"]


def test_stick_that_was_pulled_is_wrong(host: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mount, "is_gone", property(lambda _: True))
    mount = Mount(1, "8:16", Path("/media/stick"), "vfat", "/dev/sdb1", False)
    assert one_wrong(replace(patient_of(host), mounts=(mount,)), "stick").command == "sudo umount /media/stick"


def test_clock_behind_the_proved_time_is_wrong(host: SimHost) -> None:
    early = replace(patient_of(host), now=datetime(2018, 1, 1, tzinfo=timezone.utc))
    assert [one.area for one in wrong(early)] == ["clock"]


def test_key_that_others_can_read_is_wrong(host: SimHost) -> None:
    path = host.workspace.path / "keys" / "builder.pem"
    before = path.stat().st_mode
    path.chmod(0o644)
    found = one_wrong(replace(patient_of(host), workspace=host.workspace.path), "workspace")
    assert found.command == f"chmod 600 {path}"
    path.chmod(before & 0o777)


def test_folder_that_is_no_workspace_is_wrong(host: SimHost, tmp_path: Path) -> None:
    assert one_wrong(replace(patient_of(host), workspace=tmp_path), "workspace")


def test_site_file_that_is_wrong_or_not_applied_is_named(host: SimHost) -> None:
    host.prefix.site_file.write_text("port: 1\n")
    assert one_wrong(patient_of(host), "host").command.startswith(f"appliance config apply{host.prefix.option}; ")
    host.prefix.site_file.write_text("port: 99999\n")
    assert f"{host.prefix.site_file}:1:7 field port" in one_wrong(patient_of(host), "host").found
    host.prefix.site_file.unlink()


def test_interrupted_change_is_wrong_with_its_command(host: SimHost) -> None:
    write_change(host.prefix, HostChange(INSTALL, "1.1.0-0123456789ab", "", SWITCHING, "2026-01-31T12:00:00Z"))
    found = one_wrong(patient_of(host), "host")
    assert found.command == f"appliance switch 1.1.0-0123456789ab{host.prefix.option}"
    change_path(host.prefix).unlink()


def test_stopped_engine_and_a_broken_release_are_wrong(host: SimHost) -> None:
    stopped = DriftError("engine.stopped", "toy", found="crashed", hint="start it again")
    found = examine(patient_of(host), lambda *_: [stopped])
    assert [one.command for one in found if one.state == "wrong"] == ["start it again"]
    ok = host.prefix.current / "RELEASE.ok"
    ok.unlink()
    assert "release.incomplete" in one_wrong(patient_of(host), "host").found
    ok.touch()


def test_full_disks_are_wrong(host: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(host.prefix.root)

    class Full:
        f_bavail, f_frsize, f_flag = 1, 4096, real.f_flag | os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda _: Full())
    found = [one.command.split()[0:2] for one in wrong(patient_of(host))]
    assert found == [["df", "-h"], ["findmnt", "--target"], ["appliance", "gc"], ["findmnt", "--target"]]


def test_part_that_cannot_be_looked_at_is_a_note_and_ends_nothing(
    host: SimHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(doctor, "open_workspace", refuse)
    found = examine(replace(patient_of(host), workspace=host.workspace.path), none_stopped)
    assert [(one.area, one.state) for one in found if one.state != "ok"] == [("workspace", "note")]


def test_answer_for_programs_has_the_exit_code(host: SimHost, tmp_path: Path) -> None:
    shutil.copytree(host.source, tmp_path / "stick")
    (tmp_path / "stick" / "index.json").write_text("{}")
    found = command("doctor", tmp_path / "stick", "--prefix", host.prefix.root, "--json")
    assert found.code == 1
    answer = json.loads(found.out)
    assert (answer["exit_code"], [one["area"] for one in answer["findings"] if one["state"] == "wrong"]) == (
        1,
        ["stick"],
    )
