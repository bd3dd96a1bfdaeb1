"""What `verify.pyz` does once its arguments are read: verify media, and hand a bare host the program of their bundle.

Owns the order of both, and the one command that is printed. `bundles.bare_host.command_line` owns the command line.

Rules:
- the same checks, errors and exit codes as `appliance verify`, through the same functions;
- without `pin` nothing is written; with it, the bootstrap set of a bundle that was verified, and nothing else;
- where blobs are on a stick that is not here, all that is here must be right, and the program must be among it;
- the printed command is one line that a shell reads as it was meant, whatever the paths hold.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Callable

from bundles.bare_host.boot_check import ROOT_FILE
from bundles.bare_host.prefix_path import check_prefix
from bundles.bootstrap_set import bootstrap_argv, copy_bootstrap_set, missing_chunks, put_root
from bundles.oci.layout import BOOT
from bundles.progress import OnProgress
from bundles.report import DEVELOPMENT_ROOT, clock_warning, describe, escape, fault_lines, lines, shell_word
from bundles.stick.media import OpenMedia, by_newest, open_media
from bundles.stick.media_check import check_media, describe_checked
from signing.digest import Digest, parse_digest
from signing.errors import NextStickError, NotTrustedError, UsageError
from signing.floors import Floors

_NEXT = """\
next, where this machine has the appliance:
  appliance trust pin {root} --fingerprint FINGERPRINT-FROM-PAPER
  appliance install {path}
where it has not: this command again, with --pin and the fingerprints from paper"""
_COPIED = """\
the program lies in {folder}
next, this one command: it shows its plan, and asks before it changes anything:"""
_PARTIAL = "what is here is what was signed; the install asks for the other sticks:"
_TYPED = "PATH-TO-BE-TYPED-BY-HAND"


@dataclass(frozen=True)
class VerifierJob:
    """One run of the verifier.

    Args:
        paths: the media, untrusted; they may have been named in any order.
        root_path: where the root file lies.
        root: its bytes: the root that a person has chosen to trust.
        select: which bundle is meant, as `NAME-VERSION`; empty where only one lies there.
    """

    paths: tuple[Path, ...]
    root_path: Path
    root: bytes
    select: str = ""


@dataclass(frozen=True)
class Lines:
    """Where lines go: the answer of a command, talk beside it, and the progress of long work."""

    answer: Callable[[str], None]
    talk: Callable[[str], None]
    on_progress: OnProgress


def verify_media(job: VerifierJob, now: datetime, out: Lines) -> None:
    """Verify media, report them, and name the next step.

    Raises:
        ApplianceError: as `open_media` and `check_media`.
    """
    media = _open(job, now, out)
    _check(media, out)
    words = {"root": os.path.abspath(_lasting_root(media, job)), "path": os.path.abspath(job.paths[0])}
    out.talk(_NEXT.format(**{name: _word(word) for name, word in words.items()}))


def verify_and_copy(job: VerifierJob, pin: str, prefix: Path | None, now: datetime, out: Lines) -> None:
    """Verify media, copy the program of their bundle, and print the command that installs with it.

    Args:
        job: what to verify.
        pin: root keys' fingerprints from paper, with white space between them.
        prefix: the root of the host's tree; None is the whole machine.
        now: the clock, in UTC.
        out: where lines go.

    Raises:
        UsageError: no fingerprints, an ordinary user without a prefix, or one that no install takes; nothing was read.
        NextStickError: the program lies on a medium that is not here.
        ApplianceError: as `open_media`, `check_media` and `copy_bootstrap_set`.
    """
    fingerprints, root = _parse_fingerprints(pin), _host_root(prefix)
    media = _open(job, now, out)
    bundle = media.select(job.select).value
    try:
        _check(media, out)
    except NextStickError as error:
        missing = missing_chunks(bundle.contents, media.source.holds)
        if missing:
            raise media.source.absent(missing) from None
        for line in (_PARTIAL, *fault_lines(error)):
            out.talk(line)
    folder = copy_bootstrap_set(bundle, media.source.open_chunk, root, on_progress=out.on_progress)
    arguments = ["install", *(os.path.abspath(path) for path in job.paths)]
    arguments += ["--select", job.select] if job.select else []
    arguments += ["--root", str(put_root(folder, job.root))]
    for fingerprint in fingerprints:
        arguments += ["--fingerprint", fingerprint]
    arguments += [] if prefix is None else ["--prefix", str(root)]
    out.talk(_COPIED.format(folder=_word(str(folder))))
    out.answer(" ".join(_word(word) for word in bootstrap_argv(folder, arguments, sys.executable)))


def _open(job: VerifierJob, now: datetime, out: Lines) -> OpenMedia:
    media = open_media(job.paths, by_newest(job.root, Floors(), now))
    if media.bundles[0].evidence.is_development:
        out.talk(f"DEVELOPMENT TRUST ROOT: {DEVELOPMENT_ROOT}")
    if warning := clock_warning(media.bundles[0]):
        out.talk(warning)
    for notice in media.notices:
        out.talk(escape(f"notice: {notice}"))
    return media


def _check(media: OpenMedia, out: Lines) -> None:
    checked = check_media(media, out.on_progress)
    answer = {
        **describe(media.bundles[0]),
        "path": str(media.media[0].layout.path),
        "files": checked.files,
        "bytes": checked.size_bytes,
        **describe_checked(media, checked),
    }
    if len(media.bundles) > 1:
        answer["bundles"] = [describe(found) for found in media.bundles]
    for line in lines(answer):
        out.answer(escape(line))


def _lasting_root(media: OpenMedia, job: VerifierJob) -> Path:
    """Where the root file lies after the sheet has removed its copies: on a medium, where the same bytes are there."""
    for one in media.media:
        if one.layout.medium.read(f"{BOOT}/{ROOT_FILE}", len(job.root)) == job.root:
            return one.layout.path / BOOT / ROOT_FILE
    return job.root_path


def _parse_fingerprints(text: str) -> Sequence[Digest]:
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


def _host_root(prefix: Path | None) -> Path:
    if prefix is None and os.geteuid() != 0:
        raise UsageError(
            "prefix.not-root",
            "/opt/appliance",
            expected="root, who may install for the whole machine",
            found="an ordinary user",
            hint="add --prefix DIR: everything then lies in that folder; or --verify-only, to copy nothing",
        )
    return check_prefix(prefix or Path("/"))


def _word(text: str) -> str:
    return shell_word(text, _TYPED)
