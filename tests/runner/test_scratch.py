"""Tests write into memory only where it can hold and run what they write."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.host.machine import cgroups
from tests.runner import scratch

PLENTY = f"MemTotal: 1 kB\nMemAvailable: {scratch.NEEDED_BYTES // 1024 + 1} kB\n"


def room(monkeypatch: pytest.MonkeyPatch, free_bytes: int = scratch.NEEDED_BYTES, flags: int = 0) -> None:
    found = SimpleNamespace(f_flag=flags, f_bavail=free_bytes // 4096 + 1, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda folder: found)


def has_room(folder: Path, monkeypatch: pytest.MonkeyPatch, meminfo: str = PLENTY) -> bool:
    (folder / "meminfo").write_text(meminfo)
    monkeypatch.setattr(cgroups, "PROC", folder)
    return scratch.has_room(folder)


def test_folder_with_room_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch)
    assert has_room(tmp_path, monkeypatch)


@pytest.mark.parametrize("flags", [os.ST_NOEXEC, os.ST_RDONLY])
def test_folder_that_runs_or_takes_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int) -> None:
    room(monkeypatch, flags=flags)
    assert not has_room(tmp_path, monkeypatch)


def test_too_little_memory_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch)
    assert not has_room(tmp_path, monkeypatch, "MemAvailable: 4000 kB\n")
    assert not has_room(tmp_path, monkeypatch, "nothing\n")
    room(monkeypatch, free_bytes=64 << 20)
    assert not has_room(tmp_path, monkeypatch)


def test_machine_without_such_a_folder_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_room(tmp_path, monkeypatch, "")
    assert not scratch.has_room(tmp_path / "none")
