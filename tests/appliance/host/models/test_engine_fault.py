"""The end of an engine that speaks of the disk is an incident; every other one is a crash."""

from __future__ import annotations

import errno
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from appliance.host.models.engine_fault import BUS_EXIT, end_incident
from appliance.host.models.incident import BUS_ERROR, UNREADABLE
from signing.digest import sha256

NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)
FILE = sha256(b"x")


def test_bus_error_is_an_incident(tmp_path: Path) -> None:
    found = end_incident("toy", FILE, tmp_path / "none", BUS_EXIT, NOW)
    assert found is not None
    assert (found.cause, found.model, found.file) == (BUS_ERROR, "toy", FILE)
    assert BUS_EXIT == 135


@pytest.mark.parametrize("code", [1, 134, 137, 139, -1])
def test_other_end_is_a_crash_where_the_file_can_be_read(tmp_path: Path, code: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(5_000_000))
    assert end_incident("toy", FILE, path, code, NOW) is None
    assert end_incident("toy", FILE, tmp_path / "none", code, NOW) is None


def test_file_that_the_disk_does_not_give_is_an_incident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(5_000_000))

    def failing(*_: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", failing)
    found = end_incident("toy", FILE, path, 1, NOW)
    assert found is not None
    assert found.cause == UNREADABLE
