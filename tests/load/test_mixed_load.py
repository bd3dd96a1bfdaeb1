"""A minute of every kind of use on the shipped engine, where `make soak` takes thirty; and the judge of it."""

from __future__ import annotations

import os

import pytest

from tests.load.mixed import Load, run_load
from tests.load.site import loaded_site
from tests.load.users import Kind, kinds

SECONDS = float(os.environ.get("LOAD_S", "60"))


@pytest.mark.ci
@pytest.mark.timeout(SECONDS + 240)
def test_minute_of_mixed_load_leaves_the_host_as_it_was() -> None:
    with loaded_site() as site:
        load = run_load(site, SECONDS)
    assert load.judge(SECONDS) == []
    assert load.kills
    for words in (("200",), ("429",), ("401",), ("404",), ("left",)):
        assert load.seen.total(*words) > 0, words


def judged(outcome: str, kind: Kind, *, may_be_away: bool = False) -> list[str]:
    load = Load(bytes=[(20.5, 100), (60.0, 100)], before={"gateway": 9}, after={"gateway": 9})
    load.seen.add("some", kind, outcome, b"", may_be_away=may_be_away)
    return load.judge(60.0)


def test_judge_forgives_what_a_kind_may_get() -> None:
    users = kinds("first")
    for name, outcome in (("chat", "200"), ("chat", "429 rate_limit_exceeded"), ("wrong key", "401 invalid_api_key")):
        assert judged(outcome, users[name]) == []
    assert judged("broken off: engine_lost", users["stream"], may_be_away=True) == []


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("chat", "500 internal_error"),
        ("chat", "429 without retry-after"),
        ("chat", "503 engine_lost"),
        ("stream", "broken off: engine_lost"),
        ("stream", "broken off: no error"),
        ("wrong key", "200"),
        ("embeddings", "503 model_restarting"),
        ("metrics", "429 rate_limit_exceeded"),
        ("chat", "no reply: ConnectionResetError"),
    ],
)
def test_judge_finds_what_no_user_may_get(name: str, outcome: str) -> None:
    assert len(judged(outcome, kinds("first")[name])) == 1


def test_judge_finds_memory_that_grows_and_descriptors_that_stay() -> None:
    grown = Load(bytes=[(20.5, 100), (60.0, 106)], before={"gateway": 9}, after={"gateway": 10})
    assert len(grown.judge(60.0)) == 2
