"""Every generated page of docs/ has the text that the code writes now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import __main__ as pages


def test_no_generated_page_is_stale() -> None:
    assert pages.stale_pages() == [], "python -m tests.pages"


def test_the_check_names_a_stale_page_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pages, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(pages, "PAGES", {"one": lambda: "# One\n", "two": lambda: "# Two\n"})
    monkeypatch.setattr(pages, "FILES", {"three": (tmp_path / "three.json", lambda: "{}\n")})
    monkeypatch.setattr(pages, "TOP", tmp_path)
    assert pages.main([]) == 0
    assert pages.main(["--check"]) == 0
    (tmp_path / "docs" / "two.md").write_text("# Three\n")
    assert pages.main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/two.md is stale: python -m tests.pages two\n"
    (tmp_path / "three.json").write_text("[]\n")
    assert pages.main(["--check", "three"]) == 1
    assert capsys.readouterr().out == "three.json is stale: python -m tests.pages three\n"
    assert pages.main(["two", "three"]) == 0
    assert (tmp_path / "three.json").read_text() == "{}\n"
    assert pages.main(["--check", "two"]) == 0


def test_an_unknown_page_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pages.main(["nothing"])
    assert "no such page: nothing" in capsys.readouterr().err
