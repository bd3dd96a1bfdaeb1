"""`appliance stick check`: what a set of sticks holds, what is missing or damaged, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from appliance.cli.bundle_argument import open_named_media
from appliance.cli.console.columns import LABEL, labelled
from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.prefix import Prefix
from appliance.host.release.held_chunks import held_chunks
from bundles.chunks.check import files_by_chunk
from bundles.oci.litter import beside
from bundles.report import escape, format_size
from bundles.stick.check import BundleState, MediumState, SetState, check_set, describe_state, next_steps
from bundles.stick.ranges import format_numbers

MAX_DAMAGED_SHOWN = 20


@click.command("check")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@trust_option
@prefix_option
@named_workspace_option
@json_option
@pass_terminal
def check(
    terminal: Terminal,
    paths: tuple[Path, ...],
    trust: Path | None,
    prefix: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Compare every byte of the sticks at PATH..., and show what is there, missing and damaged.

    Give all sticks of a set that are plugged in. Each damaged blob is named with its file and model. What is missing is
    shown as short ranges with a check word, to be read out to the sender. With the parity stick of the set, the blobs
    of one missing stick are rebuilt and compared, too. What a delta leaves out is hashed on this host. Nothing is
    written.

    Exit 0: every blob is here. 3: damaged, write that stick again. 4: not trusted, stop. 5: another stick is needed.

    \b
    Example:
      appliance stick check /media/stick-1 /media/stick-2 --workspace ~/appliance-workspace
    """
    media = open_named_media(paths, trust, prefix, workspace, terminal.message)
    if any(found.evidence.is_development for found in media.bundles):
        terminal.development()
    with terminal.progress() as on_progress:
        is_part = any(media.source.missing(found.value) for found in media.bundles)
        seeds = held_chunks(Prefix.at(prefix or Path("/"))) if is_part else {}
        state = check_set(media, on_progress, seeds)
    if as_json:
        terminal.answer_json(describe_state(state))
    else:
        for line in _lines(state):
            terminal.answer(line)
    if state.error is not None:
        raise state.error


def _lines(state: SetState) -> Iterator[str]:
    for medium in state.media:
        yield from labelled("medium", _medium(medium))
    for bundle in state.bundles:
        yield from labelled("bundle", [bundle.bundle.label, f"manifest {bundle.bundle.manifest}"])
        yield from labelled("present", _present(bundle))
        if bundle.held:
            yield from labelled("delta", f"{len(bundle.held)} blobs are on no stick; this host holds them, as signed")
        if bundle.missing:
            yield from labelled("missing", _missing(bundle))
        if damaged := _damaged(bundle, state):
            yield from labelled("damaged", damaged)
        if bundle.wanted:
            yield f"{'read out':<{LABEL}}{bundle.wanted}"
    # A command is never wrapped: it is copied whole.
    for at, step in enumerate(next_steps(state)):
        yield f"{'next' if at == 0 else '':<{LABEL}}{step}"


def _medium(one: MediumState) -> list[str]:
    lines = [f"{one.label}: {one.blobs} blobs, {format_size(one.size_bytes)}{', and the parity' * one.has_parity}"]
    if one.error is not None:
        lines.append(f"FAULT: {one.error}")
    if names := beside(one.layout):
        lines.append(f"beside the bundle: {', '.join(map(escape, names))}; never opened")
    return lines


def _present(one: BundleState) -> str:
    size = format_size(sum(chunk.size for chunk in one.present))
    rebuilt = f"; {len(one.rebuilt)} of them rebuilt from the parity" if one.rebuilt else ""
    return f"{len(one.present)} of {len(one.bundle.blobs)} blobs, {size}{rebuilt}"


def _missing(one: BundleState) -> str:
    size = format_size(sum(chunk.size for chunk in one.missing))
    where = f"; on stick {', '.join(map(str, one.sticks))}" if one.sticks else "; on no stick that is known here"
    return f"{len(one.missing)} blobs, {size}{where}"


def _damaged(one: BundleState, state: SetState) -> list[str]:
    users = files_by_chunk(one.bundle)
    models = {model.path: model.name for model in one.bundle.contents.models}
    lines = []
    for number, chunk in enumerate(one.bundle.blobs, 1):
        media = [medium for medium in state.media if chunk in medium.faults]
        if not media:
            continue
        names = [f"{path} (model {models[path]})" if path in models else path for path in users.get(chunk, ())]
        where = ", ".join(medium.label for medium in media)
        whole = "; a right copy is here, too" if chunk in one.present else ""
        lines.append(f"blob {format_numbers([number])}: {', '.join(names[:3])}, on {where}{whole}")
    more = len(lines) - MAX_DAMAGED_SHOWN
    return lines[:MAX_DAMAGED_SHOWN] + ([f"and {more} more"] if more > 0 else [])
