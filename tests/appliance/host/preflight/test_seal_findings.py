"""Preflight says whether models can be sealed, and refuses a host that cannot give what the site demands."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.models.seal import NO_FEATURE, OTHER_BLOCKS, SEALED, SealResult
from appliance.host.preflight import seal_findings
from appliance.host.preflight.finding import HostFinding, refuse
from appliance.host.preflight.seal_findings import seal_finding
from appliance.host.site.config import ModelChoice, SiteConfig
from signing.errors import HostUnfitError

NONE = SealResult(NO_FEATURE, "ext4 without the feature verity")
DEMANDS = SiteConfig(models={"toy": ModelChoice(min_level="E4"), "gone": ModelChoice(min_level="E4")})


def finding(
    patch: pytest.MonkeyPatch, result: SealResult, site: SiteConfig, models: tuple[str, ...] = ("toy",)
) -> HostFinding:
    patch.setattr(seal_findings, "seal_ability", lambda _folder: result)
    return seal_finding(Prefix(Path("/nonexistent/host")), site, models)


def test_host_that_seals_is_fit_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = finding(monkeypatch, SealResult(SEALED, "ext4"), DEMANDS)
    assert not found.is_problem
    assert found.measured == "fs-verity on ext4"


@pytest.mark.parametrize("site", [SiteConfig(), SiteConfig(models={"toy": ModelChoice(min_level="E2")})])
def test_host_without_seals_is_fit_where_nothing_demands_them(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = finding(monkeypatch, NONE, site)
    assert not found.is_problem
    assert "tune2fs -O verity" in found.remedy


@pytest.mark.parametrize("result", [NONE, SealResult(OTHER_BLOCKS, "ext4 with blocks of 1024 bytes")])
def test_host_without_seals_is_refused_where_the_site_demands_them(
    result: SealResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = finding(monkeypatch, result, DEMANDS)
    assert found.is_problem
    assert "toy" in found.required
    assert "gone" not in found.required
    with pytest.raises(HostUnfitError) as caught:
        refuse([found])
    assert (caught.value.code, caught.value.exit_code) == ("model.level", 6)


def test_demand_for_a_model_that_this_bundle_lacks_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not finding(monkeypatch, NONE, DEMANDS, ("other",)).is_problem
