"""The record of the unfinished change: one grammar for Python and sh, durable, and never guessed at."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.change.change_file import (
    INSTALL,
    NAMES,
    PHASES,
    ROLLBACK,
    SWITCHING,
    TRYING,
    HostChange,
    change_path,
    clear_change,
    format_change,
    parse_change,
    read_change,
    utc_text,
    write_change,
)
from appliance.host.layout.prefix import Prefix
from signing.errors import DriftError

CHANGE = HostChange(
    INSTALL, "1.1.0-0123456789ab", "1.0.0-ba9876543210", TRYING, "2026-01-31T12:00:00Z", 2, note="gate.failed"
)
READER = """
while IFS== read -r name value; do
    case $name in
    op) op=$value ;; release) release=$value ;; before) before=$value ;; phase) phase=$value ;; boots) boots=$value ;;
    esac
done <"$1"
printf '%s %s %s %s %s' "$op" "$release" "$before" "$phase" "$boots"
"""


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    return prefix


def test_a_change_is_read_as_it_was_written_and_removed(prefix: Prefix) -> None:
    assert read_change(prefix) is None
    write_change(prefix, CHANGE)
    assert read_change(prefix) == CHANGE
    assert change_path(prefix).stat().st_mode & 0o777 == 0o600
    write_change(prefix, replace(CHANGE, op=ROLLBACK, phase=SWITCHING))
    assert read_change(prefix) == replace(CHANGE, op=ROLLBACK, phase=SWITCHING)
    clear_change(prefix)
    clear_change(prefix)
    assert read_change(prefix) is None


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_shell_reads_the_same(prefix: Prefix, shell: str) -> None:
    write_change(prefix, CHANGE)
    done = subprocess.run([shell, "-c", READER, "sh", change_path(prefix)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{CHANGE.op} {CHANGE.release} {CHANGE.before} {CHANGE.phase} {CHANGE.boots}"


def test_every_operation_has_its_phases() -> None:
    for op, phases in PHASES.items():
        for phase in {phase for all_phases in PHASES.values() for phase in all_phases}:
            change = replace(CHANGE, op=op, phase=phase)
            if phase in phases:
                assert parse_change(format_change(change), Path("change")) == change
            else:
                with pytest.raises(ValueError, match=r"change\.unreadable"):
                    format_change(change)


GOOD = format_change(CHANGE).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        GOOD[:-1],
        GOOD + "more=1\n",
        GOOD.replace("op=install\n", ""),
        GOOD.replace("format=1", "format=2"),
        GOOD.replace("boots=2", "boots=-2"),
        GOOD.replace("boots=2", "boots="),
        GOOD.replace("1.1.0-0123456789ab", "../1.1.0-0123456789ab"),
        GOOD.replace("1.1.0-0123456789ab", "$(reboot)"),
        GOOD.replace("1.1.0-0123456789ab", "1.1.0"),
        GOOD.replace("release=1.1.0-0123456789ab", "release="),
        GOOD.replace("note=gate.failed", "note=a b"),
        GOOD.replace("note=gate.failed", "note=a=b"),
        GOOD.replace("since=2026-01-31T12:00:00Z", "since=today"),
        GOOD.replace("purge=no", "purge=maybe"),
        GOOD.replace("purge=no\nnote=gate.failed", "note=gate.failed\npurge=no"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("gate.failed", "x" * 5000),
    ],
)
def test_what_breaks_the_grammar_is_drift(prefix: Prefix, text: str) -> None:
    change_path(prefix).write_text(text, newline="")
    with pytest.raises(DriftError, match=r"change\.unreadable"):
        read_change(prefix)


def test_a_link_in_the_place_of_the_record_is_drift(prefix: Prefix, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(GOOD)
    change_path(prefix).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DriftError):
        read_change(prefix)


def test_names_stand_in_a_fixed_order() -> None:
    assert NAMES == ("format", "op", "release", "before", "phase", "since", "boots", "purge", "note")
    assert [line.partition("=")[0] for line in GOOD.splitlines()] == list(NAMES)


def test_times_are_written_in_utc() -> None:
    assert utc_text(datetime(2026, 1, 31, 12, tzinfo=timezone.utc)) == "2026-01-31T12:00:00Z"
