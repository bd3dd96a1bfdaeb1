"""The program of the scrub's unit: it reads again what serves. Started by systemd, by its timer:
`/opt/appliance/current/venv/bin/python -I -B -m appliance.serve.scrub_unit`.

Owns nothing but the start: `appliance.serve.supervisor.scrubbing` has the rules. It runs as the user of the engines, so
that it can end an engine and nothing else; the unit gives it idle time of processor and disk.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from appliance.clock import utc_now
from appliance.host.layout.prefix import Prefix
from appliance.host.process.journal import service_sink
from appliance.host.release.release import open_current
from appliance.serve.supervisor.scrubbing import scrub_release
from appliance.serve.unit_programs import startup
from signing.errors import worst


def start(prefix: Prefix) -> None:
    """Scrub the release that serves.

    Args:
        prefix: a whole machine.

    Raises:
        ApplianceError: a fault was found, and its model is stopped; or the release cannot be opened.
        OSError: an incident could not be recorded.
    """
    release = open_current(prefix, utc_now())
    names = [model.name for model in release.contents.models]
    report = scrub_release(release, names, utc_now, service_sink(os.environ, sys.stderr))
    if errors := report.errors():
        raise worst(errors)


def main() -> int:
    """Entry point of the unit."""
    return startup.run(lambda: start(Prefix(Path("/"))))


if __name__ == "__main__":
    sys.exit(main())
