"""A receipt is shown before it leaves, is counted, and is read where sticks are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.host.trust.receipt_counter import ReceiptCounter, read_counter
from appliance.host.verification.receipt import prepare_receipt, sign_receipt
from appliance.keys.signers.host_key import make_host_key
from signing.errors import BusyError
from tests.appliance.sim_host import SimHost, new_host
from tests.attacks.harness import command
from tests.toy import NOW


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = new_host(tmp_path_factory.mktemp("receipts"))
    made.install()
    make_host_key(made.prefix.trust)
    return made


@pytest.fixture(autouse=True)
def fresh(host: SimHost) -> None:
    (host.prefix.trust / "receipts.json").unlink(missing_ok=True)


def write(host: SimHost, place: Path, *more: str) -> Path:
    answer = command("receipt", "write", place, "--prefix", host.prefix.root, "--yes", *more)
    assert answer.code == 0, answer.talk
    return Path(answer.out.removeprefix("wrote ").strip())


def test_receipt_travels_from_the_host_to_the_workspace(host: SimHost, tmp_path: Path) -> None:
    path = write(host, tmp_path)
    key = make_host_key(host.prefix.trust)
    assert path == tmp_path / f"receipt-{key.fingerprint[:12]}-1.json"
    assert path.stat().st_size < 2048
    words = ("receipt", "read", path, "--workspace", host.workspace.path)
    assert command(*words).code == 4
    assert command(*words, "--fingerprint", "0" * 64).code == 4
    assert command(*words, "--fingerprint", key.fingerprint).code == 0
    value = json.loads(command(*words, "--json").out)
    found = host.verify()
    assert value["bundles"] == [{"manifest": found.value.manifest, "name": "toy", "version": "1.0.0"}]
    assert (value["counter"], value["host"], value["head"], value["level"]) == (1, key.fingerprint, None, None)
    assert (value["release"], value["reads"]) == (found.value.manifest, 2)


def test_everything_that_leaves_is_shown_first(host: SimHost, tmp_path: Path) -> None:
    answer = command("receipt", "write", tmp_path, "--prefix", host.prefix.root, "--yes", "--json")
    value = json.loads(answer.out)
    floors = value["floors"]
    shown = [
        value["host"],
        value["time"],
        str(value["counter"]),
        floors["time"],
        *(b["manifest"] for b in value["bundles"]),
    ]
    assert [word for word in shown if word not in answer.talk] == []


def test_without_a_terminal_and_without_yes_nothing_leaves(host: SimHost, tmp_path: Path) -> None:
    answer = command("receipt", "write", tmp_path, "--prefix", host.prefix.root)
    assert (answer.code, list(tmp_path.iterdir())) == (2, [])
    assert read_counter(host.prefix) == ReceiptCounter()


def test_each_receipt_has_the_next_number_and_status_shows_the_last(host: SimHost, tmp_path: Path) -> None:
    assert "receipts   none" in command("status", "--prefix", host.prefix.root).out
    write(host, tmp_path)
    write(host, tmp_path / "second.json")
    value = json.loads(command("status", "--prefix", host.prefix.root, "--json").out)
    assert (value["receipts"]["counter"], value["exit_code"]) == (2, 0)
    assert value["floors"]["time"] == value["freshness"]
    shown = command("status", "--prefix", host.prefix.root).out
    assert "receipts   the last one is number 2, of " in shown
    assert f"proved at {value['floors']['time']}" in shown


def test_two_receipts_never_share_a_number(host: SimHost) -> None:
    first, second = (prepare_receipt(host.prefix, (), NOW) for _ in range(2))
    assert first.counter == second.counter == 1
    sign_receipt(host.prefix, first)
    with pytest.raises(BusyError):
        sign_receipt(host.prefix, second)


def test_number_that_somebody_edited_is_damage_and_status_lists_it(host: SimHost, tmp_path: Path) -> None:
    (host.prefix.trust / "receipts.json").write_text('{"counter":0}')
    answer = command("receipt", "write", tmp_path, "--prefix", host.prefix.root, "--yes")
    assert (answer.code, list(tmp_path.iterdir())) == (3, [])
    assert "receipts.damaged" in command("status", "--prefix", host.prefix.root, "--json").out


def test_weakest_level_that_is_served_is_stated(host: SimHost) -> None:
    assert prepare_receipt(host.prefix, ["E2", "E1"], NOW).level == "E1"
    assert prepare_receipt(host.prefix, ["E9", ""], NOW).level is None


def test_host_without_a_release_has_nothing_to_state(tmp_path: Path) -> None:
    answer = command("receipt", "write", tmp_path, "--prefix", tmp_path / "bare", "--yes")
    assert answer.code == 2
    assert "nothing is installed" in answer.talk


def test_folder_that_does_not_exist_is_named(host: SimHost, tmp_path: Path) -> None:
    answer = command("receipt", "write", tmp_path / "no" / "receipt", "--prefix", host.prefix.root, "--yes")
    assert (answer.code, read_counter(host.prefix).counter) == (2, 0)
