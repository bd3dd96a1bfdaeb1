"""`appliance build` warns of what nobody maintains, and builds all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.appliance.tiny import TinyBuild
from tests.attacks.harness import Answer, command


def build(tiny: TinyBuild, monkeypatch: pytest.MonkeyPatch) -> Answer:
    monkeypatch.setenv("AIRGAP_APPLIANCE_CACHE", str(tiny.cache.root))
    with tiny.staged() as recipe:
        return command("build", recipe, "--workspace", tiny.workspace.path)


def test_dependency_without_a_release_for_years_is_named_in_a_warning_and_the_bundle_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = build(TinyBuild(tmp_path, last_releases={"alpha": "2015-11-25", "uv": "9999-01-01"}), monkeypatch)
    assert answer.code == 0
    warnings = [line for line in answer.talk.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: alpha 1.0: the last release of its project was on 2015-11-25"]
    assert "hint: licences/DEPENDENCIES.md" in answer.talk


def test_lock_that_records_no_release_gives_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = build(TinyBuild(tmp_path), monkeypatch)
    assert (answer.code, "warning" in answer.talk) == (0, False)
