"""The scrub of a host reads what serves, records what differs, and ends nothing else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from appliance.events import INCIDENT, SCRUB_ENDED, Event
from appliance.host.engine.state import SERVING, EngineState, write_state
from appliance.host.models.incident import BYTES, RUNTIME, UNREADABLE, incident_file, read_incident
from appliance.host.release.release import Release
from appliance.serve.supervisor import scrub_keeper, scrubbing
from appliance.serve.supervisor.scrub_keeper import ScrubKeeper
from appliance.serve.supervisor.scrubbing import (
    EVERY,
    LastScrub,
    describe_last_scrub,
    end_engine,
    is_due,
    read_last_scrub,
    scrub_release,
)
from signing.errors import DamagedError
from tests.appliance.serve.supervisor.test_service import eventually
from tests.sim.releases import install_toy
from tests.toy import NOW


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    # The toy's runtime is no wheel; its check has tests of its own.
    monkeypatch.setattr(scrubbing, "check_engine_files", lambda _release: None)
    monkeypatch.setattr(scrubbing, "find_engine_socket", lambda *_: tmp_path / "toy.sock")
    return install_toy(tmp_path / "host")


def scrub(release: Release, events: list[Event] | None = None) -> scrubbing.ScrubReport:
    return scrub_release(release, ["toy"], lambda: NOW, (events if events is not None else []).append)


def store(release: Release) -> Path:
    return release.model_file(release.contents.models[0])[1]


def file_of(release: Release) -> str:
    return release.model_file(release.contents.models[0])[0].sha256


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_right_host_has_no_fault_and_the_time_is_recorded(release: Release) -> None:
    events: list[Event] = []
    report = scrub(release, events)
    assert report.errors() == []
    assert [event.kind for event in events] == [SCRUB_ENDED]
    last = read_last_scrub(release.prefix)
    assert last is not None
    assert (last.models, last.faults) == (1, 0)
    assert describe_last_scrub(last).endswith("1 model read, no fault")


def test_changed_model_is_recorded_and_reported(release: Release) -> None:
    flip(store(release))
    events: list[Event] = []
    [error] = scrub(release, events).errors()
    assert (error.exit_code, error.subject) == (9, "toy")
    found = read_incident(release.prefix, release.model_file(release.contents.models[0])[0].sha256, "toy")
    assert found is not None
    assert found.cause == BYTES
    assert [event.kind for event in events] == [INCIDENT, SCRUB_ENDED]
    assert events[0].fields["digest"] == file_of(release)


def test_missing_model_is_recorded(release: Release) -> None:
    store(release).unlink()
    report = scrub(release)
    [one] = report.models
    assert one.file is None
    assert one.incident is not None
    assert one.incident.cause == UNREADABLE


def test_model_goes_on_where_the_machine_has_no_descriptor_left_for_a_scrub(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(scrubbing, "scrub_file", failing)
    with pytest.raises(OSError, match="Too many open files"):
        scrub(release)
    assert not list(release.prefix.engine_state.glob("incident-*"))


def test_changed_library_stops_every_model(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_release: Release) -> None:
        raise DamagedError("contents.file-changed", "runtime.whl: libllama.so")

    monkeypatch.setattr(scrubbing, "check_engine_files", check)
    report = scrub(release)
    assert report.models[0].incident is not None
    assert report.models[0].incident.cause == RUNTIME
    assert sorted(error.exit_code for error in report.errors()) == [3, 9]


def test_engine_is_ended_even_where_the_incident_cannot_be_written(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(scrubbing, "end_engine", lambda _release, model: ended.append(model))

    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(scrubbing, "record_incident", full)
    flip(store(release))
    with pytest.raises(OSError, match="No space left"):
        scrub(release)
    assert ended == ["toy"]


@pytest.fixture
def engine(release: Release, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs the release's engine, and is named by the state beside the socket."""
    program = release.runtime / "llama-server"
    program.unlink(missing_ok=True)
    program.parent.mkdir(exist_ok=True)
    shutil.copy("/usr/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        write_state(tmp_path / "toy.sock", EngineState(SERVING, pid=process.pid))
        yield process
        process.kill()


def test_engine_of_a_changed_model_is_ended_as_the_kernel_would(
    release: Release, engine: subprocess.Popen[bytes]
) -> None:
    flip(store(release))
    scrub(release)
    assert engine.wait(5) == -signal.SIGBUS
    assert incident_file(release.prefix, release.model_file(release.contents.models[0])[0].sha256).exists()


def test_process_that_is_not_this_engine_is_never_ended(release: Release, tmp_path: Path) -> None:
    with subprocess.Popen(["/usr/bin/sleep", "60"]) as other:
        for pid in (other.pid, 1, 0, 1 << 21):
            write_state(tmp_path / "toy.sock", EngineState(SERVING, pid=pid))
            assert not end_engine(release, "toy")
        assert other.poll() is None
        other.kill()


def test_scrub_is_due_once_a_week_and_where_the_clock_was_set_back(release: Release) -> None:
    assert is_due(release.prefix, NOW)
    scrub(release)
    assert not is_due(release.prefix, NOW)
    assert not is_due(release.prefix, NOW + EVERY - timedelta(seconds=1))
    assert is_due(release.prefix, NOW + EVERY)
    assert is_due(release.prefix, NOW - timedelta(seconds=1))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"time": "today", "models": 1, "faults": 0}', b'{"time": 1, "models": 1, "faults": 0}']
)
def test_what_is_no_record_of_a_scrub_counts_as_none(release: Release, data: bytes) -> None:
    scrub(release)
    (release.prefix.engine_state / "scrub.json").write_bytes(data)
    assert read_last_scrub(release.prefix) is None


def test_record_holds_what_it_says(release: Release) -> None:
    scrub(release)
    value = json.loads((release.prefix.engine_state / "scrub.json").read_bytes())
    assert LastScrub(**value) == read_last_scrub(release.prefix)


def test_below_a_prefix_a_thread_scrubs_when_it_is_due(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub_keeper, "become_idle", lambda: None)
    flip(store(release))
    now: list[datetime] = [NOW]
    events: list[Event] = []
    keeper = ScrubKeeper(lambda: release, lambda: now[0], events.append, 0.01)
    keeper.start()
    assert eventually(lambda: [event.kind for event in events] == [INCIDENT, SCRUB_ENDED])
    now[0] += EVERY
    assert eventually(lambda: [event.kind for event in events].count(SCRUB_ENDED) == 2)
    keeper.stop()
    keeper.stop()


def test_thread_ends_in_the_middle_of_a_scrub(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub_keeper, "become_idle", lambda: None)
    keeper = ScrubKeeper(lambda: release, lambda: NOW, lambda _event: None, 0.0)
    real = keeper._continue
    seen: list[bool] = []

    def stop_now(progress: object) -> None:
        keeper._stopping.set()
        seen.append(True)
        real(progress)  # type: ignore[arg-type]

    monkeypatch.setattr(keeper, "_continue", stop_now)
    keeper.start()
    keeper._thread.join(5)
    assert not keeper._thread.is_alive()
    assert len(seen) == 1
    assert read_last_scrub(release.prefix) is None
