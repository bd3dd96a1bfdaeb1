"""Alias of `appliance.serve.units.engine`: the name by which it is started (`appliance.entry_points`)."""

from __future__ import annotations

import sys

from appliance.serve.units.engine import main

if __name__ == "__main__":
    sys.exit(main())
