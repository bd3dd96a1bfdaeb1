"""`appliance init`: what is meant for a ceremony is never passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.harness import command


@pytest.mark.parametrize(
    "options", [("--root-threshold", "3"), ("--targets-threshold", "1"), ("--root-key", "alice.pub")]
)
def test_options_of_a_ceremony_are_refused_without_one(tmp_path: Path, options: tuple[str, ...]) -> None:
    answer = command("init", tmp_path / "w", *options)
    assert (answer.code, "--ceremony" in answer.talk) == (2, True)
    assert not (tmp_path / "w").exists()
