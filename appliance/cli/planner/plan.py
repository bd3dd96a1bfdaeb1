"""`appliance plan`: whether models fit into a host's memory, and what an install would change there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from appliance.cli.console.figures import format_memory
from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from appliance.cli.console.waiting import select_option, wait_option, waiting_of
from appliance.cli.planner.host_card import read_card
from appliance.cli.planner.plan_install import install_lines, plan_elsewhere, plan_here
from appliance.cli.planner.plan_source import PlanOptions, PlanSource, read_source
from appliance.host.install.planning.plan_details import PlanDetails
from appliance.host.install.planning.plan_file import KEY, plan_value
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import MAX_CARD_BYTES, Card, parse_card
from appliance.host.models.fit import Fit, ModelWorkload, fit
from appliance.host.preflight.finding import refuse
from appliance.host.runtime.memory_probe import probe_memory
from appliance.host.site.config import NO_SITE, SiteConfig, read_site
from bundles.gguf.kind import CHAT, most_context, task_of
from bundles.gguf.memory import KV_TYPES, MemoryNeed, estimate
from bundles.report import format_size
from signing.errors import ApplianceError, HostUnfitError, UsageError

MAX_DEVIATION = 0.05
"""How far the formula may be from what the runtime measures, as a part of the whole, before a warning."""


@click.command("plan")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--host",
    "card_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The card of the host, from `appliance host probe --json`; without it, this machine.",
)
@click.option(
    "--context",
    metavar="TOKENS",
    type=click.IntRange(1, 1 << 24),
    help="Tokens of one conversation; without it, what SOURCE states.",
)
@click.option(
    "--slots",
    metavar="COUNT",
    type=click.IntRange(1, 256),
    help="Conversations at the same time; without it, what SOURCE states.",
)
@click.option(
    "--kv-type", type=click.Choice(list(KV_TYPES)), default="f16", show_default=True, help="How the KV cache is stored."
)
@click.option("--older", is_flag=True, help="Plan as `install --older`: a bundle that is older than what serves.")
@prefix_option
@trust_option
@named_workspace_option
@select_option
@wait_option
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    sources: tuple[Path, ...],
    card_path: Path | None,
    context: int | None,
    slots: int | None,
    kv_type: str,
    older: bool,
    prefix: Path | None,
    trust: Path | None,
    workspace: Path | None,
    select: str,
    wait: bool | None,
    as_json: bool,
) -> None:
    """Show how much memory the models of SOURCE need, and what an install would change.

    SOURCE is a GGUF file, a recipe whose models are in the cache, a bundle, or a stick; several are sticks that
    together hold a bundle. The host is this machine, or the one whose card `appliance host probe --json` printed there.

    Of a bundle or a stick it also shows what is copied, the space on each file system, packages, files, units, users,
    the port, the memory during the switch, how long users wait, the time, and what cannot be undone. Nothing is
    changed. With --json it is a plan for `appliance install --plan`. Exit code 6: it does not fit.

    \b
    Example:
      appliance plan bundles/recipes/smollm2.yaml --host card.json
      appliance plan /media/stick-1 /media/stick-2
      appliance plan /media/stick --json >plan.json
    """
    card = _read_card(card_path)
    waiting = waiting_of(terminal, wait)
    options = PlanOptions(context, slots, kv_type, prefix, trust, workspace, terminal.message, select, waiting)
    with tempfile.TemporaryDirectory(prefix="appliance-plan-") as scratch:
        read = read_source(sources, options, Path(scratch))
        measured = _measure(read, terminal)
        if card_path is None:
            details = plan_here(read, prefix, Path(scratch), may_go_back=older)
            card = _card_of_upgrade(card, details)
        else:
            details = plan_elsewhere(read, card, prefix, Path(scratch))
    asked = _workloads(read, read_site(Prefix.at(prefix or Path("/")).site_file) if card_path is None else NO_SITE)
    formula = [one.need for one in asked]
    needs = [found or need for found, need in zip(measured, formula, strict=True)]
    result = fit(asked, card, needs)
    if as_json:
        install = {KEY: plan_value(details)} if details else {}
        answer = _answer(asked, formula, measured, result)
        terminal.answer_json({**answer, "parity_bytes": read.parity_bytes, **install})
    else:
        _show(terminal, asked, needs, measured, result)
        if read.parity_bytes:
            terminal.answer(f"the parity adds {format_size(read.parity_bytes)} to the media, and nothing to the host")
        for line in install_lines(details) if details else ():
            terminal.answer(line)
    if not result.fits:
        raise _does_not_fit(sources, result)
    if details:
        refuse(details.findings)


def _workloads(read: PlanSource, site: SiteConfig) -> list[ModelWorkload]:
    on_demand = site.on_demand(head.name for head, _ in read.models)
    return [ModelWorkload(head.name, head.header, load, None, head.name in on_demand) for head, load in read.models]


def _read_card(path: Path | None) -> Card:
    if path is None:
        return read_card()
    try:
        with path.open("rb") as file:
            return parse_card(file.read(MAX_CARD_BYTES + 1), str(path))
    except OSError as error:
        hint = "make it on the host: appliance host probe --json >card.json"
        raise UsageError("card.missing", str(path), expected="a card", found=str(error.strerror), hint=hint) from None


def _card_of_upgrade(card: Card, details: PlanDetails | None) -> Card:
    if details is None or details.plan.before is None:
        return card
    # The engines that serve in the same control group end in the switch; the install judges in the same way.
    return replace(card, memory=replace(card.memory, limit_bytes=None))


def _measure(source: PlanSource, terminal: Terminal) -> list[MemoryNeed | None]:
    """What the runtime itself allocates for each model; None where there is no runtime or it cannot open the model."""
    if isinstance(source.runtime, str):
        terminal.message(f"no runtime was found ({source.runtime}): computed by the formula alone")
        return [None] * len(source.models)
    runtime = source.runtime.runtime()
    found: list[MemoryNeed | None] = []
    for head, load in source.models:
        need = estimate(head.header, load)
        try:
            measured = probe_memory(runtime, head.data, head.header.file_size, load)
        except ApplianceError as error:
            terminal.message(f"warning: {head.name}: the runtime cannot open this model: {error.found}")
            found.append(None)
            continue
        found.append(exact := replace(need, kv=measured.kv, compute=measured.compute))
        if abs(need.total - exact.total) > MAX_DEVIATION * exact.total:
            computed = format_memory(need.total)
            terminal.message(f"warning: {head.name}: the formula gives {computed}; the runtime's own figure counts")
    return found


def _show(
    terminal: Terminal,
    asked: Sequence[ModelWorkload],
    needs: Sequence[MemoryNeed],
    measured: Sequence[MemoryNeed | None],
    answer: Fit,
) -> None:
    for one, need, found in zip(asked, needs, measured, strict=True):
        header, load = one.header, one.workload
        task = task_of(header)
        size = f"{header.parameters / 1e6:.0f} M"
        terminal.answer(f"{one.name}: {header.architecture} {header.quantisation}, {size}, for {task}")
        copies = f", and {format_memory(need.repacked)} for copies in another order" if need.repacked else ""
        terminal.answer(f"  weights    {format_memory(need.weights)}{copies}")
        terminal.answer(
            f"  KV cache   {format_memory(need.kv)}: {load.slots} slots of {load.context} tokens, {load.kv_type}"
        )
        most = most_context(header, task)
        if most and load.context > most:
            terminal.message(f"warning: {one.name} was trained for a context of {most} tokens")
        if task == CHAT and not header.template:
            terminal.message(f"{one.name} has no chat template: it completes text")
        terminal.answer(f"  computing  {format_memory(need.compute)}, program {format_memory(need.program)}")
        doubt = "" if found or need.is_compared else "; this architecture was never compared"
        terminal.answer(
            f"  total      {format_memory(need.total)}, " + ("by the runtime" if found else f"by the formula{doubt}")
        )
    verdict = "fits" if answer.fits else "does not fit"
    terminal.answer(f"needs {format_memory(answer.total)}; the host can give {format_memory(answer.budget)}: {verdict}")
    if answer.fits:
        terminal.answer(f"would still fit: {answer.most_slots} slots, or a context of {answer.longest_context} tokens")
    for number, other in enumerate(answer.alternatives, 1):
        ends = "fits" if other.fits else "does not fit either"
        terminal.answer(f"  {number}. {other.text}: {format_memory(other.total)}, {ends}")
    for gpu in answer.gpus:
        count = "memory unseen" if gpu.layers is None else f"{gpu.layers} of {gpu.of_layers} layers"
        terminal.answer(f"gpu {gpu.address}: {gpu.model}: {count}")


def _answer(
    asked: Sequence[ModelWorkload], formula: Sequence[MemoryNeed], measured: Sequence[MemoryNeed | None], answer: Fit
) -> dict[str, Any]:
    models = [
        {
            "name": one.name,
            "architecture": one.header.architecture,
            **asdict(one.workload),
            "formula": {**asdict(need), "total": need.total},
            "runtime": None if found is None else {"kv": found.kv, "compute": found.compute, "total": found.total},
        }
        for one, need, found in zip(asked, formula, measured, strict=True)
    ]
    return {"models": models, "fits": answer.fits, **asdict(answer)}


def _does_not_fit(sources: Sequence[Path], answer: Fit) -> Exception:
    fitting = next((other.text for other in answer.alternatives if other.fits), "")
    return HostUnfitError(
        "plan.does-not-fit",
        ", ".join(map(str, sources)),
        expected=f"at most {answer.budget} bytes of memory",
        found=f"a need of {answer.total}",
        hint=f"ask for less: {fitting}" if fitting else "choose a smaller model, or a host with more memory",
    )
