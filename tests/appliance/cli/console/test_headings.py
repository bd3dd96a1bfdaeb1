"""An error's heading says what is wrong, also to somebody who does not know its code."""

from __future__ import annotations

import io
import re

import pytest

from appliance.cli.console.headings import HEADINGS
from appliance.cli.console.terminal import Terminal
from signing.errors import UsageError
from tests.prose import CODE, TOP, python_files

SOURCE = "".join(path.read_text("utf-8") for path in python_files([TOP / name for name in CODE]))


@pytest.mark.parametrize("code", HEADINGS)
def test_every_heading_belongs_to_an_error_of_the_program(code: str) -> None:
    assert len(re.findall(f'"{re.escape(code)}"', SOURCE)) >= 2


@pytest.mark.parametrize(
    ("code", "heading"),
    [("release.none", "nothing is installed"), ("release.config-changed", "config changed"), ("x", "x")],
)
def test_heading_is_the_one_of_the_list_or_the_last_part_of_the_code(code: str, heading: str) -> None:
    messages = io.StringIO()
    Terminal(io.StringIO(), messages).error(UsageError(code, "/srv"))
    assert messages.getvalue() == f"error: /srv: {heading} ({code})\n"
