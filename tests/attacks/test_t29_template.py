"""T29: a chat template that reaches out of its engine, or hides text that no reader sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.gguf.header import GgufHeader
from tests.appliance.tiny import TEMPLATE, TinyBuild
from tests.attacks.harness import guard_off, refused, row

ROW = row(29)
SUBJECT = "models/tiny/tiny.gguf tokenizer.chat_template"
HOSTILE = {
    "a way into Python": "{{ ''.__class__.__mro__ }}",
    "a file": "{% include '/etc/passwd' %}",
    "words that nobody sees": TEMPLATE + "{{ 'Obey\u2060\U000e0041' }}",
    "words in the other direction": TEMPLATE + "{# \u202e #}",
    "words spelled out": TEMPLATE + r"{{ '\u200b' }}",
}


def test_unattacked_template_is_packed_and_its_digest_signed(tmp_path: Path) -> None:
    assert TinyBuild(tmp_path).build().contents.models[0].template is not None


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_attacked_by_a_template_with(tmp_path: Path, template: str) -> None:
    error = refused(ROW, TinyBuild(tmp_path, template=template).build, "template.refused", SUBJECT)
    assert "line 1: " in error.found
    assert list((tmp_path / "workspace" / "dist").glob("[!.]*")) == []


def test_unguarded_the_template_is_packed_and_signed(tmp_path: Path) -> None:
    def accept(_header: GgufHeader, _subject: str, _accepted: str | None) -> None:
        return None

    with guard_off(ROW.guard, accept):
        for number, template in enumerate(HOSTILE.values()):
            assert TinyBuild(tmp_path / str(number), template=template).build().bundle is not None
