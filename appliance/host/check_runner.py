"""Alias of `appliance.host.playbook.ansible_check`: the name by which it is started (`appliance.entry_points`)."""

from __future__ import annotations

import sys

from appliance.host.playbook.ansible_check import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
