"""`appliance diff`: what differs between two bundles, and what a delta carries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from appliance.builder.compare.bundles import Difference, Differences, compare
from appliance.builder.compare.inspection import inspect
from appliance.cli.bundle_argument import open_named_bundle
from appliance.cli.console.columns import labelled
from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from bundles.oci.layout import Layout
from bundles.report import format_size

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
MAX_FILES_SHOWN = 40
_DIGEST = re.compile(r"(?<=\b[0-9a-f]{12})[0-9a-f]{52}\b")


@click.command("diff")
@click.argument("old", type=click.Path(exists=True, path_type=Path))
@click.argument("new", type=click.Path(exists=True, path_type=Path))
@trust_option
@prefix_option
@named_workspace_option
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    old: Path,
    new: Path,
    trust: Path | None,
    prefix: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Show what differs between the bundles OLD and NEW, and what a delta carries.

    The delta is for a host that has OLD. Both bundles are verified down to their list of files; the large files are not
    read.

    \b
    Example:
      appliance diff dist/smollm2-1.0.0 dist/smollm2-1.1.0 --workspace ~/appliance-workspace
    """
    before, after = (open_named_bundle(path, trust, prefix, workspace, terminal.message) for path in (old, new))
    inspected = [inspect(Layout(path), found.value.contents) for path, found in ((old, before), (new, after))]
    found = compare(before.value, after.value, inspected[0], inspected[1])
    if after.evidence.is_development:
        terminal.development()
    names = {"old": before.value.label, "new": after.value.label}
    if as_json:
        manifests = {"old_manifest": before.value.manifest, "new_manifest": after.value.manifest}
        terminal.answer_json({**names, **manifests, **asdict(found)})
        return
    terminal.answer(f"{names['old']} -> {names['new']}")
    for line in _lines(found):
        terminal.answer(line)
    _show_files(terminal, found)


def _lines(found: Differences) -> Iterator[str]:
    if not found.files:
        yield "the same files: both were signed with the same digests"
    carried = f"{format_size(found.carried_bytes)} of {format_size(found.size_bytes)}, in {found.carried_blobs} blobs"
    yield from labelled(
        "a delta", f"{carried}; {format_size(found.documents_bytes)} of it for the list of files itself"
    )
    for label, differences in (
        ("needs", found.needs),
        ("models", found.models),
        ("packages", found.packages),
        ("licences", found.licences),
    ):
        if differences:
            yield ""
            yield from labelled(label, [_describe(one) for one in differences])


def _describe(one: Difference) -> str:
    values = " -> ".join(value for value in (one.before, one.after) if value)
    # The start of a digest is enough to see that it is another; the whole one is in the answer of --json.
    return f"{SIGNS[one.what]} {one.name}: {_DIGEST.sub('...', values)}"


def _show_files(terminal: Terminal, found: Differences) -> None:
    if not found.files:
        return
    terminal.answer("")
    ordered = sorted(found.files, key=lambda one: (-one.carried, one.name))
    shown, more = ordered[:MAX_FILES_SHOWN], len(ordered) - MAX_FILES_SHOWN
    terminal.table(("  carried", "", "file"), [(f"{one.carried:>9}", SIGNS[one.what], one.name) for one in shown])
    if more > 0:
        terminal.answer(f"and {more} more, all in the answer of --json")
