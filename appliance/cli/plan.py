"""`appliance plan`: whether models fit into a host's memory, before anything is carried there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from bundles.gguf.memory import KV_TYPES

if TYPE_CHECKING:
    from appliance.cli.plan_source import Source
    from appliance.host.machine.card import Card
    from appliance.host.models.fit import Fit, PlannedModel
    from bundles.gguf.memory import MemoryNeed

AGREED = 0.05
"""How far the formula may be from what the runtime itself says, as a part of the whole."""


@click.command("plan")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--host", "card_path", metavar="FILE", type=click.Path(path_type=Path), help="A host's card.json.")
@click.option("--context", metavar="TOKENS", type=click.IntRange(1, 1 << 24), help="Of one conversation.")
@click.option("--slots", metavar="COUNT", type=click.IntRange(1, 256), help="Conversations at the same time.")
@click.option("--kv-type", type=click.Choice(list(KV_TYPES)), default="f16", show_default=True, help="Of the KV cache.")
@prefix_option
@trust_option
@named_workspace_option
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    source: Path,
    card_path: Path | None,
    context: int | None,
    slots: int | None,
    kv_type: str,
    prefix: Path | None,
    trust: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Tell how much memory the models of SOURCE need, and what fits.

    SOURCE is a GGUF file, a recipe whose models are in the cache, a bundle, or a stick. The host is this machine, or
    the one whose card `appliance host probe --json` printed there. Nothing is changed. Exit code 6 where it does not
    fit.

    \b
    Example:
      appliance plan bundles/recipes/smollm2.yaml --host card.json
    """
    from appliance.cli.plan_source import Options, read_source
    from appliance.host.models.fit import PlannedModel, fit

    card = _card(card_path)
    options = Options(context, slots, kv_type, prefix, trust, workspace)
    with tempfile.TemporaryDirectory(prefix="appliance-plan-") as scratch:
        read = read_source(source, options, Path(scratch))
        rehearsed = _rehearsed(read, terminal)
    asked = [PlannedModel(head.name, head.header, load) for head, load in read.models]
    formula = [one.need for one in asked]
    needs = [told or need for told, need in zip(rehearsed, formula, strict=True)]
    answer = fit(asked, card, needs)
    if as_json:
        terminal.answer_json(_answer(asked, formula, rehearsed, answer))
    else:
        _show(terminal, asked, needs, rehearsed, answer)
    if not answer.fits:
        raise _does_not_fit(source, answer)


def _card(path: Path | None) -> Card:
    from appliance.cli.console.clock import utc_now
    from appliance.cli.host import run_tool
    from appliance.host.machine.card import MAX_CARD_BYTES, parse_card
    from appliance.host.machine.probe import probe
    from signing.errors import UsageError

    if path is None:
        return probe(utc_now(), run_tool)
    try:
        with path.open("rb") as file:
            return parse_card(file.read(MAX_CARD_BYTES + 1), str(path))
    except OSError as error:
        hint = "make it on the host: appliance host probe --json >card.json"
        raise UsageError("card.missing", str(path), expected="a card", found=str(error.strerror), hint=hint) from None


def _rehearsed(source: Source, terminal: Terminal) -> list[MemoryNeed | None]:
    """What the runtime itself says of each model; None where it was not or could not be asked."""
    from appliance.host.runtime.memory_probe import probe_memory
    from bundles.gguf.memory import estimate
    from signing.errors import ApplianceError

    if isinstance(source.runtime, str):
        terminal.say(f"no runtime is at hand ({source.runtime}): by the formula alone")
        return [None] * len(source.models)
    runtime = source.runtime.runtime()
    found: list[MemoryNeed | None] = []
    for head, load in source.models:
        need = estimate(head.header, load)
        try:
            told = probe_memory(runtime, head.data, head.header.file_size, load)
        except ApplianceError as error:
            terminal.say(f"warning: {head.name}: the runtime cannot open this model: {error.found}")
            found.append(None)
            continue
        found.append(right := replace(need, kv=told.kv, compute=told.compute))
        if abs(need.total - right.total) > AGREED * right.total:
            terminal.say(f"warning: {head.name}: the formula says {_mib(need.total)}; the runtime's word counts")
    return found


def _show(
    terminal: Terminal,
    asked: Sequence[PlannedModel],
    needs: Sequence[MemoryNeed],
    rehearsed: Sequence[MemoryNeed | None],
    answer: Fit,
) -> None:
    for one, need, told in zip(asked, needs, rehearsed, strict=True):
        header, load = one.header, one.load
        terminal.answer(f"{one.name}: {header.architecture} {header.quantisation}, {header.parameters / 1e6:.0f} M")
        copies = f", and {_mib(need.repacked)} for copies in another order" if need.repacked else ""
        terminal.answer(f"  weights    {_mib(need.weights)}{copies}")
        terminal.answer(f"  KV cache   {_mib(need.kv)}: {load.slots} slots of {load.context} tokens, {load.kv_type}")
        if header.context and load.context > header.context:
            terminal.say(f"warning: {one.name} was trained for a context of {header.context} tokens")
        terminal.answer(f"  computing  {_mib(need.compute)}, program {_mib(need.program)}")
        doubt = "" if told or need.is_compared else "; never compared for this architecture"
        terminal.answer(f"  total      {_mib(need.total)}, " + ("by the runtime" if told else f"by the formula{doubt}"))
    verdict = "fits" if answer.fits else "does not fit"
    terminal.answer(f"needs {_mib(answer.total)}; the host can give {_mib(answer.budget)}: {verdict}")
    if answer.fits:
        terminal.answer(f"would still fit: {answer.most_slots} slots, or a context of {answer.longest_context} tokens")
    for number, other in enumerate(answer.alternatives, 1):
        ends = "fits" if other.fits else "does not fit either"
        terminal.answer(f"  {number}. {other.text}: {_mib(other.total)}, {ends}")
    for gpu in answer.gpus:
        count = "memory unseen" if gpu.layers is None else f"{gpu.layers} of {gpu.of_layers} layers"
        terminal.answer(f"gpu {gpu.address}: {gpu.model}: {count}")


def _answer(
    asked: Sequence[PlannedModel], formula: Sequence[MemoryNeed], rehearsed: Sequence[MemoryNeed | None], answer: Fit
) -> dict[str, Any]:
    models = [
        {
            "name": one.name,
            "architecture": one.header.architecture,
            **asdict(one.load),
            "formula": {**asdict(need), "total": need.total},
            "runtime": None if told is None else {"kv": told.kv, "compute": told.compute, "total": told.total},
        }
        for one, need, told in zip(asked, formula, rehearsed, strict=True)
    ]
    return {"models": models, "fits": answer.fits, **asdict(answer)}


def _does_not_fit(source: Path, answer: Fit) -> Exception:
    from signing.errors import HostUnfitError

    fitting = next((other.text for other in answer.alternatives if other.fits), "")
    return HostUnfitError(
        "plan.does-not-fit",
        str(source),
        expected=f"at most {answer.budget} bytes of memory",
        found=f"a need of {answer.total}",
        hint=f"ask for less: {fitting}" if fitting else "choose a smaller model, or a host with more memory",
    )


def _mib(size: int) -> str:
    return f"{-(-size >> 20)} MiB"
