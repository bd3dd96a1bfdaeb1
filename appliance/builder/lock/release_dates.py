"""The day of the last release of each project that a lock pins, as the package index reports it.

Owns which entries get a day, and when an index is asked. It must never change what an entry pins.

Rules:
- an entry that has a day keeps it, so that locking twice asks no index; `--upgrade` begins without any;
- a day is a note for people: an index that is not reached, or reports no days, is no error;
- an index that reports no day for the first project is not asked about the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from appliance.builder.lock.lockfile import DISTRIBUTIONS, Locked
from appliance.builder.sources.pypi import index_url, open_index
from bundles.progress import OnProgress, Progress, ignore
from signing.errors import ApplianceError

LABEL = "looking up the last releases"


def add_release_dates(
    entries: Iterable[Locked], env: Mapping[str, str], on_progress: OnProgress = ignore
) -> tuple[Locked, ...]:
    """Give each Python distribution without a day of its last release that day.

    Args:
        entries: of a lock.
        env: the environment, for the package index.
        on_progress: called with steps.

    Returns:
        The entries, in the same order. The day stays None where no index reports one.
    """
    given = tuple(entries)
    names = sorted({entry.name for entry in given if _is_undated(entry)})
    dates = _look_up(names, env, on_progress) if names else {}
    return tuple(replace(entry, last_release=dates.get(entry.name)) if _is_undated(entry) else entry for entry in given)


def _is_undated(entry: Locked) -> bool:
    return entry.kind in DISTRIBUTIONS and entry.last_release is None


def _look_up(names: list[str], env: Mapping[str, str], on_progress: OnProgress) -> dict[str, str]:
    index, found = open_index(index_url(env)), dict[str, str]()
    for number, name in enumerate(names):
        on_progress(Progress(LABEL, number, len(names), "steps"))
        try:
            day = index.last_release(name)
        except ApplianceError as error:
            if error.code == "source.unreachable":
                break
            continue
        if day is not None:
            found[name] = day.isoformat()
        elif not found:
            break
    on_progress(Progress(LABEL, len(names), len(names), "steps"))
    return found
