"""`appliance uninstall`: a host as it was before its first install (docs/lifecycle.md, Uninstall).

Owns what is shown before, and the start of the script that does it. The program runs from the release that it removes.
So a shell script outside the releases removes everything: it works without Python, and finishes after a power cut.

Rules (threat T35):
- the script and the record of the change are durable before anything is removed;
- trust, audit log, keys, journal and the site's configuration stay, unless a person asks for `--purge`;
- packages of the operating system stay: other programs may need them by then. They are listed;
- what this host did not make is not removed: a user or group of another origin, a file of a person, a drop-in.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from appliance.host.change.change_file import (
    REMOVING,
    UNINSTALL,
    HostChange,
    change_path,
    read_change,
    utc_text,
    write_change,
)
from appliance.host.change.journal import DONE, STARTED, Journal
from appliance.host.change.way_back import free_reserve
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.install_lock import give_back_inherited, hold
from appliance.host.layout.prefix import PRIVATE, Prefix, make_folder
from appliance.host.layout.unit_files import GROUP, USERS, installed_engines
from appliance.host.maintenance.garbage import disk_bytes
from appliance.host.release.installed_files import installed_files
from appliance.host.release.release import current_target
from signing.errors import ApplianceError, ApplyBrokenError, DriftError, UsageError

TIMEOUT_S = 900.0
KEPT_STATE = ("trust", "audit", "journal", "access.db", "state-format")
"""What stays below the host's state without `--purge`."""
KEPT_ETC = ("site.yaml", "default.key", "tls")
"""What stays in the folder of the site without `--purge`, and every file that a person put there."""
UNITS = (
    "appliance-gateway.service",
    "appliance-gateway.socket",
    "appliance-trial.service",
    "appliance-return.service",
    "appliance-egress.service",
    "appliance-scrub.timer",
    "appliance-scrub.service",
    "appliance-recover.service",
)
"""The units of every version beside those of engines; the script has the same names."""
_SCRIPT = "uninstall.sh"
_STEP = "uninstall"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class UninstallPlan:
    """What an uninstall does.

    Args:
        removes: folders and files that go, as far as they exist.
        keeps: what stays.
        units: names of units that go.
        accounts: users and the group that go.
        packages: names and versions of packages that bundles brought for this system; they stay.
        size_bytes: what goes takes this much on the disk.
        purge: whether trust, audit and keys go, too.
    """

    removes: tuple[Path, ...]
    keeps: tuple[Path, ...]
    units: tuple[str, ...]
    accounts: tuple[str, ...]
    packages: tuple[str, ...]
    size_bytes: int
    purge: bool


def plan_uninstall(prefix: Prefix, system: str, *, purge: bool) -> UninstallPlan:
    """List what an uninstall would remove and keep. Changes nothing.

    Args:
        prefix: the host.
        system: of this machine, such as `debian-12`; its packages are listed.
        purge: whether trust, audit and keys go, too.

    Raises:
        UsageError: nothing is installed, and nothing was left by an install.
    """
    folders = (prefix.opt, prefix.state, prefix.etc, prefix.run_dir, prefix.engine_state)
    removes = [path for path in folders if path.is_dir()]
    removes += [prefix.gateway_state] * prefix.gateway_state.is_dir()
    removes += [prefix.logs] * (not prefix.is_system and prefix.logs.is_dir())
    keeps = [] if purge else [path for path in _kept(prefix) if os.path.lexists(path)]
    kept = [path for path in (prefix.state, prefix.etc, prefix.gateway_state) if path.is_dir()]
    if not removes or (keeps and not prefix.opt.is_dir()):
        raise UsageError(
            "uninstall.nothing",
            str(prefix.root),
            expected="an appliance on this host",
            found="none",
            hint="check --prefix"
            + (f"; to remove what an uninstall has kept: rm -r {' '.join(map(str, kept))}" if kept else ""),
        )
    units = tuple(_units(prefix)) if prefix.is_system else ()
    accounts = (*USERS, GROUP) if prefix.is_system else ()
    size = sum(map(disk_bytes, removes)) - sum(map(disk_bytes, keeps))
    packages = tuple(sorted(set(brought_packages(prefix, system)))) if prefix.is_system else ()
    return UninstallPlan(tuple(removes), tuple(keeps), units, accounts, packages, size, purge)


def uninstall(prefix: Prefix, now: Callable[[], datetime], *, purge: bool) -> None:
    """Remove the appliance from this host. After this, parts of the running program may be gone from the disk.

    Args:
        prefix: the host.
        now: the clock, in UTC.
        purge: whether trust, audit and keys go, too.

    Raises:
        BusyError: an install runs.
        ApplyBrokenError: a step failed, for example since the disk cannot be written. The same command, or the script
            that the error names, goes on.
    """
    free_reserve(prefix)
    for folder in (prefix.opt, prefix.journal):
        make_folder(folder, PRIVATE if folder == prefix.journal else 0o755)
    give_back_inherited(prefix)
    with hold(prefix) as lock:
        before = _serving(prefix)
        script = uninstall_script(prefix)
        write_file(script, (Path(__file__).parent / _SCRIPT).read_bytes(), 0o755)
        journal = Journal(prefix.journal / "install.jsonl", now)
        _note(journal, before, STARTED, "purge" if purge else "")
        write_change(
            prefix, HostChange(UNINSTALL, "", before, REMOVING, utc_text(now()), purge="yes" if purge else "no")
        )
        run_script(prefix, script, lock)
        if not purge:
            _note(journal, before, DONE, "")


def resumed_purge(prefix: Prefix) -> bool:
    """Whether the uninstall that was cut off removes trust, audit and keys, too.

    Raises:
        UsageError: no uninstall was cut off here.
        DriftError: the record of the change is not right.
    """
    change = read_change(prefix)
    if change is None or change.op != UNINSTALL:
        raise UsageError(
            "uninstall.not-begun",
            str(change_path(prefix)),
            expected="the record of an uninstall that was cut off",
            found=change.op if change else "none",
            hint=f"to begin one: appliance uninstall{prefix.option}",
        )
    return change.purge == "yes"


def uninstall_script(prefix: Prefix) -> Path:
    """Where the script lies while an uninstall runs; it removes itself last."""
    return prefix.opt / "uninstall"


def run_script(prefix: Prefix, script: Path, lock: int) -> None:
    """Run the script; see `uninstall`.

    Args:
        prefix: the host.
        script: the file.
        lock: the descriptor of the host's lock, which the script holds as well.
    """
    try:
        done = subprocess.run(
            ["/bin/sh", str(script), "" if prefix.is_system else str(prefix.root)],
            cwd="/",
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            timeout=TIMEOUT_S,
            check=False,
        )
        said, is_done = " ".join(done.stdout.decode("utf-8", "replace").split())[-600:], done.returncode == 0
        said = said or f"exit status {done.returncode}"
    except subprocess.TimeoutExpired:
        said, is_done = f"a step that has not ended after {TIMEOUT_S:.0f} s", False
    if not is_done:
        raise ApplyBrokenError(
            "uninstall.stopped",
            str(prefix.root),
            expected="everything to be removed",
            found=said,
            hint=f"mend that; then go on with: sh {script} {'' if prefix.is_system else prefix.root}".rstrip(),
        )


def _kept(prefix: Prefix) -> Iterator[Path]:
    yield from (prefix.state / name for name in KEPT_STATE)
    yield from (prefix.etc / name for name in KEPT_ETC)
    yield prefix.gateway_state


def _serving(prefix: Prefix) -> str:
    try:
        target = current_target(prefix)
    except DriftError:
        return ""
    name = PurePosixPath(target or "").name
    return name if (prefix.releases / name).is_dir() and target == f"releases/{name}" else ""


def _units(prefix: Prefix) -> Iterator[str]:
    yield from installed_engines(prefix)
    yield from (name for name in UNITS if (prefix.units / name).is_file())


def brought_packages(prefix: Prefix, system: str) -> Iterator[str]:
    """List the packages that bundles brought for a system, as name and version; they stay on the machine."""
    for release in sorted(prefix.releases.glob("*/")):
        try:
            files = installed_files(release)
        except (ApplianceError, OSError):
            continue
        for file in files:
            parts = PurePosixPath(file.path).parts
            if file.kind == "os-package" and parts[1:-1] == (system,):
                name, _, rest = parts[-1].partition("_")
                yield f"{name} {rest.rpartition('_')[0]}"


def _note(journal: Journal, release: str, state: str, note: str) -> None:
    with suppress(OSError):
        journal.write(release, _STEP, state, note)
