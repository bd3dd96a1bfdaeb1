"""A change that was cut off, then another one: the later one supersedes it, and the host is between nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.host.change.change_file import UNINSTALL, clear_change, read_change
from appliance.host.change.rollback_program import rollback_program
from appliance.host.change.step_runner import AFTER, BEFORE
from appliance.host.install.steps import WHOLE_INSTALL
from appliance.host.layout.install_lock import hold
from appliance.host.maintenance import restore as restore_module
from appliance.host.maintenance import uninstall as uninstall_module
from appliance.host.maintenance.backup import write_backup
from appliance.host.maintenance.restore import STEPS, restore
from appliance.host.maintenance.restore_stage import stage
from appliance.host.maintenance.uninstall import uninstall, uninstall_script
from appliance.host.release.release import current_target
from signing.errors import BusyError, UsageError
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site
from tests.sim.kills import boot, check_tree, kept_tree, run_killed
from tests.toy import NOW

OLD, NEW, NEWEST = "1.0.0", "1.1.0", "1.2.0"
INSTALLS = [(step.name, when) for step in WHOLE_INSTALL for when in (BEFORE, AFTER)]
RESTORES = [(step.name, when) for step in STEPS for when in (BEFORE, AFTER)]
CUTS = {
    "install": ["render", "way-back", "switch", "gate", "trying"],
    "rollback": ["put_site", "point", "start_units", "end_change"],
    "uninstall": ["links", "programs", "state"],
    "restore": [STEPS[0].name, STEPS[-2].name],
}
"""Where each operation is cut off: after a step, before a function of the script, before a step of the script."""


@dataclass
class PairHost:
    """A host that has upgraded once, with what each operation needs."""

    site: Site
    newest: Path
    backup: Path

    def cut(self, op: str, where: str) -> None:
        """Begin an operation and kill it."""
        getattr(self, f"_cut_{op}")(where)

    def _cut_install(self, where: str) -> None:
        number = INSTALLS.index((where, AFTER))
        at = run_killed(lambda hook: self.site.install(self.newest, on_boundary=hook), INSTALLS, number)
        assert at == (where, AFTER)

    def _cut_rollback(self, where: str) -> None:
        script = rollback_program(self.site.sim.prefix)
        right = script.read_text()
        assert f"\n{where}() {{" in right
        script.write_text(right.replace(f"\n{where}() {{", f"\n{where}() {{ kill -9 $$;"))
        assert self.roll_back() == -9
        script.write_text(right)

    def _cut_uninstall(self, where: str) -> None:
        def run_cut(_prefix: object, script: Path, _lock: int) -> None:
            loop = "for step in $STEPS; do\n"
            text = script.read_text()
            assert loop in text
            cut = script.with_name("cut")
            cut.write_text(text.replace(loop, f'{loop}    if [ "$step" = {where} ]; then kill -9 $$; fi\n'))
            done = subprocess.run(["/bin/sh", cut, self.site.sim.prefix.root], check=False)
            assert done.returncode == -9

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(uninstall_module, "run_script", run_cut)
            self.uninstall()

    def _cut_restore(self, where: str) -> None:
        number = RESTORES.index((where, AFTER))
        clear_change(self.site.sim.prefix)  # it refuses to begin beside a trial

        def work(hook: Callable[[str, str], None]) -> None:
            with hold(self.site.sim.prefix):
                restore(stage(self.site.sim.prefix, self.backup, [], NOW), lambda: NOW, hook)

        assert run_killed(work, RESTORES, number) is not None

    def run(self, op: str) -> None:
        """Do an operation from its begin to its end."""
        {"install": self.install, "rollback": self.roll_back, "uninstall": self.uninstall, "restore": self.restore}[
            op
        ]()

    def install(self) -> None:
        self.site.install(self.newest)

    def roll_back(self) -> int:
        script = rollback_program(self.site.sim.prefix)
        return subprocess.run(["/bin/sh", script], capture_output=True, check=False).returncode

    def uninstall(self) -> None:
        uninstall(self.site.sim.prefix, lambda: NOW, purge=False)

    def restore(self) -> None:
        with hold(self.site.sim.prefix):
            restore(stage(self.site.sim.prefix, self.backup, [], NOW), lambda: NOW)

    def boot(self) -> None:
        """What a boot does; where an uninstall was cut off, it starts the script of that."""
        prefix = self.site.sim.prefix
        change = read_change(prefix)
        if change is not None and change.op == UNINSTALL:
            subprocess.run(["/bin/sh", uninstall_script(prefix), prefix.root], check=True)
        else:
            boot(prefix)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PairHost]:
    folder = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patch:
        site = new_site(folder, patch)
        patch.setattr(restore_module, "open_current", lambda *_: None)
        site.install()
        site.install(build_bundle(site.sim.workspace, NEW, "two"))
        (folder / "stick").mkdir()
        backup = write_backup(site.sim.prefix, folder / "stick", NOW)
        yield PairHost(site, build_bundle(site.sim.workspace, NEWEST, "three"), backup.path)


PAIRS = [(op, where, later) for op, cuts in CUTS.items() for where in cuts for later in CUTS]


@pytest.mark.ci
@pytest.mark.parametrize(("op", "where", "later"), PAIRS)
def test_later_change_supersedes_one_that_was_cut_off(
    host: PairHost, tmp_path: Path, op: str, where: str, later: str
) -> None:
    prefix = host.site.sim.prefix
    with kept_tree(prefix, tmp_path / "kept") as put_back:
        try:
            host.cut(op, where)
            # A restore refuses to begin beside an unfinished change; nothing is left where all was removed.
            refusals = {"restore": (BusyError, UsageError), "uninstall": (UsageError,), "install": (), "rollback": ()}
            with suppress(*refusals[later]):
                host.run(later)
            host.boot()
            if later == "uninstall":
                assert current_target(prefix) is None
                assert not prefix.releases.exists()
            elif later == "install":
                assert check_tree(prefix, {NEWEST}) == NEWEST
            elif prefix.releases.is_dir():
                check_tree(prefix, {OLD, NEW, NEWEST, *({""} if op == "uninstall" else ())})
            assert (change := read_change(prefix)) is None or change.is_trying
        finally:
            put_back()


def test_every_ordered_pair_is_there() -> None:
    assert {(op, later) for op, _, later in PAIRS} == {(one, other) for one in CUTS for other in CUTS}
