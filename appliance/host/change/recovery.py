"""Undoing a switch that was cut off by a kill or a power cut: from the disk alone, in any order of interruptions.

Owns this for programs in Python: the next install, and `appliance serve`. At a boot, the script of
`appliance-recover.service` does the same.

Rules:
- an install in the phase `switching` is undone: the release before gets its configuration back, then `current`;
- a rollback that was cut off is finished, by its own script;
- every other phase is left to what finishes it: `trying` and `committing` to the watch, `removing` and `restoring` to
  their commands;
- the record is removed last, so that a second interruption changes nothing.
"""

from __future__ import annotations

import os

from appliance.host.activation.switch import point_at, target_of
from appliance.host.change.change_file import ROLLBACK, SWITCHING, HostChange, clear_change, read_change
from appliance.host.change.rollback_program import finish_rollback
from appliance.host.change.way_back import restore_configuration
from appliance.host.layout.places import REVOKED_FILE
from appliance.host.layout.prefix import Prefix


def undo_switch(prefix: Prefix) -> HostChange | None:
    """Undo a switch that was cut off; one of a rollback is finished.

    Args:
        prefix: the host; the caller holds its lock.

    Returns:
        The install that was undone; None where none was cut off between the switch and the gate, or where the release
        before may not serve any more: the record then stays until another change replaces it, as at a boot.

    Raises:
        DriftError: the record cannot be read.
        ApplyBrokenError: a rollback cannot be finished.
    """
    change = read_change(prefix)
    if change is None or change.phase != SWITCHING:
        return None
    if change.op == ROLLBACK:
        finish_rollback(prefix)
        return None
    before = prefix.releases / change.before if change.before else None
    if before is not None and (not before.is_dir() or os.path.lexists(before / REVOKED_FILE)):
        return None
    if before is not None:
        restore_configuration(prefix, before)
    point_at(prefix, target_of(prefix, before) if before is not None else None)
    clear_change(prefix)
    return change
