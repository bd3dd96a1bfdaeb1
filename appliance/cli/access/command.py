"""`appliance access`: who may use what is served."""

from __future__ import annotations

import click

from appliance.cli.access.change import revoke, rotate
from appliance.cli.access.grant import grant
from appliance.cli.access.listing import listing, show
from appliance.cli.access.usage import usage


@click.group("access", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Grant, show and revoke users' keys; show usage.

    \b
    Example:
      appliance access grant ann --expires 90d
    """


for one in (grant, listing, show, rotate, revoke, usage):
    command.add_command(one)
