"""The page of dependencies: every distribution and system package that a bundle brings to a host, and why.

Owns the page's text and which dependency counts as unmaintained. Its facts are those of the lock, so the same lock
gives the same page: no clock, no network.

Rules:
- what only the build uses stands in a table of its own; models are described by the bill of materials for models;
- a cell holds one line: texts of others lose their line breaks, and bars are escaped.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from packaging.utils import canonicalize_name

from appliance.builder.bills.dependency_reasons import BY_ANOTHER, REASONS
from appliance.builder.lock.lockfile import DISTRIBUTIONS, Lock, Locked
from appliance.builder.runtime.cuda_toolkit import HOST_TOOLKIT_NAMES

MAX_AGE_MONTHS = 24
"""A project whose last release is longer ago than this is reported at each build."""
NOT_RECORDED = "not recorded"
_NOT_DECLARED = "not declared"
_INTRODUCTION = """\
For people who must approve what {bundle} brings to a host: every package, and why it is there.

The licence is the one that its author declares. The last release is the day of the newest release of the project, as
the package index reported it when the lock was written.
"""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A Python distribution of a lock.

    Args:
        name: canonical.
        version: the pinned one.
        licence: as its author declares it; may be empty.
        last_release: the day of its project's newest release; None where it is not recorded.
        reason: why it is there, one line.
        is_for_host: whether a host gets it; False for what only the build uses.
    """

    name: str
    version: str
    licence: str
    last_release: date | None
    reason: str
    is_for_host: bool


def dependencies(lock: Lock) -> tuple[Dependency, ...]:
    """The Python distributions that a lock pins, by name and version; one that several Pythons take stands once."""
    found = {(entry.name, entry.version): _dependency(entry) for entry in lock.of_kind(*DISTRIBUTIONS)}
    return tuple(found[key] for key in sorted(found))


def unmaintained(found: Iterable[Dependency], today: date) -> tuple[Dependency, ...]:
    """Those whose project has released nothing for more than `MAX_AGE_MONTHS`.

    Args:
        found: of `dependencies`.
        today: the day of the build.
    """
    oldest = _months_before(today, MAX_AGE_MONTHS)
    return tuple(one for one in found if one.last_release is not None and one.last_release < oldest)


def format_dependencies(lock: Lock, bundle: str) -> str:
    """The page, in Markdown.

    Args:
        lock: as read.
        bundle: how the first sentence names the bundle, such as `smollm2 1.0.0`.
    """
    found = dependencies(lock)
    sections = [
        ("## Python distributions on a host", _HEAD, [_row(one) for one in found if one.is_for_host]),
        (
            "## Python distributions that only the build uses",
            _HEAD,
            [_row(one) for one in found if not one.is_for_host],
        ),
        *((f"## Packages of {system.os}", _PACKAGE_HEAD, _package_rows(lock, system.os)) for system in lock.systems),
    ]
    text = f"# Dependencies\n\n{_INTRODUCTION.format(bundle=bundle)}"
    return text + "".join(f"\n{title}\n\n{_table(head, rows)}" for title, head, rows in sections if rows)


_HEAD = ("name", "version", "licence", "last release", "why it is there")
_PACKAGE_HEAD = ("name", "version", "why it is there")


def _dependency(entry: Locked) -> Dependency:
    name = canonicalize_name(entry.name)
    return Dependency(
        name=name,
        version=entry.version,
        licence=entry.licence,
        last_release=date.fromisoformat(entry.last_release) if entry.last_release else None,
        reason=REASONS.get(name, BY_ANOTHER),
        is_for_host=entry.kind != "build-tool" or name in HOST_TOOLKIT_NAMES,
    )


def _months_before(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    # A month without such a day gives its last one.
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _row(one: Dependency) -> Sequence[str]:
    last = one.last_release.isoformat() if one.last_release else NOT_RECORDED
    return one.name, one.version, one.licence or _NOT_DECLARED, last, one.reason


def _package_rows(lock: Lock, system: str) -> list[Sequence[str]]:
    asked = {name for one in lock.systems if one.os == system for name in one.packages}
    return [
        (entry.name, entry.version, "the recipe asks for it" if entry.name in asked else "needed by another package")
        for entry in lock.packages_for(system)
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
