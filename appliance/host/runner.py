"""Alias of `appliance.host.playbook.ansible_child`: the name by which it is started (`appliance.entry_points`)."""

from __future__ import annotations

import sys

from appliance.host.playbook.ansible_child import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
