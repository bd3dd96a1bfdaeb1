"""The survey of CPU variants: which of a runtime's variants run on this host and compute right; each is tried.

Owns the verdicts for the card of a host. `appliance.host.runtime.variant_choice` chooses the variant that serves, and
tries only as many as it needs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from appliance.host.machine.card import BY_FLAGS, TRIED, Variant
from appliance.host.machine.cpu import REFERENCE
from appliance.host.machine.probe import variants_by_flags
from appliance.host.machine.threads import thread_count
from appliance.host.process.programs import Programs
from appliance.host.runtime.unpacked import UnpackedRuntime
from appliance.host.runtime.variant_choice import MODEL_NOT_LOADED, Bench, compare, evaluate, explain_failure
from bundles.progress import OnProgress, Progress


def try_variants(
    unpacked: UnpackedRuntime, model: Path, flags: frozenset[str], on_progress: OnProgress
) -> tuple[Variant, ...]:
    """Try every variant of a runtime for which the processor has the flags.

    Args:
        unpacked: the runtime.
        model: a GGUF, verified by the caller.
        flags: of this processor.
        on_progress: called with variants done.

    Returns:
        One verdict for each variant of the runtime, newest generation first. `how` states whether it was tried.

    Raises:
        HostUnfitError: the runtime refuses the model, which shows nothing of the processor.
    """
    claimed = {variant.name: variant for variant in variants_by_flags(flags)}
    unknown = [Variant(name, True, BY_FLAGS, "") for name in unpacked.variants if name not in claimed]
    offered = [*unknown, *(variant for name, variant in claimed.items() if name in unpacked.variants)]
    with tempfile.TemporaryDirectory(prefix="appliance-trial-") as name:
        lock = os.open(Path(name) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            programs = Programs(Path(name), lock)
            runtime = unpacked.runtime()
            bench = Bench(
                unpacked.folder_with, runtime.python, model, max(1, thread_count() // 2), programs, runtime.package
            )
            return _judge_all(offered, bench, on_progress)
        finally:
            os.close(lock)


def _judge_all(offered: list[Variant], bench: Bench, on_progress: OnProgress) -> tuple[Variant, ...]:
    reference = evaluate(REFERENCE, bench)
    if isinstance(reference, str):
        error = explain_failure(bench, [f"{REFERENCE}: {reference}"])
        if error.code == MODEL_NOT_LOADED:
            raise error
    found = []
    for done, variant in enumerate(offered):
        on_progress(Progress(f"trying CPU variant {variant.name}", done, len(offered), "steps"))
        if not variant.is_fit:
            found.append(variant)
        elif variant.name == REFERENCE:
            found.append(Variant(REFERENCE, not isinstance(reference, str), TRIED, _words(reference)))
        else:
            verdict = compare(reference, variant.name, bench)
            found.append(Variant(variant.name, not isinstance(verdict, str), TRIED, _words(verdict)))
    on_progress(Progress("trying CPU variants", len(offered), len(offered), "steps"))
    return tuple(found)


def _words(verdict: object) -> str:
    return verdict if isinstance(verdict, str) else ""
