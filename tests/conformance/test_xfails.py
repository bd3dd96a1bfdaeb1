"""The list of tests of the public conformance suite that our client fails by choice, as the suite reads it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_repository import TOP

LIST = Path(__file__).with_name("client.xfails")  # the suite looks for it beside the program `client`


def test_every_listed_test_stands_once_below_a_reason_and_trust_states_how_many() -> None:
    assert LIST.with_suffix("").is_file()
    groups: dict[str, list[str]] = {}
    for line in LIST.read_text("utf-8").splitlines()[1:]:
        if line.startswith("# "):
            reason = line
        elif line != "#":
            assert re.match(r"test_[a-z_]+(\[.+\])?\Z", line), line
            groups.setdefault(reason, []).append(line)
    names = [name for group in groups.values() for name in group]
    assert len(set(names)) == len(names)
    page = " ".join((TOP / "signing" / "TRUST.md").read_text("utf-8").split())
    delegations, sha512 = (len(group) for group in groups.values())
    assert f"{delegations + sha512} fail by choice: {delegations} need delegations, and {sha512} has" in page
