"""Alias of `appliance.host.runtime.memory_probe`: the name by which it is started (`appliance.entry_points`)."""

from __future__ import annotations

import sys

from appliance.host.runtime.memory_probe import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
