"""The card of the machine that this process runs on, and the system's tools that it needs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from appliance import clock
from appliance.host.machine.card import Card, Variant
from appliance.host.machine.probe import probe

_TOOL_TIMEOUT_S = 20.0


def read_card(variants: Sequence[Variant] = ()) -> Card:
    """Describe this machine, as far as this user can see it.

    Args:
        variants: verdicts of a trial of CPU variants; without any, the processor's flags give them.
    """
    return probe(clock.utc_now(), run_tool, variants)


def run_tool(command: Sequence[str]) -> str:
    """The output of a system's tool; empty where the tool is missing, fails, or takes too long."""
    if not os.access(command[0], os.X_OK):
        return ""
    try:
        done = subprocess.run(
            list(command),
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TOOL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
