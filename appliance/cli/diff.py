"""`appliance diff`: what differs between two bundles, and what a delta carries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.console.columns import labelled, size
from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal

if TYPE_CHECKING:
    from appliance.builder.compare.bundles import Difference, Differences

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
SHOWN = 40
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
    """Show what differs between the bundles OLD and NEW, and what is carried to a host that has OLD.

    Both are verified down to their list of files; the big bytes are not read.

    \b
    Example:
      appliance diff dist/smollm2-1.0.0 dist/smollm2-1.1.0 --workspace ~/appliance-workspace
    """
    from dataclasses import asdict

    from appliance.builder.compare.bundles import compare
    from appliance.builder.compare.inspection import inspect
    from appliance.cli.console.clock import utc_now
    from appliance.host.tree.prefix import Prefix
    from appliance.host.trust.root_choice import choose_root
    from bundles.bundle import open_bundle
    from bundles.oci.layout import Layout
    from signing.floors import Floors

    root = choose_root(trust, Prefix.at(prefix or Path("/")), workspace)
    before, after = (open_bundle(path, root, Floors(), utc_now()) for path in (old, new))
    told = [inspect(Layout(path), found.value.contents) for path, found in ((old, before), (new, after))]
    found = compare(before.value, after.value, told[0], told[1])
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
    _files(terminal, found)


def _lines(found: Differences) -> Iterator[str]:
    if not found.files:
        yield "the same files, byte for byte"
    of = f"{size(found.carried_bytes)} of {size(found.size_bytes)}, in {found.carried_blobs} blobs"
    yield from labelled("a delta", f"{of}; {size(found.documents_bytes)} of it for the list of files itself")
    for label, differences in (
        ("needs", found.needs),
        ("models", found.models),
        ("packages", found.packages),
        ("licences", found.licences),
    ):
        if differences:
            yield ""
            yield from labelled(label, [_words(one) for one in differences])


def _words(one: Difference) -> str:
    values = " -> ".join(value for value in (one.before, one.after) if value)
    # The start of a digest is enough to see that it is another; the whole one is in the answer of --json.
    return f"{SIGNS[one.what]} {one.name}: {_DIGEST.sub('...', values)}"


def _files(terminal: Terminal, found: Differences) -> None:
    if not found.files:
        return
    terminal.answer("")
    ordered = sorted(found.files, key=lambda one: (-one.carried, one.name))
    terminal.table(
        ("  carried", "", "file"), [(f"{one.carried:>9}", SIGNS[one.what], one.name) for one in ordered[:SHOWN]]
    )
    if len(ordered) > SHOWN:
        terminal.answer(f"and {len(ordered) - SHOWN} more, all in the answer of --json")
