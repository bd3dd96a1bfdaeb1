"""The counter of attempts as `status` and a signed record state it; the rules themselves are tried on a test host."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.host.layout.places import is_rendered, rendered_names
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import EGRESS_RULES, EGRESS_UNIT, unit_names
from appliance.host.maintenance import egress
from appliance.host.maintenance.egress import EgressCount, describe_egress, read_egress
from appliance.host.process import nftables
from appliance.host.site.config import SiteConfig
from appliance.host.site.site_check import check_site
from bundles.contents.contents import Contents
from signing.digest import Digest
from signing.errors import HostUnfitError
from tests.appliance.sim_host import new_host
from tests.toy import NOW

MANIFEST = Digest("0123456789abcdef" * 4)
RULES = "table inet appliance_egress {\n}\n"


@dataclass
class FakeNft:
    """A program in the place of nft that prints what a test wants."""

    path: Path

    def answer(self, packets: dict[str, int] | None, rules: str = RULES) -> None:
        entries = [
            {"metainfo": {}},
            *({"counter": {"name": name, "packets": n}} for name, n in (packets or {}).items()),
        ]
        answer = json.dumps({"nftables": entries})
        code = 0 if packets is not None else 1
        script = f"#!/bin/sh\ncase $1 in --json) echo '{answer}';; *) printf '%s' '{rules}';; esac\nexit {code}\n"
        self.path.write_text(script)
        self.path.chmod(0o755)


@pytest.fixture
def nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNft:
    (tmp_path / "rules").write_text(RULES)
    (tmp_path / "since").write_text("2026-01-01T00:00:00Z\n")
    monkeypatch.setattr(egress, "STATE", tmp_path)
    monkeypatch.setattr(nftables, "NFT", tmp_path / "nft")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return FakeNft(tmp_path / "nft")


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return new_host(tmp_path / "host").verify().value.contents


def with_role(contents: Contents) -> Contents:
    """The same contents with the playbooks' role of the counter."""
    role = replace(contents.files[0], path="playbooks/roles/egress/tasks/main.yml", kind="playbook")
    return replace(contents, files=(*contents.files, role))


@pytest.fixture
def release(tmp_path: Path, contents: Contents) -> Any:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "site.yaml").write_text("egress: count\n")
    return SimpleNamespace(path=folder, prefix=Prefix(Path("/")), contents=with_role(contents))


def test_rules_and_unit_are_expected_where_the_playbooks_render_them(contents: Contents) -> None:
    for given, is_expected in ((contents, False), (with_role(contents), True)):
        names = rendered_names(Prefix(Path("/")), given, MANIFEST)
        assert (EGRESS_RULES in names) is is_expected
        assert (EGRESS_UNIT in unit_names(given, MANIFEST)) is is_expected
        assert EGRESS_RULES not in rendered_names(Prefix(Path("/srv")), given, MANIFEST)
    assert is_rendered(EGRESS_RULES)


def test_numbers_are_stated_with_the_time_of_the_start(nft: FakeNft, release: Any) -> None:
    nft.answer({"services": 0, "others": 7})
    count, problems = read_egress(release)
    assert problems == []
    assert count == EgressCount(0, 7, "2026-01-01T00:00:00Z")
    assert describe_egress(count).endswith("0 packets of the services, 7 of other programs, since 2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("packets", "rules", "codes"),
    [
        ({"services": 2, "others": 0}, RULES, ["egress.attempts"]),
        (None, RULES, ["egress.not-counted"]),
        ({"services": 0, "others": 0}, "table inet other {\n}\n", ["egress.not-counted"]),
        ({"services": 1, "others": 0}, "", ["egress.not-counted", "egress.attempts"]),
    ],
)
def test_every_fault_is_an_error_with_exit_code_9(
    nft: FakeNft, release: Any, packets: dict[str, int] | None, rules: str, codes: list[str]
) -> None:
    nft.answer(packets, rules)
    _, problems = read_egress(release)
    assert [problem.code for problem in problems] == codes
    assert {problem.exit_code for problem in problems} == {9}


def test_what_cannot_be_read_is_unknown_and_never_0(nft: FakeNft, release: Any) -> None:
    nft.answer(None)
    count, _ = read_egress(release)
    assert count is not None
    assert not count.is_known
    assert "unknown" in describe_egress(count)


def test_ordinary_user_learns_that_only_root_may_read(
    nft: FakeNft, release: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    count, problems = read_egress(release)
    assert (count, problems) == (EgressCount(None, None, ""), [])


@pytest.mark.parametrize("text", ["", "egress: none\n", "port: 1\n", "egress: maybe\n"])
def test_site_that_does_not_ask_is_not_counted(nft: FakeNft, release: Any, text: str) -> None:
    nft.answer({"services": 5, "others": 5})
    (release.path / "site.yaml").write_text(text)
    assert read_egress(release) == (None, [])


def test_site_that_wants_counting_needs_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "NFT", tmp_path / "nft")
    site = SiteConfig(egress="count")
    with pytest.raises(HostUnfitError) as caught:
        check_site(Prefix(Path("/")), site, NOW)
    assert (caught.value.code, caught.value.exit_code) == ("egress.no-nftables", 6)
    check_site(Prefix(Path("/")), SiteConfig(), NOW)
    check_site(Prefix(tmp_path), site, NOW)
    FakeNft(tmp_path / "nft").answer({})
    check_site(Prefix(Path("/")), site, NOW)
