"""The gateway's own process ends the streams of a revoked key, and writes what each key has used."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.usage import UsageCounts, UsageRow
from appliance.serve.callers.usage_file import UsageFile, usage_beside
from tests.appliance.serve.gateway.site import NOW, Site, opened, question


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("lib")
    for name in ("appliance", "appliance-gateway"):
        (folder / name).mkdir(mode=0o700)
    with opened(folder / "appliance", {"toy": 2}) as made:
        yield made


def access_of(site: Site) -> Path:
    return site.sockets / "access.db"


def usage_of(site: Site) -> tuple[UsageRow, ...]:
    return UsageFile(usage_beside(access_of(site))).read(date.min)


def account_of(site: Site, name: str) -> str:
    key = AccessStore(access_of(site)).find(name)
    assert key is not None
    return key.account


@pytest.mark.parametrize(
    ("name", "path", "word"),
    [("ann", "/v1/chat/completions", "invalid_api_key"), ("bob", "/v1/messages", "authentication_error")],
)
def test_stream_of_a_revoked_key_ends_with_an_error_in_its_own_form(
    site: Site, name: str, path: str, word: str
) -> None:
    store = AccessStore(access_of(site))
    key = store.grant(name, NOW)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    body = json.dumps({**question("slow 300", stream=True), "max_tokens": 400})
    connection.request("POST", path, body, {"x-api-key": key})
    reply = connection.getresponse()
    assert reply.status == 200
    reply.readline()
    store.revoke(name, NOW)
    text = reply.read().decode()
    connection.close()
    assert word in text.strip().split("\n\n")[-1]
    assert "[DONE]" not in text
    assert "message_stop" not in text
    assert text.count("data:") < 200, "the engine would have written 300"


def test_usage_is_written_also_when_the_process_is_asked_to_end(site: Site) -> None:
    assert site.ask("abc", key="all")[0] == 200
    site.process.stop()
    rows = {row.account: row.counts for row in usage_of(site)}
    used = rows[account_of(site, "all")]
    assert (used.requests, used.tokens_in > 0, used.tokens_out > 0) == (1, True, True)
    [broken] = [row for account, row in rows.items() if account == account_of(site, "ann")]
    assert broken.requests == 1
    assert broken != UsageCounts(requests=1)
