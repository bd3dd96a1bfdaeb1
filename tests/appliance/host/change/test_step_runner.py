"""Steps are recorded after they are done, undone in reverse, and not undone after a final one."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.change.journal import DONE, FAILED, STARTED, Journal
from appliance.host.change.step_runner import ChangeStep, StepRecord, StepRunner
from signing.errors import ApplianceError, ApplyBrokenError, ApplyRestoredError, DriftError

Lines = list[str]


def step(
    name: str, error: Exception | None = None, undo_error: Exception | None = None, *, is_final: bool = False
) -> ChangeStep[Lines]:
    def run(lines: Lines, record: StepRecord) -> None:
        lines.append(name)
        record.note = f"{name} was done"
        if error is not None:
            raise error

    def undo(lines: Lines) -> None:
        lines.append(f"undo {name}")
        if undo_error is not None:
            raise undo_error

    return ChangeStep(name, "a line", run, undo, is_needed=lambda _: name != "never", is_final=is_final)


def broken(first: BaseException, failed: ApplianceError | OSError) -> ApplianceError:
    error = ApplyBrokenError("x.not-restored", "x", found=str(failed))
    error.others = (first,) if isinstance(first, ApplianceError) else ()
    return error


@dataclass
class Rig:
    """Runs steps that write down what happens to them."""

    folder: Path
    journal: Journal
    lines: Lines = field(default_factory=list)

    def __call__(self, *steps: ChangeStep[Lines]) -> Lines:
        self.lines.clear()
        StepRunner(steps, self.lines, self.journal, "r", self.folder, broken, self.note).run()
        return self.lines

    def note(self, name: str, when: str) -> None:
        self.lines.append(f"{when} {name}")


@pytest.fixture
def run(tmp_path: Path) -> Rig:
    return Rig(tmp_path, Journal(tmp_path / "install.jsonl", lambda: datetime(2026, 1, 1, tzinfo=timezone.utc)))


def test_steps_run_in_order_and_each_is_recorded_after_it_was_done(run: Rig) -> None:
    assert run(step("a"), step("never"), step("b")) == ["before a", "a", "after a", "before b", "b", "after b"]
    entries = [(entry.step, entry.state, entry.note) for entry in run.journal.read()]
    assert entries == [("a", STARTED, ""), ("a", DONE, "a was done"), ("b", STARTED, ""), ("b", DONE, "b was done")]


def test_failed_step_and_those_before_it_are_undone_in_reverse(run: Rig) -> None:
    failed = DriftError("x.y", "z")
    with pytest.raises(DriftError):
        run(step("a"), step("b", failed), step("c"))
    lines = run.lines
    assert lines == ["before a", "a", "after a", "before b", "b", "undo b", "undo a"]
    assert [entry.state for entry in run.journal.read()][-1] == FAILED


def test_nothing_is_undone_once_a_final_step_has_begun(run: Rig) -> None:
    with pytest.raises(DriftError):
        run(step("a"), step("b", DriftError("x.y", "z"), is_final=True))
    assert not [line for line in run.lines if line.startswith("undo")]


def test_every_undo_runs_although_one_fails_and_both_errors_are_shown(run: Rig) -> None:
    first, second = DriftError("gate.failed", "the gate"), DriftError("restore.failed", "the return")
    with pytest.raises(ApplyBrokenError) as caught:
        run(step("a"), step("b", None, second), step("c", first))
    assert [line for line in run.lines if line.startswith("undo")] == ["undo c", "undo b", "undo a"]
    assert caught.value.exit_code == 8
    assert "restore.failed" in caught.value.found
    assert [one.code for one in caught.value.others] == ["gate.failed"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_7_where_it_was_undone_and_1_where_the_new_release_serves(run: Rig, number: int) -> None:
    with pytest.raises(ApplyRestoredError, match=r"disk\.full"):
        run(step("a", OSError(number, "full")))
    with pytest.raises(ApplianceError, match=r"disk\.full") as caught:
        run(step("a", OSError(number, "full"), is_final=True))
    assert caught.value.exit_code == 1


def test_end_by_a_signal_is_undone_too(run: Rig) -> None:
    with pytest.raises(SystemExit):
        run(step("a", SystemExit(143)))  # type: ignore[arg-type]
    assert run.lines[-1] == "undo a"
