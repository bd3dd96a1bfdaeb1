"""`appliance stick`: put a bundle on a medium that is carried by hand."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.bundle_argument import open_named_bundle
from appliance.cli.console.options import json_option, named_workspace_option, pass_terminal, trust_option
from appliance.cli.console.terminal import Terminal
from appliance.cli.courier.stick_check import check
from bundles.oci.layout import Layout
from bundles.stick.writer import write_stick
from signing.errors import UsageError


@click.group("stick", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Write a bundle to a stick.

    \b
    Example:
      appliance stick write dist/smollm2-1.0.0 /media/stick --workspace ~/appliance-workspace
    """


command.add_command(check)


@command.command("write")
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("destination", type=click.Path(file_okay=False, path_type=Path))
@trust_option
@named_workspace_option
@json_option
@pass_terminal
def write(
    terminal: Terminal, bundle: Path, destination: Path, trust: Path | None, workspace: Path | None, as_json: bool
) -> None:
    """Write BUNDLE to the folder DESTINATION, then read every byte back.

    The bundle's signatures are verified first. Only what the stick lacks is written, so an interrupted write continues
    where it stopped.

    \b
    Example:
      appliance stick write dist/smollm2-1.0.0 /media/stick --workspace ~/appliance-workspace
    """
    _refuse_workspace(destination)
    found = open_named_bundle(bundle, trust, None, workspace, terminal.message)
    if found.evidence.is_development:
        terminal.development()
    with terminal.progress() as on_progress:
        written = write_stick(Layout(bundle), found, destination, on_progress)
    for one in written.beside.attested:
        if not one.counts:
            terminal.message(f"notice: {one.path} does not count: its key was rotated out")
    answer = {
        "manifest": found.value.manifest,
        "blobs_written": written.blobs,
        "bytes_written": written.size_bytes,
        "blobs_checked": written.checked.blobs,
        "bytes_checked": written.checked.size_bytes,
    }
    if as_json:
        terminal.answer_json(answer)
        return
    terminal.answer(f"{found.value.label}  manifest sha256:{found.value.manifest}")
    terminal.answer(f"written   {written.blobs} blobs, {written.size_bytes} bytes")
    terminal.answer(f"read back {written.checked.blobs} blobs, {written.checked.size_bytes} bytes: as signed")


def _refuse_workspace(destination: Path) -> None:
    # A courier must never carry the private keys.
    if (destination / "keys").is_dir() and (destination / "trust").is_dir():
        raise UsageError(
            "stick.is-workspace",
            str(destination),
            expected="the folder of a stick",
            found="a workspace, which holds private keys",
            hint="give the folder where the stick is mounted",
        )
