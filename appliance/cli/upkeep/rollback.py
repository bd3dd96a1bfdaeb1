"""`appliance rollback`: a person goes back to another installed release."""

from __future__ import annotations

import os
from pathlib import Path

import click

from appliance.cli.console.options import prefix_option
from appliance.host.change.rollback_program import rollback_argv
from appliance.host.layout.prefix import Prefix
from signing.errors import UsageError


@click.command("rollback")
@click.argument("release", required=False)
@prefix_option
def command(release: str | None, prefix: Path | None) -> None:
    """Go back to an installed release: RELEASE, or the one before.

    The release's own site.yaml and services come back with it. Before anything is touched, a release is refused that is
    incomplete (9), revoked by newer metadata (4), or that cannot read the stored state of this host (6). Where users do
    not reach the release, the one that served before serves again (7).

    The work is done by a shell script, which needs no Python and no free disk: `sh /opt/appliance/rollback`. Use that
    where this command does not start.

    \b
    Example:
      appliance rollback
      appliance rollback 1.0.0-3f2a9c0b7d15
    """
    host = Prefix.at(prefix or Path("/"))
    if not host.releases.is_dir():
        raise UsageError(
            "release.none",
            str(host.root),
            expected="an installed release",
            found="none",
            hint=f"appliance install SOURCE{host.option}",
        )
    os.execv("/bin/sh", rollback_argv(host, release))
