"""`bench` asks what serves as its users do, and its figures become evidence of this host."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.keys.signers.host_key import host_public, make_host_key
from appliance.serve.supervisor import run_dir
from signing.strictjson import load, to_file
from tests.appliance.serve.gateway.site import Site, opened
from tests.appliance.sim_host import new_host
from tests.attacks.harness import command


@dataclass
class Host:
    """A host whose gateway answers, and the words that name it and a key."""

    prefix: Prefix
    site: Site
    key: Path

    def words(self, *more: str) -> tuple[str, ...]:
        return ("bench", "--prefix", str(self.prefix.root), "--key-file", str(self.key), "--seconds", "1", *more)

    def fingerprint(self) -> str:
        public = host_public(self.prefix.trust)
        assert public is not None
        return str(public.fingerprint)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    sim = new_host(tmp_path_factory.mktemp("bench"))
    sim.install()
    make_host_key(sim.prefix.trust)
    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "narrow": 1}) as site,
        run_dir.hold(sim.prefix),
        run_dir.sockets(sim.prefix) as sockets,
    ):
        run_dir.write_record(sim.prefix, {"url": f"http://127.0.0.1:{site.port}", "sockets": str(sockets)})
        key = Path(folder) / "key"
        key.write_text(site.keys["all"] + "\n")
        yield Host(sim.prefix, site, key)


def test_figures_are_shown_as_a_table_and_as_json(host: Host) -> None:
    shown = command(*host.words("--users", "1,2"))
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0].startswith("release    toy 1.")
    assert lines[1] == "model      toy, level E2, isolation netns"
    assert [line.split()[0] for line in lines[-2:]] == ["1", "2"]
    value = json.loads(command(*host.words("--users", "1", "--model", "narrow", "--tokens", "7", "--json")).out)
    assert (value["model"], value["max_tokens"], value["exit_code"]) == ("narrow", 7, 0)
    [row] = value["rows"]
    assert row["users"] == 1
    assert row["tokens"] == 5 * row["answers"] > 0


def test_record_is_signed_by_the_host_and_checked_with_its_fingerprint(host: Host, tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    assert command(*host.words("--users", "1", "--evidence", str(record))).code == 0
    shown = command("evidence", "check", str(record), "--fingerprint", host.fingerprint())
    assert shown.code == 0
    assert "model      toy, level E2, isolation netns" in shown.out.splitlines()
    assert "users  tokens/s  first token p50        p95  answers  refused" in shown.out.splitlines()


def test_changed_figure_is_not_trusted(host: Host, tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    assert command(*host.words("--users", "1", "--evidence", str(record))).code == 0
    value = json.loads(record.read_bytes())
    payload = json.loads(base64.b64decode(value["payload"]))
    payload["report"]["rows"][0]["tokens_per_minute"] += 1
    value["payload"] = base64.b64encode(to_file(payload)).decode()
    record.write_bytes(to_file(value))
    assert command("evidence", "check", str(record), "--fingerprint", host.fingerprint()).code == 4


@pytest.mark.parametrize("change", [{"rows": "x"}, {"rows": [{"users": "1"}]}, {"model": 7}, {"level": None}])
def test_record_of_another_form_is_refused_and_not_printed(host: Host, tmp_path: Path, change: dict) -> None:
    from appliance import clock
    from appliance.host.verification.verification_record import write_evidence
    from appliance.keys.signers.host_key import host_key

    record = tmp_path / "figures.json"
    value = json.loads(command(*host.words("--users", "1", "--json")).out)
    report = load(json.dumps({**value, **change}).encode(), "report", 1 << 20)
    assert isinstance(report, dict)
    record.write_bytes(write_evidence(report, host_key(host.prefix.trust), clock.utc_now(), "1"))
    shown = command("evidence", "check", str(record), "--fingerprint", host.fingerprint())
    assert shown.code == 4
    assert "a report of `appliance bench`" in shown.talk


@pytest.mark.parametrize("users", ["0", "", "1,", "1,x", "-1", "257", "１", ",".join(["1"] * 17)])
def test_list_of_users_that_is_none_is_a_wrong_use(host: Host, users: str) -> None:
    shown = command(*host.words(f"--users={users}"))
    assert shown.code == 2
    assert "such as 1,4,8" in shown.talk


def test_unknown_model_wrong_key_and_missing_folder_are_wrong_uses(host: Host, tmp_path: Path) -> None:
    shown = command(*host.words("--model", "other"))
    assert (shown.code, "expected one of toy, narrow" in shown.talk) == (2, True)
    wrong = tmp_path / "key"
    wrong.write_text("ak-wrong")
    shown = command(*host.words("--key-file", str(wrong)))
    assert (shown.code, "--key-file FILE" in shown.talk) == (2, True)
    shown = command(*host.words("--evidence", str(tmp_path / "no" / "file")))
    assert (shown.code, "make the folder" in shown.talk) == (2, True)


def test_host_that_serves_nothing_names_the_next_command(tmp_path: Path) -> None:
    sim = new_host(tmp_path)
    sim.install()
    key = tmp_path / "key"
    key.write_text("ak-x")
    shown = command("bench", "--prefix", str(sim.prefix.root), "--key-file", str(key))
    assert shown.code == 2
    assert "appliance serve" in shown.talk
