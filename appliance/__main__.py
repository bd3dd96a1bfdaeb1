"""`python -m appliance`: starts the program where no console script is installed, as in a release."""

from __future__ import annotations

from appliance.cli.main import main

if __name__ == "__main__":
    main()
