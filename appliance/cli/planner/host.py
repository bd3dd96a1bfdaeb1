"""`appliance host`: show what this machine is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from appliance.cli.console.columns import labelled
from appliance.cli.console.figures import format_memory
from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from appliance.cli.planner.host_card import read_card
from appliance.cli.planner.host_check import check
from appliance.cli.planner.runtime_source import runtime_of_bundle, runtime_of_release
from appliance.host.machine.card import Card, Variant, card_schema, card_value
from appliance.host.machine.cpu import cpu_flags
from appliance.host.runtime.unpacked import UnpackedRuntime
from appliance.host.runtime.variant_verdicts import try_variants
from bundles.progress import OnProgress
from bundles.report import format_size
from signing.errors import ApplianceError, HostUnfitError


@click.group("host", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Show what this machine is, and whether it can take a bundle.

    \b
    Example:
      appliance host probe
      appliance host check /media/stick
    """


command.add_command(check)


@command.command("probe")
@click.option(
    "--with",
    "bundle",
    metavar="BUNDLE",
    type=click.Path(file_okay=False, path_type=Path),
    help="Try the CPU variants of this bundle or stick; without it, those of the installed release.",
)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a card instead.")
@prefix_option
@trust_option
@named_workspace_option
@json_option
@pass_terminal
def probe(
    terminal: Terminal,
    bundle: Path | None,
    schema: bool,
    prefix: Path | None,
    trust: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Show what this machine is: its card.

    Nothing is changed and no network is used. What this user cannot see is listed. CPU variants are tried where a
    release is installed or --with names a bundle; otherwise the processor's flags decide. --json prints card.json, for
    `appliance plan --host`.

    \b
    Example:
      appliance host probe --json >card.json
    """
    if schema:
        terminal.answer_json(card_schema())
        return
    with terminal.progress() as on_progress:
        variants, note = _try_variants(terminal, bundle, prefix, trust, workspace, on_progress)
    card = read_card(variants)
    if as_json:
        terminal.answer_json(card_value(card))
        return
    for label, text in _lines(card):
        for line in labelled(label, text):
            terminal.answer(line)
    if note:
        terminal.message(note)


def _try_variants(
    terminal: Terminal,
    bundle: Path | None,
    prefix: Path | None,
    trust: Path | None,
    workspace: Path | None,
    on_progress: OnProgress,
) -> tuple[tuple[Variant, ...], str]:
    with tempfile.TemporaryDirectory(prefix="appliance-probe-") as name:
        if bundle is not None:
            given = runtime_of_bundle(bundle, trust, prefix, workspace, Path(name), terminal.message, with_model=True)
            assert given.model is not None  # with_model
            return _verdicts(given.runtime, given.model, on_progress)
        try:
            found = runtime_of_release(prefix, Path(name), with_model=True)
        except (ApplianceError, OSError) as error:
            return (), f"the installed release cannot be tried: {error}"
        if found is None or found.model is None:
            return (), "no release is installed: CPU variants follow from the processor's flags, and were not tried"
        return _verdicts(found.runtime, found.model, on_progress)


def _verdicts(runtime: UnpackedRuntime, model: Path, on_progress: OnProgress) -> tuple[tuple[Variant, ...], str]:
    try:
        return try_variants(runtime, model, cpu_flags(), on_progress), ""
    except HostUnfitError as error:
        return (), f"CPU variants follow from the processor's flags, since none could be tried: {error}"


def _lines(card: Card) -> list[tuple[str, str]]:
    system, cpu, memory, kernel = card.system, card.cpu, card.memory, card.kernel
    quota = "" if cpu.quota_millicores is None else f", {cpu.quota_millicores / 1000:g} by quota"
    lines = [
        ("system", f"{system.name or system.os}, {system.arch}, kernel {system.kernel}"),
        ("systemd", system.systemd or "does not run this machine"),
        ("libraries", f"glibc {system.glibc}, GLIBCXX {system.glibcxx}, CXXABI {system.cxxabi}"),
        ("processor", cpu.model or "unknown"),
        ("cores", f"{cpu.cores}, {cpu.allowed_cores} allowed{quota}: an engine gets {cpu.engine_threads} threads"),
        *_variant_lines(cpu.variants),
        ("memory", f"{format_memory(memory.ram_bytes)}, {format_memory(memory.available_bytes)} available"),
    ]
    if memory.limit_bytes is not None:
        lines.append(("", f"{format_memory(memory.limit_bytes)} left by control groups"))
    for gpu in card.gpus:
        size = "memory unseen" if gpu.memory_bytes is None else format_memory(gpu.memory_bytes)
        name = gpu.name or f"{gpu.vendor}:{gpu.device}"
        lines.append(("gpu", f"{gpu.address} {name}, {size}, driver {gpu.driver or 'none'}"))
    for disk in card.disks:
        seal = {True: "fs-verity", False: "no fs-verity", None: "fs-verity unseen"}[disk.has_fsverity]
        state = ", read-only" if disk.is_read_only else ""
        room = f"{format_size(disk.free_bytes)} of {format_size(disk.size_bytes)} free"
        lines.append(("disk", f"{disk.mount} {disk.filesystem}, {room}, {seal}{state}"))
    groups = "none" if kernel.cgroup_version is None else f"version {kernel.cgroup_version}"
    lines.append(("isolation", kernel.isolation))
    seals = "yes" if kernel.has_memfd_seals else "no"
    lines.append(("kernel", f"control groups {groups}, sealed memory {seals}"))
    yes = {True: "yes", False: "no", None: "unseen"}
    lines.append(("", f"fs-verity {yes[kernel.has_fsverity]}, device-mapper {yes[kernel.has_device_mapper]}"))
    lines.append(("clock", f"{card.clock.time}, synchronised: {yes[card.clock.is_synchronised]}"))
    return lines + [("unseen" if number == 0 else "", text) for number, text in enumerate(card.unseen)]


def _variant_lines(variants: Sequence[Variant]) -> list[tuple[str, str]]:
    fit = [variant for variant in variants if variant.is_fit]
    hows = " and ".join(sorted({variant.how for variant in fit})) or "none"
    lines = [("variants", f"{hows}: {' '.join(variant.name for variant in fit)}")]
    unfit = [variant for variant in variants if not variant.is_fit]
    return lines + [("", f"not {variant.name} ({variant.how}): {variant.reason}") for variant in unfit]
