"""The command line of `verify.pyz`.

    python3 -I -B verify.pyz PATH… --trust ROOT --pin FINGERPRINTS

Owns the arguments, the exit code, and what is printed. `bundles.__main__` starts it, on a Python that is new enough.
What it does and writes is in `bundles.bare_host.verifier`.

Rules:
- signatures are checked in plain Python: packages that a host happens to have play no part;
- an error is a few lines and an exit code, never a traceback, except for a bug of ours.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from bundles.progress import Progress
    from signing.errors import ApplianceError

EXIT_OUR_BUG = 70
_REFUSED = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EIO, errno.ENAMETOOLONG)
_LINE_EVERY_S = 15.0


def run() -> int:
    """Run the command line of this process, as the whole program; gives its exit code."""
    sys.modules["cryptography"] = None  # type: ignore[assignment]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return main(sys.argv[1:])
    except Exception:  # noqa: BLE001 - what ends here is our own bug
        traceback.print_exc()
        return EXIT_OUR_BUG


def main(arguments: Sequence[str]) -> int:
    """Run one command line, and give its exit code."""
    options = _parse(arguments)
    from signing.errors import ApplianceError

    try:
        _run_options(options)
    except ApplianceError as error:
        _print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        _print("interrupted")
        return 130
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        from bundles.report import escape

        _print(f"error: {os.strerror(error.errno or 0).lower()}: {escape(str(error.filename))}")
        return 1
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="verify.pyz",
        description="Verify signatures and every byte of PATH: a bundle or sticks.",
        epilog="Exit 0: everything is what was signed. 3: damaged, copy it again. "
        "4: not trusted, stop and ask a key holder. 5: another stick is needed. 6: this host lacks something. "
        "Example: python3 -I -B verify.pyz /media/stick --trust root.json",
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="a folder with oci-layout; several sticks in any order",
    )
    parser.add_argument("--trust", metavar="ROOT", type=Path, help="the trust root; never one that was not checked")
    parser.add_argument(
        "--pin",
        metavar="FINGERPRINTS",
        help="root keys' fingerprints from paper: copy the program to this host, "
        "and print the command that installs with it and pins ROOT",
    )
    parser.add_argument("--prefix", metavar="DIR", type=Path, help="keep the whole host tree under DIR: no root needed")
    parser.add_argument("--select", metavar="NAME-VERSION", default="", help="the bundle that --pin is for, of several")
    parser.add_argument("--verify-only", action="store_true", help="copy nothing, whatever --pin says")
    return parser.parse_args(arguments)


def _run_options(options: argparse.Namespace) -> None:
    from bundles.bare_host.verifier import Lines, VerifierJob, verify_and_copy, verify_media

    job = VerifierJob(tuple(options.paths), options.trust or Path(), _read_root(options.trust), options.select)
    now, out = datetime.now(timezone.utc), Lines(lambda line: _print(line, sys.stdout), _print, _ProgressLines())
    if options.pin is None or options.verify_only:
        verify_media(job, now, out)
    else:
        verify_and_copy(job, options.pin, options.prefix, now, out)


def _read_root(trust: Path | None) -> bytes:
    from signing.errors import NotTrustedError, UsageError
    from signing.roles import MAX_BYTES

    if trust is None:
        raise NotTrustedError(
            "trust.none-pinned",
            "no host",
            expected="a trust root that somebody decided to trust",
            found="none named",
            hint="add --trust ROOT: the root.json that the sheet on paper has checked",
        )
    try:
        with trust.open("rb") as stream:
            return stream.read(MAX_BYTES["root"] + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UsageError(
            "trust.no-file", str(trust), expected="a root file", found="no file", hint="check the path in --trust"
        ) from None


class _ProgressLines:
    """Reports the progress of long work, one line every few seconds."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, event: Progress) -> None:
        now = time.monotonic()
        if now - self._told >= _LINE_EVERY_S and event.total:
            self._told = now
            _print(f"{event.task}: {event.done >> 20} of {event.total >> 20} MiB")


def _print_error(error: ApplianceError) -> None:
    from bundles.report import MAX_FAULTS, fault_lines, hint_lines

    for one in (error, *error.others[:MAX_FAULTS]):
        first, *rest = fault_lines(one)
        _print(f"error: {first}")
        for line in rest:
            _print(line)
    if len(error.others) > MAX_FAULTS:
        _print(f"and {len(error.others) - MAX_FAULTS} more like these")
    for line in hint_lines(error):
        _print(line)


def _print(text: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stderr
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:
        # The reader went away: what was found still decides the exit code, also when Python flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
