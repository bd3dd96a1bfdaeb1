"""Alias of `appliance.serve.unit_programs.scrub`: the name by which it is started (`appliance.entry_points`)."""

from __future__ import annotations

import sys

from appliance.serve.unit_programs.scrub import main

if __name__ == "__main__":
    sys.exit(main())
