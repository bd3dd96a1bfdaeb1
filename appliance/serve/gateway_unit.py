"""Alias of `appliance.serve.units.gateway`: the name by which it is started (`appliance.entry_points`)."""

from __future__ import annotations

import sys

from appliance.serve.units.gateway import main

if __name__ == "__main__":
    sys.exit(main())
