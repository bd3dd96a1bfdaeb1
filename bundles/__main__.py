"""`verify.pyz`: checks a bundle or stick on a host that has python3 and nothing else.

    python3 -I -B verify.pyz PATH --trust ROOT --pin FINGERPRINTS

Owns this command line, which is the whole program in the archive (docs/architecture.md, The bare host). It starts
nothing. It writes where `--pin` is given, and only after the check: the bootstrap set of the verified bundle.

Rules:
- the same checks, errors and exit codes as `appliance verify`, through the same functions;
- the command that it prints is one line that a shell reads as it was meant, whatever the paths hold;
- signatures are checked in plain Python: packages that a host happens to have play no part;
- nothing of the project is imported before the arguments are read, so that even an old python3 reports what it lacks.
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

    from bundles.bundle import Bundle
    from bundles.progress import Progress
    from signing.errors import ApplianceError
    from signing.verified import Verified

OLDEST_PYTHON = (3, 9)
EXIT_HOST_UNFIT, EXIT_OUR_BUG = 6, 70
_REFUSED = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EIO, errno.ENAMETOOLONG)
_LINE_EVERY_S = 15.0
_NEXT = """\
next, where this machine has the appliance:
  appliance trust pin {root} --fingerprint FINGERPRINT-FROM-PAPER
  appliance install {path}
where it has not: this command again, with --pin and the fingerprints from paper"""
_COPIED = """\
the program lies in {folder}
next, this one command: it shows its plan, and asks before it changes anything:"""
_TYPED = "PATH-TO-BE-TYPED-BY-HAND"


def main(arguments: Sequence[str]) -> int:
    """Run one command line, and give its exit code."""
    options = _parse(arguments)
    if sys.version_info < OLDEST_PYTHON:
        _print(f"error: this is Python {sys.version.split()[0]}; Python 3.9 or newer is needed")
        return EXIT_HOST_UNFIT
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
        description="Verify signatures and every byte of PATH: a bundle or a stick.",
        epilog="Exit 0: everything is what was signed. 3: damaged, copy it again. "
        "4: not trusted, stop and ask a key holder. 5: another stick is needed. 6: this host lacks something. "
        "Example: python3 -I -B verify.pyz /media/stick --trust root.json",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="the folder that holds oci-layout")
    parser.add_argument("--trust", metavar="ROOT", type=Path, help="the trust root; never one that was not checked")
    parser.add_argument(
        "--pin",
        metavar="FINGERPRINTS",
        help="root keys' fingerprints from paper: copy the program to this host, "
        "and print the command that installs with it and pins ROOT",
    )
    parser.add_argument("--prefix", metavar="DIR", type=Path, help="keep the whole host tree under DIR: no root needed")
    parser.add_argument("--verify-only", action="store_true", help="copy nothing, whatever --pin says")
    return parser.parse_args(arguments)


def _run_options(options: argparse.Namespace) -> None:
    """Verify, and copy the program where that was asked for; what is known to fail then is refused before the check."""
    if options.pin is None or options.verify_only:
        _verify(options.path, options.trust)
        words = {"root": os.path.abspath(options.trust), "path": os.path.abspath(options.path)}
        _print(_NEXT.format(**{name: _word(word) for name, word in words.items()}))
        return
    fingerprints, prefix = _fingerprints(options.pin), _prefix(options.prefix)
    root = _read_root(options.trust)
    found = _verify(options.path, options.trust)
    from bundles.bootstrap_set import bootstrap_argv, copy_bootstrap_set, put_root
    from bundles.oci.layout import Layout

    folder = copy_bootstrap_set(found.value, Layout(options.path).open_chunk, prefix, on_progress=_Lines())
    arguments = ["install", os.path.abspath(options.path), "--root", str(put_root(folder, root))]
    for fingerprint in fingerprints:
        arguments += ["--fingerprint", fingerprint]
    if options.prefix is not None:
        arguments += ["--prefix", str(prefix)]
    _print(_COPIED.format(folder=_word(str(folder))))
    _print(" ".join(_word(word) for word in bootstrap_argv(folder, arguments)), sys.stdout)


def _fingerprints(text: str) -> list[str]:
    from signing.digest import parse_digest
    from signing.errors import NotTrustedError, UsageError

    try:
        return [parse_digest(word, "--pin") for word in text.split() or [""]]
    except NotTrustedError:
        raise UsageError(
            "trust.fingerprint-spelling",
            "--pin",
            expected="fingerprints of 64 hexadecimal digits, with spaces between them",
            found=repr(text)[:120],
            hint="type them again from the paper",
        ) from None


def _prefix(given: Path | None) -> Path:
    from signing.errors import UsageError

    if given is None and os.geteuid() != 0:
        raise UsageError(
            "prefix.not-root",
            "/opt/appliance",
            expected="root, who may install for the whole machine",
            found="an ordinary user",
            hint="add --prefix DIR: everything then lies in that folder; or --verify-only, to copy nothing",
        )
    return Path(os.path.realpath(given or "/"))


def _word(text: str) -> str:
    from bundles.report import shell_word

    return shell_word(text, _TYPED)


def _verify(path: Path, trust: Path | None) -> Verified[Bundle]:
    from bundles.bundle import open_bundle
    from bundles.chunks.check import check_all
    from bundles.oci.layout import Layout
    from bundles.oci.litter import describe_beside
    from bundles.report import (
        DEVELOPMENT_ROOT,
        clock_warning,
        describe,
        describe_attested,
        describe_boot,
        escape,
        lines,
    )
    from signing.floors import Floors

    found = open_bundle(path, _read_root(trust), Floors(), datetime.now(timezone.utc))
    checked, boot = check_all(Layout(path), found, _Lines())
    if found.evidence.is_development:
        _print(f"DEVELOPMENT TRUST ROOT: {DEVELOPMENT_ROOT}")
    if warning := clock_warning(found):
        _print(warning)
    answer = {
        **describe(found),
        **describe_beside(Layout(path)),
        "path": str(path),
        "files": checked.files,
        "bytes": checked.size_bytes,
    }
    answer["boot"] = describe_boot(found, boot)
    answer["attestations"] = describe_attested(checked.attested)
    for line in lines(answer):
        _print(escape(line), sys.stdout)
    return found


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


class _Lines:
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


def _run() -> int:
    try:
        return main(sys.argv[1:])
    except Exception:  # noqa: BLE001 - what ends here is our own bug
        traceback.print_exc()
        return EXIT_OUR_BUG


if __name__ == "__main__":
    sys.modules["cryptography"] = None  # type: ignore[assignment]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(_run())
