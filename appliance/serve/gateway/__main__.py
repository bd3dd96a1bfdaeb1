"""Alias of `appliance.serve.gateway.server`: the name by which it is started (`appliance.entry_points`)."""

from __future__ import annotations

from appliance.serve.gateway.server import main

if __name__ == "__main__":
    main()
