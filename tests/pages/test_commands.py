"""docs/commands.md has every command and option, and every exit code of the program."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from appliance.cli.command_table import COMMANDS
from appliance.cli.main import EXIT_BUG, appliance
from signing.errors import ApplianceError
from tests.pages.generated.commands import exit_codes, page
from tests.pages.markdown import anchors, links

PAGE = page()


def leaves(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from leaves(command, inner)
        else:
            yield inner.command_path, command


LEAVES = dict(leaves(appliance, click.Context(appliance, info_name="appliance")))


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_stands_with_its_options_and_an_example(path: str) -> None:
    section = PAGE.partition(f"# `{path}`\n")[2].partition("\n#")[0]
    options = [option.opts[0] for option in LEAVES[path].params if isinstance(option, click.Option)]
    assert [option for option in options if f"| `{option}" not in section] == []
    example = section.partition("Example:\n\n```\n")[2].partition("\n```")[0]
    assert path in example
    assert all(line.strip() for line in example.splitlines())


def test_each_group_lists_its_commands_with_links_that_lead_to_them() -> None:
    found = links(PAGE)
    assert found == [f"#appliance-{name}" for name in COMMANDS]
    assert {link.removeprefix("#") for link in found} <= anchors(PAGE)


def test_every_exit_code_of_the_program_is_explained() -> None:
    def subclasses(kind: type[ApplianceError]) -> set[int]:
        return {kind.exit_code}.union(*(subclasses(one) for one in kind.__subclasses__()))

    explained = re.findall(r"^\| ([0-9]+|128 \+ n) \|", exit_codes(), re.MULTILINE)
    assert set(explained) == {"0", str(EXIT_BUG), "128 + n", *map(str, subclasses(ApplianceError))}
    assert len(explained) == len(set(explained))
