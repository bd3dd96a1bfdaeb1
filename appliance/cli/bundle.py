"""`appliance bundle`: carry a bundle through a registry."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.console.columns import size
from appliance.cli.console.options import json_option, named_workspace_option, pass_terminal, trust_option
from appliance.cli.console.terminal import Terminal

credentials_option = click.option(
    "--credentials",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The login for the registry, as `skopeo login --authfile FILE` writes it; readable by its owner only.",
)


@click.group("bundle", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Carry a bundle through a registry, where one is at hand on either side of the gap.

    \b
    Example:
      appliance bundle export dist/smollm2-1.0.0 registry.example/models/smollm2
    """


@command.command("export")
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("registry")
@credentials_option
@trust_option
@named_workspace_option
@json_option
@pass_terminal
def export(
    terminal: Terminal,
    bundle: Path,
    registry: str,
    credentials: Path | None,
    trust: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Send BUNDLE to REGISTRY, written HOST/NAME[:TAG]; without a tag, the bundle's version is the tag.

    Its signatures are verified first. Only blobs that the registry lacks are sent, so an interrupted export goes on
    where it stopped. Metadata, signatures and BOOT go as a second artifact that refers to the bundle. Plain http is
    for a registry on this machine alone.

    \b
    Example:
      appliance bundle export dist/smollm2-1.0.0 registry.example/models/smollm2 --credentials ~/auth.json
    """
    from appliance.builder.registry.client import Registry
    from appliance.builder.registry.credentials import read_credentials
    from appliance.builder.registry.push import export_bundle
    from appliance.builder.registry.reference import parse_reference
    from appliance.cli.console.clock import utc_now
    from appliance.host.tree.prefix import Prefix
    from appliance.host.trust.root_choice import choose_root
    from bundles.bundle import open_bundle
    from bundles.oci.layout import Layout
    from signing.floors import Floors

    place = parse_reference(registry)
    found = open_bundle(bundle, choose_root(trust, Prefix.at(Path("/")), workspace), Floors(), utc_now())
    place = place.with_tag(found.value.contents.version)
    login = read_credentials(credentials, place.host) if credentials else None
    if found.evidence.is_development:
        terminal.development()
    with Registry(place, login, pushes=True) as connection, terminal.progress() as on_progress:
        done = export_bundle(Layout(bundle), found.value, connection, on_progress)
    if as_json:
        sent = {"blobs": done.blobs, "sent": done.sent, "sent_bytes": done.sent_bytes, "evidence": done.evidence}
        terminal.answer_json({"registry": str(place), "manifest": found.value.manifest, **sent})
        return
    terminal.answer(f"{found.value.label}  manifest {found.value.manifest}")
    terminal.answer(f"sent {done.sent} of {done.blobs} blobs, {size(done.sent_bytes)}, to {place}")


@command.command("import")
@click.argument("registry")
@click.argument("destination", type=click.Path(path_type=Path))
@credentials_option
@trust_option
@named_workspace_option
@json_option
@pass_terminal
def import_(
    terminal: Terminal,
    registry: str,
    destination: Path,
    credentials: Path | None,
    trust: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Fetch the bundle at REGISTRY, written HOST/NAME:TAG, into the new folder DESTINATION, and verify all of it.

    The registry is believed in nothing: the chain of trust is checked before the big bytes are fetched, and each blob
    before it is written. An interrupted import goes on where it stopped.

    \b
    Example:
      appliance bundle import registry.example/models/smollm2:1.0.0 /srv/smollm2-1.0.0 --trust root.json
    """
    from appliance.builder.registry.client import Registry
    from appliance.builder.registry.credentials import read_credentials
    from appliance.builder.registry.pull import import_bundle
    from appliance.builder.registry.reference import parse_reference
    from appliance.cli.console.clock import utc_now
    from appliance.host.tree.prefix import Prefix
    from appliance.host.trust.root_choice import choose_root
    from signing.errors import UsageError

    place = parse_reference(registry)
    if not place.tag:
        raise UsageError("registry.reference", registry, expected="HOST/NAME:TAG", found="no tag")
    root = choose_root(trust, Prefix.at(Path("/")), workspace)
    login = read_credentials(credentials, place.host) if credentials else None
    with Registry(place, login) as connection, terminal.progress() as on_progress:
        done = import_bundle(connection, destination, root, utc_now(), on_progress)
    if done.bundle.evidence.is_development:
        terminal.development()
    bundle = done.bundle.value
    if as_json:
        told = {"bundle": str(done.path), "fetched": done.fetched, "fetched_bytes": done.fetched_bytes}
        terminal.answer_json({"registry": str(place), "manifest": bundle.manifest, **told})
        return
    terminal.answer(f"{bundle.label}  manifest {bundle.manifest}")
    terminal.answer(f"fetched {done.fetched} blobs, {size(done.fetched_bytes)}, into {done.path}: as signed")
