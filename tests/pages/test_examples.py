"""Every example that `--help` shows is run: in a small place here, or by the test that is named here."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli.main import appliance
from tests.pages.blocks import SHELL, TOP, Block
from tests.pages.place import place_for
from tests.pages.test_blocks import are_typed_by
from tests.test_repository import commands

ELSEWHERE = {
    "appliance key create": "tests/journeys/test_06_signers.py",
    "appliance key show 'pkcs11:": "tests/appliance/keys/signers/test_token.py",
    "appliance sign": "tests/journeys/test_06_signers.py",
    "appliance install /media/stick --root": "tests/appliance/cli/operator/test_install_question.py",
    "appliance install /media/stick --stage": "tests/appliance/cli/operator/test_switch.py",
    "appliance switch": "tests/appliance/cli/operator/test_switch.py",
    "appliance install /media/stick-of-last-year": "tests/attacks/test_t124_older_release.py",
    "appliance install /media/stick --plan": "tests/attacks/test_t125_changed_plan.py",
    "appliance install": "tests/journeys/inside.py",
    "appliance plan /media/stick --json": "tests/appliance/cli/planner/test_plan_install.py",
    "appliance plan /media": "tests/appliance/cli/test_several_media.py",
    "appliance host check": "tests/appliance/cli/planner/test_plan_install.py",
    "appliance serve": "tests/journeys/inside.py",
    "curl": "tests/pages/test_blocks.py",
    "appliance stick write dist/smollm2-1.1.0": "tests/appliance/cli/courier/test_stick_write.py",
    "appliance rollback": "tests/appliance/host/change/test_rollback.py",
    "appliance gc": "tests/appliance/cli/upkeep/test_gc.py",
    "appliance backup": "tests/appliance/cli/upkeep/test_backup.py",
    "appliance restore": "tests/appliance/cli/upkeep/test_backup.py",
    "appliance uninstall": "tests/appliance/host/maintenance/test_uninstall.py",
    "appliance config": "tests/appliance/cli/upkeep/test_config.py",
    "sudo appliance config apply": "tests/appliance/cli/upkeep/test_config.py",
    "appliance doctor": "tests/appliance/host/maintenance/test_doctor.py",
    "appliance support /media": "tests/appliance/cli/upkeep/test_support.py",
    "appliance receipt": "tests/appliance/cli/operator/test_receipt.py",
    "appliance access": "tests/appliance/cli/access/test_access.py",
    "appliance bench": "tests/appliance/cli/operator/test_bench.py",
    "appliance scrub": "tests/appliance/cli/upkeep/test_scrub.py",
    "appliance demo": "tests/journeys/conftest.py",
}
"""Examples by their beginning: they ask a person, install a whole release, or need what one of the others answers."""
BEFORE = {
    "init": "rm -r appliance-workspace\n",
    "evidence": "appliance verify --prefix /srv/appliance --evidence today.json\n",
    "evidence check": "appliance verify --prefix /srv/appliance --evidence today.json\n",
    "bundle import": "appliance bundle export dist/smollm2-1.0.0 registry.example/models/smollm2\n",
    "plan": "appliance host probe --json >card.json\n",
}
"""What is typed before each example of a command."""


def examples() -> list[tuple[str, Block]]:
    """Every example with its command; one that stands in two helps only once."""
    found: dict[str, tuple[str, Block]] = {}
    for name, command in commands(appliance):
        lines = (command.help or "").partition("Example:\n")[2]
        block = Block(f"appliance {name} --help", 1, "", SHELL, "\n".join(map(str.strip, lines.splitlines())), {})
        for line in block.commands:
            found[line] = (name, Block(block.page, 1, "", SHELL, BEFORE.get(name, "") + line, {}))
    return list(found.values())


def elsewhere(block: Block) -> str | None:
    return next((test for start, test in ELSEWHERE.items() if block.commands[-1].startswith(start)), None)


HERE = [(name, block) for name, block in examples() if elsewhere(block) is None]


@pytest.mark.ci
@pytest.mark.parametrize(("name", "block"), HERE, ids=[block.commands[-1] for _, block in HERE])
def test_example_of_a_help_can_be_typed(name: str, block: Block, template: Path, tmp_path: Path) -> None:
    with place_for(f"appliance {name}", template, tmp_path / "place") as place:
        done = place.type(block)
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


def test_other_examples_are_typed_by_the_tests_that_are_named() -> None:
    blocks = [block for _, block in examples()]
    for block in blocks:
        if test := elsewhere(block):
            assert are_typed_by(block, [TOP / test]) == [], f"{block.text}: {test} does not type this"
    assert [start for start in ELSEWHERE if not any(block.commands[-1].startswith(start) for block in blocks)] == []
