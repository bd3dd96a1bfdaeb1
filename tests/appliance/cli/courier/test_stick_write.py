"""What `appliance stick write` refuses before it writes anything."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.harness import command
from tests.toy import build_toy


def test_a_workspace_is_no_stick_for_it_holds_private_keys(tmp_path: Path) -> None:
    workspace, bundle = build_toy(tmp_path / "workspace")
    before = sorted(workspace.path.iterdir())
    answer = command("stick", "write", bundle, workspace.path, "--workspace", workspace.path)
    assert (answer.code, "stick.is-workspace" in answer.talk) == (2, True)
    assert sorted(workspace.path.iterdir()) == before
