"""Every step of TUF's client workflow is cited in the kernel where it happens, or where it is said that it does not."""

from __future__ import annotations

import re

from tests.test_repository import TOP

# TUF specification 1.0.34, section 5: the numbered steps that a client must take, but for going on to the next.
STEPS = {
    "5.1",
    "5.2",
    *(f"5.3.{step}" for step in (3, 4, 5, 7, 8, 10, 11, 12)),
    "5.4.1",
    "5.4.2",
    "5.4.3.1",
    "5.4.3.2",
    "5.4.4",
    "5.4.5",
    *(f"5.5.{step}" for step in range(1, 8)),
    *(f"5.6.{step}" for step in range(1, 8)),
    *(f"5.7.{step}" for step in range(1, 4)),
}
SECTIONS = {"5.4", "5.5", "5.6", "5.7", "5.3.9"}
"""Sections as a whole, and the end of a range."""


def test_every_step_of_the_client_workflow_is_cited_and_no_other() -> None:
    found = set()
    for path in (TOP / "signing").glob("*.py"):
        text = path.read_text()
        found |= set(re.findall(r"(?<![\w.])5\.[1-7](?:\.\d+)*", text))
    assert STEPS - found == set()
    assert found - STEPS - SECTIONS == set()
