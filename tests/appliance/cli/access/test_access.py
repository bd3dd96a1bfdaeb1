"""`appliance access` gives keys, shows them without their secrets, and ends them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance import clock
from appliance.cli.access import grant, values
from appliance.events import ACCESS_GRANTED, ACCESS_REVOKED, ACCESS_ROTATED, Event
from appliance.host.site.api_keys import AccessStore, Key
from appliance.host.site.rights import Rights
from appliance.serve.callers.usage import UsageCounts, UsageRow
from appliance.serve.callers.usage_file import USAGE_FILE, UsageFile
from tests.appliance.host.held_releases import empty_host
from tests.appliance.sim_host import SimHost
from tests.attacks.harness import Answer, command
from tests.sim.clock import SimClock
from tests.toy import NOW

DAY = timedelta(days=1)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimHost:
    made = empty_host(tmp_path)
    contents = SimpleNamespace(models=[SimpleNamespace(name="toy"), SimpleNamespace(name="other-toy")])
    monkeypatch.setattr(grant, "open_current", lambda *_: SimpleNamespace(contents=contents))
    AccessStore(made.prefix.access)
    monkeypatch.setattr(clock, "utc_now", SimClock(NOW))
    return made


def access(host: SimHost, *words: str) -> Answer:
    return command("access", *words, "--prefix", host.prefix.root)


def answered(host: SimHost, *words: str) -> Any:
    answer = access(host, *words, "--json")
    assert answer.code == 0, answer.talk
    return json.loads(answer.out)


def found(host: SimHost, secret: str) -> Key | None:
    return AccessStore(host.prefix.access).check(secret.strip(), NOW)


def test_key_is_the_answer_and_is_shown_once(host: SimHost) -> None:
    answer = access(host, "grant", "ann", "--expires", "90d")
    assert answer.code == 0, answer.talk
    key = found(host, answer.out)
    assert key is not None
    assert (key.name, key.expires, key.rights) == ("ann", NOW + 90 * DAY, Rights())
    secret = answer.out.strip().split("-", 2)[2]
    for words in (("list", "--all"), ("show", "ann"), ("usage",), ("list", "--json"), ("show", "ann", "--json")):
        shown = access(host, *words)
        assert shown.code == 0, shown.talk
        assert secret not in shown.out + shown.talk
    assert secret not in answer.talk
    assert secret.encode() not in host.prefix.access.read_bytes()


def test_rights_and_limits_are_those_that_were_given(host: SimHost) -> None:
    options = ["--tokens-per-day", "1000", "--concurrency", "2", "--priority", "3", "--role", "operator"]
    given = answered(host, "grant", "ann", "--models", "toy", *options)
    key = found(host, given["key"])
    assert key is not None
    quotas = {"tokens_per_day": 1000, "concurrency": 2}
    assert (key.models, key.rights) == (frozenset({"toy"}), Rights(role="operator", quotas=quotas, priority=3))
    assert key.rights.is_enforced
    assert "2 at once, 1000 tokens a day, priority 3" in access(host, "list").out
    assert "2 at once, 1000 tokens a day, priority 3" in access(host, "show", "ann").out


def test_what_the_page_types_does_what_it_tells(host: SimHost) -> None:
    for words in (
        ("grant", "ann", "--expires", "90d"),
        ("grant", "batch", "--tokens-per-day", "200000", "--concurrency", "2"),
        ("list",),
        ("usage",),
        ("rotate", "ann", "--overlap", "12h"),
        ("revoke", "ann"),
    ):
        done = access(host, *words)
        assert done.code == 0, done.talk
    assert "batch" in access(host, "list").out
    assert "ann" not in access(host, "list").out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("grant", "a b"), "access.name"),
        (("grant", "taken"), "access.taken"),
        (("grant", "ann", "--models", "toy,other"), "access.model"),
        (("grant", "ann", "--models", "toy@adapter"), "access.model"),
        (("grant", "ann", "--models", ","), "access.model"),
        (("grant", "ann", "--expires", "2020-01-01"), "access.time"),
        (("grant", "ann", "--expires", "0d"), "access.time"),
        (("grant", "ann", "--expires", "99999d"), "access.time"),
        (("grant", "ann", "--tokens-per-day", "0"), ""),
        (("grant", "ann", "--priority", "10"), ""),
        (("grant", "ann", "--role", "root"), ""),
        (("rotate", "nobody"), "access.unknown"),
        (("rotate", "taken", "--overlap", "soon"), "access.time"),
        (("revoke", "nobody"), "access.unknown"),
        (("show", "nobody"), "access.unknown"),
        (("usage", "nobody"), "access.unknown"),
    ],
)
def test_wrong_word_is_refused_with_2_and_nothing_changes(host: SimHost, words: tuple[str, ...], code: str) -> None:
    store = AccessStore(host.prefix.access)
    store.grant("taken", NOW)
    before = store.list()
    answer = access(host, *words, "--json")
    assert answer.code == 2
    assert json.loads(answer.out)["errors"][0]["code"] == code
    assert store.list() == before


def test_host_without_keys_is_named_as_that_and_gets_none(tmp_path: Path) -> None:
    answer = command("access", "grant", "ann", "--prefix", tmp_path, "--json")
    assert (answer.code, json.loads(answer.out)["errors"][0]["code"]) == (2, "access.none")
    assert list(tmp_path.iterdir()) == []


def test_rotated_key_is_replaced_and_revoked_ones_stay_in_the_whole_list(host: SimHost) -> None:
    first = answered(host, "grant", "ann")["key"]
    second = answered(host, "rotate", "ann")["key"]
    assert (found(host, first), getattr(found(host, second), "name", None)) == (None, "ann")
    third = answered(host, "rotate", "ann", "--overlap", "2h")["key"]
    assert [key is not None for key in (found(host, second), found(host, third))] == [True, True]
    assert access(host, "revoke", "ann").out == "revoked ann\n"
    assert access(host, "revoke", "ann").out == "ann was revoked before\n"
    assert answered(host, "list") == []
    assert [key["state"] for key in answered(host, "list", "--all")] == ["revoked"] * 3
    assert access(host, "rotate", "ann").code == 2


def test_usage_has_names_days_and_one_row_for_keys_that_follow_one_another(host: SimHost) -> None:
    account = answered(host, "grant", "ann")["account"]
    answered(host, "rotate", "ann")
    folder = host.prefix.gateway_state
    folder.mkdir(parents=True)
    today = NOW.date()
    rows = [UsageRow(day, account, UsageCounts(7, 5, 2)) for day in (today - 8 * DAY, today - DAY, today)]
    UsageFile(folder / USAGE_FILE).add([*rows, UsageRow(today, "f" * 12, UsageCounts(1, 1, 1))], today)
    assert [row["day"] for row in answered(host, "usage", "ann")] == [f"{today - DAY}", f"{today}"]
    assert len(answered(host, "usage", "ann", "--days", "31")) == 3
    assert {row["name"] for row in answered(host, "usage")} == {"ann", None}
    assert answered(host, "show", "ann")["today"] == {"tokens_in": 7, "tokens_out": 5, "requests": 2}
    assert "(unknown)" in access(host, "usage").out
    (folder / USAGE_FILE).write_bytes(b"no database" * 999)
    assert access(host, "usage").code == 3


def test_each_change_is_an_event_with_ids_and_no_name_and_no_key(
    host: SimHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    monkeypatch.setattr(values, "command_sink", lambda **_: events.append)
    secret = answered(host, "grant", "ann", "--models", "toy", "--tokens-per-day", "9")["key"]
    new = answered(host, "rotate", "ann")
    access(host, "revoke", "ann")
    access(host, "revoke", "ann")
    assert [event.kind for event in events] == [ACCESS_GRANTED, ACCESS_ROTATED, ACCESS_REVOKED]
    first = secret.split("-")[1]
    assert events[0].fields["quotas"] == "tokens_per_day=9"
    assert [events[1].fields[name] for name in ("former", "account", "key")] == [first, first, new["id"]]
    assert not any("ann" in str(event.fields) or secret[16:] in str(event.fields) for event in events)
