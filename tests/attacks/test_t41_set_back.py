"""T41: the floors of a host were set back by an old file, so that what is older counts as new."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from appliance.host.layout.install_lock import hold
from appliance.host.maintenance.backup import write_backup
from appliance.host.maintenance.restore import restore as put_back
from appliance.host.maintenance.restore_stage import stage
from appliance.host.maintenance.status import read_status
from appliance.host.trust.receipt_counter import ReceiptCounter, read_counter, take_number
from appliance.host.trust.trust_store import read_floors, write_floors
from appliance.keys.signers.host_key import make_host_key
from signing.errors import ApplianceError
from signing.strictjson import to_file
from tests.appliance.sim_host import SimHost, new_host
from tests.attacks.harness import guard_off, refused, row
from tests.toy import NOW

ROW = row(41)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = new_host(tmp_path_factory.mktemp("t41"))
    made.install()
    return made


def restore(host: SimHost, **values: object) -> Path:
    """What a restored backup leaves: an older file that this host did write once."""
    path = host.prefix.trust / "floors.json"
    path.write_bytes(to_file(asdict(replace(read_floors(host.prefix), **values))))  # type: ignore[arg-type]
    return path


def check(host: SimHost) -> None:
    failure = read_status(host.prefix, NOW).failure()
    if failure is not None:
        raise failure


def test_unattacked_floors_are_shown_with_their_date(host: SimHost) -> None:
    check(host)
    status = read_status(host.prefix, NOW)
    assert status.floors == host.verify().evidence.floors
    assert status.receipts.counter == 0


@pytest.mark.parametrize(
    "old",
    [{"targets": 1}, {"snapshot": 1}, {"timestamp": 1}, {"time": "2025-12-31T00:00:00Z"}],
    ids=str,
)
def test_attacked_by_an_older_file_of_floors(host: SimHost, old: dict[str, object]) -> None:
    before = (host.prefix.trust / "floors.json").read_bytes()
    path = restore(host, **old)
    try:
        refused(ROW, lambda: check(host), "floors.set-back", str(path))
        assert asdict(read_floors(host.prefix)) == {**asdict(host.verify().evidence.floors), **old}
    finally:
        path.write_bytes(before)


def test_attacked_by_an_older_backup(host: SimHost, tmp_path: Path) -> None:
    make_host_key(host.prefix.trust)
    take_number(host.prefix, ReceiptCounter(1, "2026-01-02T03:04:05Z"))
    backup = write_backup(host.prefix, tmp_path, NOW)
    take_number(host.prefix, ReceiptCounter(2, "2026-01-03T03:04:05Z"))
    path = host.prefix.trust / "floors.json"
    before = path.read_bytes()
    higher = replace(read_floors(host.prefix), time="2026-02-01T00:00:00Z")
    write_floors(host.prefix, higher)
    try:
        with hold(host.prefix):
            done = stage(host.prefix, backup.path, [], NOW)
            put_back(done, lambda: NOW)
        assert read_floors(host.prefix) == higher
        assert read_counter(host.prefix).counter == 2
    finally:
        path.write_bytes(before)


def test_unguarded_the_older_floors_pass_in_silence(host: SimHost) -> None:
    before = (host.prefix.trust / "floors.json").read_bytes()
    path = restore(host, targets=1)
    try:
        with guard_off(ROW.guard, lambda *_: list[ApplianceError]()):
            check(host)
    finally:
        path.write_bytes(before)
