"""`appliance build` warns of what nobody maintains, and builds all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.assembly import assembler as assembling
from signing.digest import sha256
from tests.appliance.tiny import TEMPLATE, TinyBuild
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


def test_first_line_is_why_a_runtime_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "compiling llama.cpp again: cmake is 4.4.5, and was 4.4.4; the last time took 10 min 38 s"
    monkeypatch.setattr(assembling, "compilation_reason", lambda *_: reason)
    answer = build(TinyBuild(tmp_path), monkeypatch)
    assert answer.code == 0
    assert answer.talk.splitlines()[0] == reason


def test_lock_that_records_no_release_gives_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = build(TinyBuild(tmp_path), monkeypatch)
    assert (answer.code, "warning" in answer.talk) == (0, False)


def edited(tiny: TinyBuild, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> Answer:
    monkeypatch.setenv("AIRGAP_APPLIANCE_CACHE", str(tiny.cache.root))
    with tiny.staged() as recipe:
        text = recipe.read_text()
        assert old in text
        recipe.write_text(text.replace(old, new))
        return command("build", recipe, "--workspace", tiny.workspace.path)


def shown(tiny: TinyBuild) -> str:
    bundle = next(tiny.workspace.dist.iterdir())
    return command("inspect", bundle, "--workspace", tiny.workspace.path).out


def test_format_2_is_built_only_where_the_recipe_asks_for_a_part_of_it_and_a_verifier_that_reads_less_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(assembling, "format_read_by", lambda _verifier: 1)
        plain = build(TinyBuild(tmp_path / "plain"), patch)
        newer = edited(TinyBuild(tmp_path / "newer"), patch, "runtime:", "site: {kinds: [doc, adapter]}\nruntime:")
    assert (plain.code, newer.code) == (0, 0)
    assert "warning" not in plain.talk
    [warning] = [line for line in newer.talk.splitlines() if line.startswith("warning")]
    assert "reads bundles up to format 1, and this one has format 2" in warning
    assert "site       may add adapter, doc" in shown(TinyBuild(tmp_path / "newer"))
    assert "may add" not in shown(TinyBuild(tmp_path / "plain"))
    read = edited(TinyBuild(tmp_path / "read"), monkeypatch, "runtime:", "site: {kinds: [doc]}\nruntime:")
    assert (read.code, "warning" in read.talk) == (0, False)


def test_accepted_template_is_in_the_bundle_and_shown_and_one_that_the_model_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = 'context: 64, template: {{accepted: {{by: Anna Berg, date: "2026-01-31", sha256: "{}"}}}}'
    right, wrong = sha256(TEMPLATE.encode()), sha256(b"another template")
    tiny = TinyBuild(tmp_path / "right")
    assert edited(tiny, monkeypatch, "context: 64", accepted.format(right)).code == 0
    assert f"template {right} accepted by Anna Berg, 2026-01-31" in " ".join(shown(tiny).split())
    answer = edited(TinyBuild(tmp_path / "wrong"), monkeypatch, "context: 64", accepted.format(wrong))
    assert answer.code == 2
    assert "an acceptance of another template" in answer.talk
    assert str(right) in answer.talk
