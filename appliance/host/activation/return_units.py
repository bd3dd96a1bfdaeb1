"""The units that outlive a release: the watch of a trial, the return, and the recovery at a boot.

Owns their installation. They come from the program that installs, as files of its wheel, and name no release. So they
work while the release that `current` names does not.
"""

from __future__ import annotations

from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix, make_folder

UNITS = Path(__file__).resolve().parent / "units"
TRIAL_UNIT = "appliance-trial.service"
ENABLED_UNITS = (TRIAL_UNIT,)
"""The units that systemd starts at every boot; each has a condition that is cheap to check."""


def install_units_of_return(prefix: Prefix) -> bool:
    """Copy every unit of this folder to where systemd reads it.

    Args:
        prefix: a whole machine.

    Returns:
        Whether a unit was changed, so that systemd has to read it again.
    """
    make_folder(prefix.units)
    changed = [write_file(prefix.units / source.name, source.read_bytes()) for source in sorted(UNITS.iterdir())]
    return any(changed)
