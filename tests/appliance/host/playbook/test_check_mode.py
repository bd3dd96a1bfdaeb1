"""Check mode names exactly what a real run then changes, role by role, and so do the roles' declared effects."""

from __future__ import annotations

import grp
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.entry_points import ANSIBLE_CHILD
from appliance.host.layout.prefix import Prefix
from appliance.host.playbook.ansible_run import run_child, variables
from appliance.host.playbook.effects import FILE, FOLDER, UNIT, declared_effects, read_effect_files
from appliance.host.playbook.prediction import Prediction, predict_changes, run_check
from appliance.host.process.programs import Programs
from appliance.host.site.config import SiteConfig
from appliance.resources import playbooks_path
from bundles.oci.layout import Layout
from bundles.progress import ignore
from tests.appliance.sim_host import SimHost, new_host

PYTHON = Path(sys.executable)
Names = set[tuple[str, str, str]]
"""Role, kind and name of each thing that is changed."""


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and content of everything below a folder."""
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def names(changes: list[dict[str, Any]]) -> Names:
    return {(change["role"], change["kind"], change["name"]) for change in changes}


def predicted(prediction: Prediction) -> Names:
    assert prediction.problem == ""
    return {(one.role, one.kind, one.name) for one in prediction.changes}


@pytest.fixture
def work(tmp_path: Path) -> Callable[[], Path]:
    """Makes fresh private folders for runs."""
    made = tmp_path / "work"
    made.mkdir()
    return lambda: Path(os.path.realpath(_fresh(made)))


def _fresh(folder: Path) -> Path:
    path = folder / str(len(list(folder.iterdir())))
    path.mkdir(mode=0o700)
    return path


def really_run(given: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    run, scratch = folder / "run", folder / "scratch"
    run.mkdir(mode=0o700)
    scratch.mkdir()
    lock = os.open(os.devnull, os.O_RDONLY)
    programs = Programs(scratch, lock)
    end, reason = run_child(
        ANSIBLE_CHILD, PYTHON, playbooks_path(), given, run, programs, ignore, keep_capabilities=False
    )
    os.close(lock)
    assert reason == ""
    assert end is not None
    # Each role is one call, so a role that changes anything counts once.
    assert end["counts"]["changed"] == len({change["role"] for change in end.get("changes", [])})
    return list(end.get("changes", []))


def whole_machine(host: SimHost, root: Path) -> dict[str, Any]:
    """The variables of a whole machine, whose tree lies below a folder, and whose users are there already."""
    for name in ("etc", "var/lib/appliance", "release/config/units", "usr/local/bin"):
        (root / name).mkdir(parents=True)
    given = variables(Prefix(Path("/")), root / "release", host.verify().value, SiteConfig())
    group = grp.getgrgid(os.getgid()).gr_name
    return {**given, "appliance_root": str(root), "appliance_users": [], "appliance_group": group}


@pytest.mark.ci
def test_check_mode_and_effects_equal_what_a_real_run_changes(tmp_path: Path, work: Callable[[], Path]) -> None:
    root = tmp_path / "root"
    given = whole_machine(new_host(tmp_path / "host"), root)
    before = snapshot(root)
    fresh = predicted(run_check(PYTHON, playbooks_path(), given, work()))
    assert snapshot(root) == before
    assert names(really_run(given, work())) == fresh
    effects = declared_effects(read_effect_files(playbooks_path()), given)
    written = {(one.role, FILE if one.kind == UNIT else one.kind, one.file or one.name) for one in effects}
    assert {one for one in written if one[1] in (FILE, FOLDER)} == fresh
    modes = {one.file or one.name: one.mode for one in effects if one.mode}
    assert {path: Path(path).stat().st_mode & 0o7777 for path in modes} == modes
    # On a host that has drifted: a text, a mode, a missing file, a link, and a site's own file, which is kept.
    config = root / "release" / "config"
    (config / "gateway.json").write_text("{}\n")
    (config / "egress.nft").chmod(0o600)
    (config / "engine-toy.json").unlink()
    (config / "units" / "appliance-gateway.service").unlink()
    (config / "units" / "appliance-gateway.service").symlink_to("/dev/null")
    (root / "etc" / "appliance" / "site.yaml").write_text("port: 9000\n")
    (root / "var" / "lib" / "appliance" / "audit").chmod(0o755)
    before = snapshot(root)
    prediction = run_check(PYTHON, playbooks_path(), given, work())
    assert snapshot(root) == before
    assert {Path(name).name for _, _, name in predicted(prediction)} == {
        "gateway.json",
        "egress.nft",
        "engine-toy.json",
        "appliance-gateway.service",
        "audit",
    }
    assert names(really_run(given, work())) == predicted(prediction)
    shown = {Path(one.name).name: one for one in prediction.changes}
    assert (shown["gateway.json"].before, shown["gateway.json"].after) == (
        "{}\n",
        (config / "gateway.json").read_text(),
    )
    assert (shown["egress.nft"].before, shown["egress.nft"].after) == ("mode 0600\n", "mode 0644\n")
    assert [Path(one.name).name for one in prediction.changes if one.is_new] == ["engine-toy.json"]
    assert run_check(PYTHON, playbooks_path(), given, work()) == Prediction(())


@pytest.mark.ci
def test_environment_without_check_mode_changes_nothing(tmp_path: Path, work: Callable[[], Path]) -> None:
    old = tmp_path / "python"
    # A release of before: it runs Ansible for real under the one name that it has.
    old.write_text('#!/bin/sh\ncase "$*" in *check_runner*) echo "No module named check_runner" >&2; exit 1;; esac\n')
    old.chmod(0o755)
    prediction = run_check(old, playbooks_path(), {}, work())
    assert prediction.changes == ()
    assert "No module named check_runner" in prediction.problem


def test_changes_are_predicted_from_a_verified_copy_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = new_host(tmp_path / "host")
    bundle = host.verify().value
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    seen: list[tuple[Path, bytes, int]] = []

    def check(python: Path, playbooks: Path, given: dict[str, Any], folder: Path) -> Prediction:
        seen.append((python, (playbooks / "site.yml").read_bytes(), folder.stat().st_mode & 0o777))
        assert given["appliance_release"] == str(tmp_path / "release")
        return Prediction(())

    monkeypatch.setattr("appliance.host.playbook.prediction.run_check", check)
    found = predict_changes(host.prefix, tmp_path / "release", bundle, SiteConfig(), Layout(host.source), PYTHON)
    assert (found, seen) == (Prediction(()), [(PYTHON, b"---\n", 0o700)])
    assert list((tmp_path / "t").iterdir()) == []
    assert not (tmp_path / "release").exists()
