"""Users at once on a gateway: what they get is counted, refusals are waited for, and an error is no figure."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.host.verification.bench_report import bench_lines
from appliance.serve.observation import load
from appliance.serve.observation.load import LoadClient, LoadRow
from signing.errors import ApplianceError, UsageError
from tests.appliance.serve.gateway.site import Site, opened
from tests.sim.engines import notes


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "embeds": 1, "ranks": 1}) as made,
    ):
        yield made


def client(site: Site, key: str = "all") -> LoadClient:
    return LoadClient(lambda: http.client.HTTPConnection("127.0.0.1", site.port, timeout=20), site.keys[key], 16)


def test_models_that_chat_are_found(site: Site) -> None:
    assert [model["id"] for model in client(site).models()] == ["toy"]


@pytest.mark.parametrize("users", [1, 3])
def test_tokens_and_answers_of_all_users_count(site: Site, users: int) -> None:
    before = len(site.asked("toy"))
    row = client(site).measure("toy", users, 0.2)
    asked = site.asked("toy")[before:]
    assert (row.users, row.answers, row.refused, row.tokens) == (users, len(asked), 0, 5 * len(asked))
    assert row.answers >= users
    assert row.took_ms >= 200
    assert 0 <= row.first_token_p50_ms <= row.first_token_p95_ms <= row.took_ms
    assert row.tokens_per_minute == round(row.tokens * 60_000 / row.took_ms)
    # No two prompts begin alike, and each asks for what is measured.
    assert len({text.split(":")[0] for text in asked}) == len(asked)
    body = notes(site.sockets)[-1]["body"]
    assert (body["max_tokens"], body["stream"]) == (16, True)


def test_percentiles_are_those_of_nearest_rank() -> None:
    values = [number / 1000 for number in range(1, 21)]
    assert (load._milliseconds(values, 50), load._milliseconds(values, 95)) == (10, 19)
    assert (load._milliseconds([0.007], 50), load._milliseconds([0.007], 95)) == (7, 7)


def test_refusal_with_retry_after_is_counted_and_waited_for(site: Site) -> None:
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder, opened(Path(folder), {"toy": 1}) as full:
        held = [full.begin("hang") for _ in range(40)]
        try:
            with pytest.raises(ApplianceError, match=r"bench\.no-answer") as error:
                client(full).measure("toy", 1, 0.1)
            assert "1 refusals" in error.value.found
        finally:
            for connection in held:
                connection.close()


@pytest.mark.parametrize("key", ["late", "revoked"])
def test_key_that_does_not_count_is_a_wrong_use(site: Site, key: str) -> None:
    with pytest.raises(UsageError, match=r"bench\.key-refused"):
        client(site, key).models()
    with pytest.raises(UsageError, match=r"bench\.key-refused"):
        client(site, key).measure("toy", 1, 0.1)


def test_where_nothing_serves_the_next_command_is_named() -> None:
    nobody = LoadClient(lambda: http.client.HTTPConnection("127.0.0.1", 9, timeout=5), "ak-x", 16)
    with pytest.raises(UsageError, match=r"bench\.not-serving") as error:
        nobody.models()
    assert "appliance serve" in error.value.hint


@pytest.mark.parametrize("said", ["fail", "fail late", "die late"])
def test_answer_that_is_an_error_ends_the_measurement_of_all_users(
    site: Site, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(load, "make_prompt", lambda name: said if name == "1.0" else name)
    with pytest.raises(ApplianceError, match=r"bench\.(refused|broken-answer)"):
        client(site).measure("toy", 2, 600)


def test_lines_for_people_have_tokens_by_the_second() -> None:
    row = LoadRow(4, 10, 1, 640, 8000, 120, 900)
    members = {name: getattr(row, name) for name in LoadRow.__slots__}
    lines = list(
        bench_lines(
            {
                **dict.fromkeys(("name", "version", "manifest", "model", "level", "isolation"), "x"),
                "max_tokens": 64,
                "rows": [{**members, "tokens_per_minute": row.tokens_per_minute}],
            }
        )
    )
    assert lines[-1].split() == ["4", "80.0", "120", "ms", "900", "ms", "10", "1"]
