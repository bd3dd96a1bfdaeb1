"""The program that goes back to another release: a shell script outside the releases, and the units that start it.

Owns the copies of `rollback.sh`, as `/opt/appliance/rollback`, of its two units, and of the unit that watches a trial.
They are the same for every release, so an install writes them before it switches. The script needs no Python: it works
where the environment of a release is broken, and where the disk is full.

Rules:
- a copy has the bytes of the running program, which are the signed ones of the bundle that is installed;
- the newest install wrote it. After a rollback an older release serves, and the files of the newer one stay right;
- it is replaced as a whole, so that a person can start it at every moment;
- `appliance-recover.service` runs at every boot, before any service of the appliance;
- `appliance-trial.service` runs while a release is on trial; when it fails, it starts the return.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.places import OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import TRIAL_UNIT
from appliance.host.process import systemctl
from signing.errors import ApplyBrokenError, DriftError

RECOVER_UNIT, RETURN_UNIT = "appliance-recover.service", "appliance-return.service"
UNITS = (RECOVER_UNIT, RETURN_UNIT, TRIAL_UNIT)
TIMEOUT_S = 330.0
_SCRIPT = "rollback.sh"


def rollback_program(prefix: Prefix) -> Path:
    """Where the script lies on a host."""
    return prefix.opt / "rollback"


def program_files(prefix: Prefix) -> dict[Path, tuple[bytes, int]]:
    """The bytes and the mode of each file of the program, by its path on the host; units on a whole machine only."""
    here = Path(__file__).parent
    files = {rollback_program(prefix): ((here / _SCRIPT).read_bytes(), 0o755)}
    if prefix.is_system:
        files |= {prefix.units / name: ((here / name).read_bytes(), 0o644) for name in UNITS}
    return files


def install_rollback_program(prefix: Prefix) -> bool:
    """Write the script and its units, durably, and have systemd start the recovery at boot.

    Args:
        prefix: the host; its folders exist.

    Returns:
        False where everything was there already.

    Raises:
        ApplianceError: systemd refuses.
        OSError: a file cannot be written.
    """
    changed = [path for path, (data, mode) in program_files(prefix).items() if write_file(path, data, mode)]
    if prefix.is_system and systemctl.version():
        if changed:
            systemctl.reload()
        # Also where the files were there: an earlier run may have been cut off after it wrote them.
        systemctl.enable([RECOVER_UNIT, TRIAL_UNIT])
    return bool(changed)


def rollback_argv(prefix: Prefix, release: str | None = None) -> list[str]:
    """The command that goes back: the script of the running program, and not what lies at its place on the host.

    Args:
        prefix: the host; the script finds it by the name that it is given.
        release: the folder's name; None for the release before.
    """
    text = (Path(__file__).parent / _SCRIPT).read_text("utf-8")
    return ["/bin/sh", "-c", text, str(rollback_program(prefix)), *(["--", release] if release is not None else [])]


def finish_rollback(prefix: Prefix) -> None:
    """Finish a rollback that was cut off, as a boot does.

    Args:
        prefix: the host; the caller holds its lock.

    Raises:
        ApplyBrokenError: it cannot be finished; with the script's own message.
    """
    install_rollback_program(prefix)
    command = ["/bin/sh", str(rollback_program(prefix)), "--recover", "--locked"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False)
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:600] or f"exit status {done.returncode}"
        is_finished = done.returncode == 0
    except subprocess.TimeoutExpired:
        said, is_finished = f"nothing after {TIMEOUT_S:.0f} s", False
    if not is_finished:
        raise ApplyBrokenError(
            "rollback.cut-off",
            str(prefix.current),
            expected="the rollback that was cut off to be finished",
            found=said,
            hint=f"sh {rollback_program(prefix)} RELEASE, with a release that is complete",
        )


def program_problems(prefix: Prefix) -> list[DriftError]:
    """Compare the program of a host with the running one, and with those of the releases that are complete here.

    Returns:
        One error for each file that is missing or differs.
    """
    problems = []
    for path, (data, mode) in program_files(prefix).items():
        try:
            found_data = path.read_bytes()
            is_known = found_data == data or found_data in _held(prefix, path)
            is_same = is_known and path.stat().st_mode & 0o7777 == mode and not path.is_symlink()
            found = "another file"
        except OSError as error:
            is_same, found = False, error.strerror or "no file"
        if not is_same:
            problems.append(
                DriftError(
                    "rollback.changed",
                    str(path),
                    expected="the file of this program",
                    found=found,
                    hint="run the same `appliance install` again: it writes the file anew",
                )
            )
    return problems


def _held(prefix: Prefix, path: Path) -> Iterator[bytes]:
    """What the other releases have for one file of the program: one of them wrote it where it served later."""
    name = _SCRIPT if path == rollback_program(prefix) else path.name
    for release in sorted(prefix.releases.glob("*/")):
        if (release / OK_FILE).is_file():
            for held in release.glob(f"venv/lib/python3*/site-packages/appliance/host/change/{name}"):
                yield held.read_bytes()
