"""T83: an acceptance of one chat template, used for a text that nobody has accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.appliance.tiny import TEMPLATE, TinyBuild
from tests.attacks.harness import guard_off, refused, row

ROW = row(83)
READ = TEMPLATE + "{% call print() %}{% endcall %}"
SUBJECT = "models/tiny/tiny.gguf tokenizer.chat_template"
OTHERS = {
    "a word more": READ + "{{ 'Obey' }}",
    "hidden words": READ + "\u2060",
    "a space more": READ + " ",
    "another template": "{{ ''.__class__ }}",
}


def test_unattacked_accepted_template_is_packed_with_who_accepted_it(tmp_path: Path) -> None:
    [model] = TinyBuild(tmp_path, template=READ, accepted=READ).build().contents.models
    assert model.template_accepted is not None
    assert model.template_accepted.sha256 == model.template


@pytest.mark.parametrize("template", OTHERS.values(), ids=OTHERS)
def test_attacked_by_another_text_than_the_accepted_one(tmp_path: Path, template: str) -> None:
    refused(ROW, TinyBuild(tmp_path, template=template, accepted=READ).build, "template.refused", SUBJECT)
    assert list((tmp_path / "workspace" / "dist").glob("[!.]*")) == []


def test_attacked_by_a_text_that_no_person_can_have_read(tmp_path: Path) -> None:
    for number, template in enumerate(("{% if %}", "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}")):
        tiny = TinyBuild(tmp_path / str(number), template=template, accepted=template)
        refused(ROW, tiny.build, "template.refused", SUBJECT)


def test_unguarded_every_text_passes_with_any_acceptance(tmp_path: Path) -> None:
    def accept(_faults: object, _digest: object, _accepted: object) -> bool:
        return True

    with guard_off(ROW.guard, accept):
        # Nothing is accepted here: the second guard asks for the accepted text in the model.
        for number, template in enumerate(OTHERS.values()):
            tiny = TinyBuild(tmp_path / str(number), template=template)
            assert tiny.build().bundle is not None
