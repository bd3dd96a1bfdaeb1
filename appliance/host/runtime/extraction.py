"""The runtime of a release: programs and libraries of the signed wheel, with one CPU variant.

Owns `runtime/` of a release folder. Only the members that the signed contents list are extracted from the wheel, and
each is compared with its size and sha256. Only the chosen CPU variant is kept, so that the engine cannot load another.

Rules:
- `runtime/` appears complete, by a rename; one that is right is left alone;
- trials run in folders beside it, which share the files by hard links and are removed afterwards;
- results are compared after the release's environment is there, since that uses its binding. To measure needs none.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from appliance.host.layout.places import place
from appliance.host.layout.prefix import Prefix, make_folder
from appliance.host.machine.cpu import cpu_identity
from appliance.host.machine.threads import thread_count
from appliance.host.process.programs import Programs
from appliance.host.release.release import VARIANT_PREFIX
from appliance.host.release.release_check import check_runtime
from appliance.host.runtime.trial_ahead import TrialAhead
from appliance.host.runtime.variant_choice import (
    Bench,
    Choice,
    Measured,
    choose_measured,
    measure,
    read_choice,
    write_choice,
)
from bundles.contents.contents import Contents, File
from bundles.contents.signed_wheel import extract_members
from bundles.medium import sync_folder
from bundles.progress import OnProgress, Progress, ignore

WORK = ".runtime-trial"
_CORES = 2
"""Threads that an engine may have here, from which on a trial does not disturb what runs beside it."""


def begin_trial(
    prefix: Prefix, release: Path, contents: Contents, variants: tuple[str, ...], programs: Programs
) -> TrialAhead | None:
    """Begin to measure CPU variants, in a thread, while the release's environment is built.

    Args:
        prefix, release, contents, variants, programs: as `prepare_runtime`, which takes the result.

    Returns:
        The trial, which the caller stops in the end; None where this host has a result, or one core only.
    """
    known = read_choice(_record(prefix), _key(contents))
    if (known is not None and known.variant in variants) or thread_count() < _CORES:
        return None

    def work(own: Programs) -> Measured:
        _extract_anew(prefix, release, contents)
        return measure(variants, _bench(prefix, release, contents, own), ignore)

    return TrialAhead(programs, work)


def prepare_runtime(
    prefix: Prefix,
    release: Path,
    contents: Contents,
    variants: tuple[str, ...],
    programs: Programs,
    on_progress: OnProgress,
    ahead: TrialAhead | None = None,
) -> Choice:
    """Fill `runtime/` with the CPU variant that is fastest on this host, among those that compute right.

    Args:
        prefix, release: the host, and the release's folder; wheels and models are verified.
        contents: signed, verified.
        variants: those to try, newest generation first.
        programs: starts the trials.
        on_progress: called with steps done.
        ahead: the trial of `begin_trial`.

    Returns:
        The variant that `runtime/` holds, with its measurement of now, or of before on the same processor.

    Raises:
        HostUnfitError: no variant runs and computes right here.
        DamagedError: the wheel is not what was signed.
    """
    record, key, work = _record(prefix), _key(contents), release / WORK
    known = read_choice(record, key)
    if known is not None and not check_runtime(release / "runtime", contents, known.variant):
        return known
    measured = None
    if ahead is None:
        _extract_anew(prefix, release, contents)
    else:
        on_progress(Progress("trying CPU variants", 0, 1, "steps"))
        measured = ahead.result()
    choice = known if known is not None and known.variant in variants else None
    if choice is None:
        bench = _bench(prefix, release, contents, programs)
        choice = choose_measured(measured or measure(variants, bench, on_progress), bench, on_progress)
    _put_in_place(_folder_with(work, choice.variant), release / "runtime")
    _remove(work)
    write_choice(record, key, choice)
    return choice


def _record(prefix: Prefix) -> Path:
    return prefix.journal / "trials.json"


def _smallest(contents: Contents) -> File:
    return min(contents.of_kind("model"), key=lambda file: file.size)


def _bench(prefix: Prefix, release: Path, contents: Contents, programs: Programs) -> Bench:
    return Bench(
        folder_of=lambda variant: _folder_with(release / WORK, variant),
        python=release / "venv" / "bin" / "python",
        model=place(prefix, release, _smallest(contents)),
        # Polling threads of llama.cpp are very slow on a busy machine; fewer threads compare variants as well.
        threads=max(1, thread_count() // 2),
        programs=programs,
    )


def _extract_anew(prefix: Prefix, release: Path, contents: Contents) -> None:
    work = release / WORK
    _remove(work)
    make_folder(work)
    _extract_all(prefix, release, contents, work / "all")


def _key(contents: Contents) -> str:
    parts = [file.sha256 for file in contents.of_kind("runtime")]
    return "\n".join([*parts, _smallest(contents).sha256, cpu_identity()])


def _extract_all(prefix: Prefix, release: Path, contents: Contents, folder: Path) -> None:
    make_folder(folder)
    for file in contents.of_kind("runtime"):
        extract_members(file, place(prefix, release, file), file.members, folder)


def _folder_with(work: Path, variant: str) -> Path:
    folder = work / variant
    if folder.exists():
        return folder
    make_folder(folder)
    every = work / "all"
    for name in sorted(os.listdir(every)):
        if not name.startswith(VARIANT_PREFIX) or name == f"{VARIANT_PREFIX}{variant}.so":
            os.link(every / name, folder / name)
    return folder


def _put_in_place(folder: Path, runtime: Path) -> None:
    old = folder.parent / "old"
    if runtime.exists() or runtime.is_symlink():
        os.rename(runtime, old)
    os.rename(folder, runtime)
    sync_folder(runtime.parent)


def _remove(work: Path) -> None:
    if work.exists():
        shutil.rmtree(work)
