"""The report of `appliance bench`: its members, and its lines for people.

A record of evidence holds it as it holds the report of a verification. Numbers are whole: milliseconds, and tokens for
each minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from signing.errors import NotTrustedError
from signing.strictjson import Json

KIND = "bench"
_MEMBERS = {
    "kind": str,
    "name": str,
    "version": str,
    "manifest": str,
    "model": str,
    "level": str,
    "isolation": str,
    "max_tokens": int,
    "rows": list,
}
_ROW = dict.fromkeys(
    (
        *("users", "answers", "refused", "tokens", "took_ms", "tokens_per_minute"),
        *("first_token_p50_ms", "first_token_p95_ms"),
    ),
    int,
)


def is_bench(report: Json) -> bool:
    """Whether a report is one of `appliance bench`."""
    return isinstance(report, dict) and report.get("kind") == KIND


def check_bench(report: dict[str, Json], subject: str) -> None:
    """Check that a reader can print the report: the host that wrote it may be of any version.

    Args:
        report: of a record whose signature holds.
        subject: the file's name, for the error.

    Raises:
        NotTrustedError: a member that is printed is missing or of another type.
    """
    _check(report, _MEMBERS, subject)
    rows = report["rows"]
    assert isinstance(rows, list)  # checked above
    for row in rows:
        _check(row, _ROW, subject)


def bench_lines(report: dict[str, Json]) -> Iterator[str]:
    """The report for people.

    Args:
        report: made by `appliance bench`, or checked by `check_bench`.
    """
    yield f"release    {report['name']} {report['version']}  manifest sha256:{report['manifest']}"
    yield f"model      {report['model']}, level {report['level']}, isolation {report['isolation']}"
    yield f"answers    of at most {report['max_tokens']} tokens"
    yield "users  tokens/s  first token p50        p95  answers  refused"
    rows = report["rows"]
    assert isinstance(rows, list)
    for row in rows:
        assert isinstance(row, dict)
        speed = _number(row, "tokens_per_minute") / 60
        first, late = _number(row, "first_token_p50_ms"), _number(row, "first_token_p95_ms")
        yield (
            f"{row['users']:>5}  {speed:>8.1f}  {first:>12} ms  {late:>6} ms  {row['answers']:>7}  {row['refused']:>7}"
        )


def _number(row: dict[str, Json], name: str) -> int:
    value = row[name]
    assert isinstance(value, int)
    return value


def _check(value: Json, members: Mapping[str, type], subject: str) -> None:
    for name, kind in members.items():
        if not isinstance(value, dict) or type(value.get(name)) is not kind:
            raise NotTrustedError(
                "evidence.refused",
                subject,
                expected="a report of `appliance bench`",
                found=f"another or no {name}",
                hint="the program of that host wrote what this one does not print; --json shows all of it",
            )
