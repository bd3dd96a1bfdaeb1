"""Whether a release's Python environment still holds what the signed wheels list, and nothing else.

Owns the comparison of `venv/` with the wheels' RECORDs. It changes nothing.

Rules (threat T32):
- a file that no RECORD lists is not trusted, wherever in the environment it lies;
- a file that is missing or differs is damaged, and the error names the wheel and the member;
- `pyvenv.cfg`, the links and the interpreter behind them are this host's: where they differ, that is drift;
- all differences are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.host.layout.places import REPAIR_HINT, place, wheels_for
from appliance.host.layout.prefix import Prefix
from appliance.host.release.environment import Interpreter, links, pyvenv_cfg, site_packages
from bundles.chunks.check import hash_range
from bundles.contents.contents import Contents, File
from bundles.contents.signed_wheel import WheelRecord, read_record
from bundles.parallel import judge_all
from bundles.progress import OnProgress
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError, DriftError, NotTrustedError, worst


def check_environment(
    prefix: Prefix, release: Path, contents: Contents, python: Interpreter, on_progress: OnProgress
) -> None:
    """Compare `venv/` with the RECORDs of the signed wheels; each file is read once.

    Args:
        prefix, release: where the environment lies.
        contents: verified.
        python: the interpreter that it must link to.
        on_progress: called with steps done.

    Raises:
        NotTrustedError: there are files that no wheel lists; this outranks damage.
        DamagedError: files of a wheel are missing or differ; all are named. This outranks drift.
        DriftError: what this host created in the environment was changed.
    """
    venv = release / "venv"
    expected, errors = _expected(prefix, release, contents, python)
    # The RECORD of a damaged wheel cannot be read, so files that only it lists must not be reported as unlisted.
    is_partial = bool(errors)
    known_links = links(python)
    entries = dict(_walk(venv))
    judged = {path: 1 for path in entries if not is_partial or path in expected or path in known_links}
    found = judge_all(
        judged,
        lambda path: _compare(entries[path], path, expected.get(path), known_links),
        "checking the Python environment",
        on_progress,
        "steps",
    )
    errors += found.values()
    for path in sorted((set(expected) | set(known_links)) - set(entries)):
        errors.append(_differs(path, expected.get(path), f"a file at venv/{path}", "no file"))
    if not os.access(python.path, os.X_OK):
        errors.append(_differs("bin/python", None, f"a link to the interpreter {python.path}", "no such program"))
    if errors:
        raise worst(errors)


@dataclass(frozen=True, slots=True)
class _Expected:
    subject: str
    sha256: Digest
    size: int
    is_signed: bool = True


def _expected(
    prefix: Prefix, release: Path, contents: Contents, python: Interpreter
) -> tuple[dict[str, _Expected], list[ApplianceError]]:
    cfg = pyvenv_cfg(python)
    found = {"pyvenv.cfg": _Expected("venv/pyvenv.cfg", sha256(cfg), len(cfg), is_signed=False)}
    errors: list[ApplianceError] = []
    for file in wheels_for(contents, python.minor):
        try:
            record = read_record(file, place(prefix, release, file))
        except (DamagedError, NotTrustedError) as error:
            errors.append(error)
            continue
        found.update(_installed(file, record, site_packages(python)))
    return found, errors


def _installed(file: File, record: WheelRecord, site: str) -> Iterator[tuple[str, _Expected]]:
    yield f"{site}/{record.path}", _Expected(f"{file.path}: {record.path}", sha256(record.data), len(record.data))
    for entry in record.entries:
        where = _destination(entry.path, site)
        if where is not None:
            yield where, _Expected(f"{file.path}: {entry.path}", entry.sha256, entry.size)


def _destination(path: str, site: str) -> str | None:
    top, _, rest = path.partition("/")
    if not top.endswith(".data"):
        return f"{site}/{path}"
    scheme, _, rest = rest.partition("/")
    return {"purelib": f"{site}/{rest}", "platlib": f"{site}/{rest}", "data": rest}.get(scheme)


def _walk(venv: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    stack = [""]
    while stack:
        folder = stack.pop()
        try:
            entries = sorted(os.scandir(venv / folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        for entry in entries:
            path = f"{folder}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                stack.append(f"{path}/")
            else:
                yield path, entry


def _compare(
    entry: os.DirEntry[str], path: str, expected: _Expected | None, known_links: dict[str, str]
) -> ApplianceError | None:
    if entry.is_symlink() and path in known_links:
        target = os.readlink(entry.path)
        return None if target == known_links[path] else _differs(path, None, f"a link to {known_links[path]}", target)
    if expected is None or not entry.is_file(follow_symlinks=False):
        return NotTrustedError(
            "release.unlisted",
            f"venv/{path}",
            expected="only what the signed wheels list",
            found="a file that no wheel brought",
            hint=f"find out who put it there; then {REPAIR_HINT}",
        )
    wanted = f"{expected.size} bytes with sha256 {expected.sha256}"
    try:
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            found = hash_range(descriptor, 0, size) if size == expected.size else ""
        finally:
            os.close(descriptor)
    except OSError as error:
        return _differs(path, expected, wanted, error.strerror or "an unreadable file")
    if found == expected.sha256:
        return None
    return _differs(path, expected, wanted, f"{size} bytes with sha256 {found or 'not computed'}")


def _differs(path: str, expected: _Expected | None, wanted: str, found: str) -> ApplianceError:
    """The error for a path below `venv/`: damaged where a wheel brought it, drift where this host made it."""
    if expected is not None and expected.is_signed:
        return DamagedError("release.file-changed", expected.subject, expected=wanted, found=found, hint=REPAIR_HINT)
    return DriftError("release.environment-changed", f"venv/{path}", expected=wanted, found=found, hint=REPAIR_HINT)
