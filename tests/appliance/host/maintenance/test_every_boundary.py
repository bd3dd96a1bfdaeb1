"""A change that was cut off at any boundary, and any other change after it: the newer one decides, or refuses.

Uninstall and restore are in every pair here, and each pair is tried at one boundary. `make soak` tries all boundaries
(BOUNDARIES=all). The pairs of all four operations are in tests/appliance/host/install/test_pairs.py.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from appliance.host.activation.switch import point_at
from appliance.host.change.change_file import (
    INSTALL,
    REMOVING,
    RESTORING,
    ROLLBACK,
    SWITCHING,
    HostChange,
    clear_change,
    read_change,
    write_change,
)
from appliance.host.change.rollback_program import rollback_program
from appliance.host.change.step_runner import AFTER, BEFORE, OnBoundary
from appliance.host.change.way_back import save_configuration
from appliance.host.install.steps import WHOLE_INSTALL
from appliance.host.layout.install_lock import hold
from appliance.host.maintenance import uninstall as uninstall_module
from appliance.host.maintenance.backup import WrittenBackup, write_backup
from appliance.host.maintenance.restore import STEPS as RESTORE_STEPS
from appliance.host.maintenance.restore import restore
from appliance.host.maintenance.restore_stage import stage, staged_again
from appliance.host.maintenance.uninstall import uninstall, uninstall_script
from appliance.host.site.api_keys import AccessStore
from signing.errors import BusyError, NotTrustedError
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site
from tests.sim.kills import Boundary, check_tree, kept_tree, run_killed
from tests.toy import NOW

pytestmark = pytest.mark.ci
OLD, NEW = "1.0.0", "1.1.0"
SCRIPT = (Path(uninstall_module.__file__).parent / "uninstall.sh").read_text()
UNINSTALL_STEPS = re.search(r'^STEPS="(.*)"$', SCRIPT, re.MULTILINE)[1].split()  # type: ignore[index]
NOT_YET = {step.name for step in WHOLE_INSTALL[: [step.name for step in WHOLE_INSTALL].index("switch")]}


def now() -> datetime:
    return NOW


def is_chosen(number: int, total: int) -> bool:
    """Whether a pair is tried at this boundary."""
    return os.environ.get("BOUNDARIES") == "all" or number == total // 2


def both(names: list[str]) -> list[Boundary]:
    return [(name, when) for name in names for when in (BEFORE, AFTER)]


@dataclass
class Pairs:
    """A host on which `NEW` serves and `OLD` is the way back, with a backup; and the tree to begin each pair from."""

    site: Site
    newer: Path
    backup: WrittenBackup
    put_back: Callable[[], None]

    def install(self, hook: OnBoundary = lambda *_: None) -> None:
        self.site.install(self.newer, on_boundary=hook)

    def restore(self, hook: OnBoundary = lambda *_: None) -> None:
        prefix = self.site.sim.prefix
        with hold(prefix):
            restore(stage(prefix, self.backup.path, [self.backup.manifest.host.fingerprint], NOW), now, hook)

    def uninstall(self) -> None:
        uninstall(self.site.sim.prefix, now, purge=True)

    def rollback(self) -> int:
        script = rollback_program(self.site.sim.prefix)
        return subprocess.run(["/bin/sh", script], check=False, capture_output=True, timeout=60).returncode

    def boot(self) -> None:
        """What a boot does below this prefix; a restore goes on in this process."""
        prefix = self.site.sim.prefix
        change = read_change(prefix)
        if change and change.phase == RESTORING:
            with hold(prefix):
                restore(staged_again(prefix, NOW), now)
        elif rollback_program(prefix).is_file():
            command = ["/bin/sh", str(rollback_program(prefix)), "--recover"]
            subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    folder = tmp_path_factory.mktemp("pairs")
    with pytest.MonkeyPatch.context() as patch:
        site = new_site(folder, patch)
        prefix = site.sim.prefix
        site.install()
        newer = build_bundle(site.sim.workspace, NEW, "two")
        site.install(newer)
        clear_change(prefix)
        AccessStore(prefix.access).grant("ada", NOW)
        (folder / "stick").mkdir()
        backup = write_backup(prefix, folder / "stick", NOW)
        with kept_tree(prefix, folder / "keep") as put_back:
            yield Pairs(site, newer, backup, put_back)


def cut_install(pairs: Pairs) -> Iterator[Boundary]:
    """An upgrade from `OLD` to `NEW` that is cut off at each boundary from the switch on."""
    prefix = pairs.site.sim.prefix
    boundaries = both([step.name for step in WHOLE_INSTALL])
    first = len(NOT_YET) * 2
    for number in range(first, len(boundaries)):
        if not is_chosen(number - first, len(boundaries) - first):
            continue
        pairs.put_back()
        point_at(prefix, f"releases/{release(pairs, OLD)}")
        at = run_killed(pairs.install, boundaries, number)
        if at is None:
            return
        yield at


def cut_rollback(pairs: Pairs) -> Iterator[Boundary]:
    """A rollback from `NEW` to `OLD` that is cut off before and after its rename."""
    prefix = pairs.site.sim.prefix
    for when in (BEFORE, AFTER):
        pairs.put_back()
        save_configuration(prefix, prefix.releases / release(pairs, NEW))
        change = HostChange(ROLLBACK, release(pairs, OLD), release(pairs, NEW), SWITCHING, "2026-01-02T03:04:05Z")
        write_change(prefix, change)
        if when == AFTER:
            point_at(prefix, f"releases/{release(pairs, OLD)}")
        yield "rename", when


def cut_restore(pairs: Pairs) -> Iterator[Boundary]:
    boundaries = both([step.name for step in RESTORE_STEPS])
    for number in range(len(boundaries)):
        if not is_chosen(number, len(boundaries)):
            continue
        pairs.put_back()
        at = run_killed(pairs.restore, boundaries, number)
        if at is None:
            return
        yield at


def cut_uninstall(pairs: Pairs) -> Iterator[Boundary]:
    loop, end = "for step in $STEPS; do\n", "        exit 8\n    fi\ndone"
    boundaries = both(UNINSTALL_STEPS)
    for number, (step, when) in enumerate(boundaries):
        if not is_chosen(number, len(boundaries)):
            continue
        pairs.put_back()
        kill = f'    if [ "$step" = {step} ]; then kill -9 $$; fi\n'
        text = SCRIPT.replace(loop, loop + kill) if when == BEFORE else SCRIPT.replace(end, end[:-4] + kill + "done")

        def run_cut(prefix: object, script: Path, lock: int, text: str = text) -> None:
            subprocess.run(["/bin/sh", "-c", text, "sh", pairs.site.sim.prefix.root], check=False, pass_fds=(lock,))
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(uninstall_module, "run_script", run_cut)
            pairs.uninstall()
        yield step, when


def release(pairs: Pairs, version: str) -> str:
    return next(path.name for path in pairs.site.sim.prefix.releases.glob(f"{version}-*"))


FIRST = {"install": cut_install, "rollback": cut_rollback, "restore": cut_restore, "uninstall": cut_uninstall}


@pytest.mark.parametrize("first", FIRST)
def test_uninstall_after_a_change_that_was_cut_off_leaves_nothing(pairs: Pairs, first: str) -> None:
    root = pairs.site.sim.prefix.root
    for _at in FIRST[first](pairs):
        pairs.uninstall()
        assert list(root.iterdir()) == []


@pytest.mark.parametrize("first", FIRST)
def test_restore_after_a_change_that_was_cut_off_is_whole_or_refused(pairs: Pairs, first: str) -> None:
    prefix = pairs.site.sim.prefix
    for at in FIRST[first](pairs):
        change = read_change(prefix) if prefix.state.is_dir() else None
        try:
            pairs.restore()
        except BusyError:
            assert change
            assert change.phase != RESTORING
            assert read_change(prefix) == change, at
        except (NotTrustedError, FileNotFoundError):
            # What an uninstall has removed cannot be restored to: there is no pinned root.
            assert first == "uninstall", at
        else:
            assert first != "uninstall"
            assert read_change(prefix) is None
            check_tree(prefix, {OLD, NEW})


@pytest.mark.parametrize("first", ["restore", "uninstall"])
def test_install_after_a_change_that_was_cut_off_serves(pairs: Pairs, first: str) -> None:
    prefix = pairs.site.sim.prefix
    for at in FIRST[first](pairs):
        pairs.install()
        change = read_change(prefix)
        assert change is None or change.op == INSTALL, at
        clear_change(prefix)
        assert check_tree(prefix, {NEW}) == NEW
        pairs.boot()
        assert check_tree(prefix, {NEW}) == NEW, "nothing goes on with the older change"


@pytest.mark.parametrize("first", ["restore", "uninstall"])
def test_rollback_after_a_change_that_was_cut_off_is_whole_or_a_boot_finishes(pairs: Pairs, first: str) -> None:
    prefix = pairs.site.sim.prefix
    for at in FIRST[first](pairs):
        if not rollback_program(prefix).is_file():
            assert first == "uninstall"
            continue
        if pairs.rollback() == 0:
            assert check_tree(prefix, {OLD}) == OLD, at
            continue
        assert first == "uninstall", at
        change = read_change(prefix)
        assert change is None or change.phase == REMOVING, at
        pairs.boot()
        assert not uninstall_script(prefix).exists()
        assert not prefix.current.is_symlink()
