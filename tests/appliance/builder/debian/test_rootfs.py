"""Root file systems: what mmdebstrap mounts while it works does not outlive it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.debian import rootfs
from appliance.builder.debian.apt import Mirror


@pytest.mark.parametrize("allowed", [True, False])
def test_bootstrap_by_root_has_mounts_of_its_own_where_the_machine_allows_that(
    allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run(argv: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        calls.append(argv)
        return subprocess.CompletedProcess(argv, int(argv[-1] == "true" and not allowed), b"", b"")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(rootfs, "machine_mirror", lambda suite: Mirror(()))
    rootfs._bootstrap(rootfs.DEBIAN_12, tmp_path / "tree")
    own = ["unshare", "--mount"]
    assert calls[0] == [*own, "true"]
    assert calls[1][: 3 if allowed else 1] == ([*own, "mmdebstrap"] if allowed else ["mmdebstrap"])
