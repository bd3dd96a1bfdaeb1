"""Alias of `appliance.host.playbook.role_writer`: the name by which it is started (`appliance.entry_points`)."""

from __future__ import annotations

import sys

from appliance.host.playbook.role_writer import main

if __name__ == "__main__":
    sys.exit(main())
