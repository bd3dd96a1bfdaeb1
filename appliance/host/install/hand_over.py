"""The hand-over: a bundle is installed by the program that it brings, not by an older or newer one that runs here.

Owns the decision whether the running program is the bundle's own, and the start of the other one. The running program
has verified the medium; it copies the bundle's bootstrap set, and executes it with the same arguments. Lock, floors,
output and exit code are then those of the bundle's program.

Rules (threat T102):
- what is executed was copied by signed digests to this host; nothing of the medium is executed;
- a program that runs from the bootstrap set of a bundle installs that bundle itself, so a hand-over never repeats;
- programs are compared by the files that the wheel's signed RECORD lists, wherever the running program lies;
- a bundle whose program is too old to be handed over to is installed by the running program.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import appliance
from appliance.host.layout.prefix import Prefix
from appliance.host.release.bootstrap import find_python
from appliance.host.release.held_chunks import held_chunks
from appliance.host.release.held_source import HeldSource
from bundles.bootstrap_set import (
    LAUNCHER_FILE,
    PROGRAM_FOLDER,
    bootstrap_argv,
    bootstrap_folder,
    bootstrap_root,
    copy_bootstrap_set,
    missing_chunks,
    own_wheel,
    remove_bootstrap_sets,
)
from bundles.bundle import Bundle
from bundles.chunks.copy import copy_files
from bundles.chunks.source import ChunkSource, Seeds
from bundles.chunks.work_file import CopyJob
from bundles.contents.contents import Contents, File
from bundles.contents.signed_wheel import read_record
from bundles.contents.wheel_record import RecordEntry
from bundles.progress import OnProgress, ignore
from signing.digest import Digest, sha256
from signing.errors import UsageError

MARK = "appliance/host/install/hand_over.py"
"""A program with this file can be handed over to."""
PLAN = "--plan"
PLAN_FILE = "appliance/host/install/planning/plan_file.py"
"""A program with this file compares an install with a plan."""
NEWER_FLAGS = {"--older": "appliance/host/preflight/older.py"}
"""Flags that a program knows if it has the file. One without the file makes no such check."""
_BESIDE = ("appliance/docs/", "appliance/playbooks/")
"""Where a wheel keeps what lies elsewhere in a checkout; no code."""

Execute = Callable[[str, list[str]], NoReturn]


def _execute(program: str, argv: list[str]) -> NoReturn:
    os.execv(program, argv)


def running_top() -> Path:
    """The folder that holds the packages of the running program."""
    return Path(appliance.__file__).resolve().parents[1]


def hand_over(
    bundle: Bundle,
    source: ChunkSource,
    prefix: Prefix,
    system: str,
    arguments: Sequence[str],
    on_progress: OnProgress = ignore,
    announce: Callable[[], None] = lambda: None,
    execute: Execute = _execute,
) -> None:
    """Let the bundle's own program go on, where that is another than the running one. Else it returns.

    Args:
        bundle: verified.
        source: the media, untrusted.
        prefix: the host; its bootstrap set is written there.
        system: of this machine, such as `debian-12`.
        arguments: of the command, for the other program.
        on_progress: called with bytes copied.
        announce: called right before the other program starts.
        execute: replaces this process; for tests.

    Raises:
        DamagedError, NotTrustedError: a blob of the program is not what was signed.
        NextStickError: the program is on another medium of the set.
        ApplianceError: the disk is full, or another process copies the program.
    """
    wheel = own_wheel(bundle.contents)
    if wheel is None or not wheel.bootstrap or runs_from_set_of(bundle, prefix) or not _can_write(prefix):
        return
    python = find_python(_versions(bundle.contents, system), "")
    if python is None:
        return  # the preflight of the running program names this with all other reasons
    version = _version(python.minor)
    # A medium may leave out what this host has in a release.
    seeds = held_chunks(prefix) if missing_chunks(bundle.contents, source.holds, version) else {}
    held = HeldSource(source, seeds)
    while missing := missing_chunks(bundle.contents, held.holds, version):
        wait = getattr(source, "wait_for", None)
        if wait is None:
            break  # the copy names what is missing
        wait(missing)
    entries = _read_entries(wheel, source, seeds)
    if not any(entry.path == MARK for entry in entries) or _is_running(entries):
        return
    folder = copy_bootstrap_set(bundle, held.open_chunk, prefix.root, version, on_progress, held.pass_over)
    argv = bootstrap_argv(folder, words_for(entries, arguments), str(python.path))
    announce()
    execute(argv[0], argv)


def words_for(entries: Sequence[RecordEntry], arguments: Sequence[str]) -> list[str]:
    """The words of a command for another program, without the flags that it does not know yet.

    Args:
        entries: the files of that program.
        arguments: as typed, with `--` before the paths.

    Raises:
        UsageError: a plan is to be compared, and that program cannot.
    """
    files = {entry.path for entry in entries}
    unknown = {flag for flag, file in NEWER_FLAGS.items() if file not in files}
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    if PLAN in arguments[:end] and PLAN_FILE not in files:
        raise UsageError(
            "plan.older-program",
            PLAN,
            expected="a bundle whose program compares an install with a plan",
            found="a program of an older version, which installs this bundle",
            hint="read the plan that the install shows, and answer its question: the same command without --plan",
        )
    return [word for at, word in enumerate(arguments) if at > end or word not in unknown]


def runs_from_set_of(bundle: Bundle, prefix: Prefix) -> bool:
    """Whether the running program lies in the bootstrap set of this bundle: it installs the bundle itself."""
    return running_top() == bootstrap_folder(prefix.root, bundle.manifest) / PROGRAM_FOLDER


@contextmanager
def own_set_kept() -> Iterator[None]:
    """Keep the bootstrap set that this program runs from during a block: `remove_unused_sets` passes it over."""
    launcher = running_top().parent / LAUNCHER_FILE
    if running_top().name != PROGRAM_FOLDER or not launcher.is_file():
        yield
        return
    descriptor = os.open(launcher, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def remove_unused_sets(prefix: Prefix, manifest: Digest) -> None:
    """Remove the bootstrap sets of a host but that of one bundle, and those that a program runs from.

    Args:
        prefix: the host.
        manifest: of the bundle that serves; its set repairs it.

    Raises:
        BusyError: another process copies a program at this moment.
        OSError: a folder cannot be removed.
    """
    used = {Digest(folder.name) for folder in _sets(prefix) if _is_used(folder)}
    remove_bootstrap_sets(prefix.root, {manifest, *used})


def _sets(prefix: Prefix) -> Iterator[Path]:
    return bootstrap_root(prefix.root).glob("*/")


def _is_used(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / LAUNCHER_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _can_write(prefix: Prefix) -> bool:
    """Whether this user can install here at all; the preflight of the running program reports it otherwise."""
    folder = next(folder for folder in (prefix.opt, *prefix.opt.parents) if folder.is_dir())
    return os.access(folder, os.W_OK | os.X_OK)


def _versions(contents: Contents, system: str) -> tuple[str, ...]:
    targets = [target for target in contents.targets if target.os == system]
    return tuple(version for target in targets or contents.targets for version in target.python)


def _version(minor: str) -> tuple[int, int]:
    first, _, second = minor.partition(".")
    return int(first), int(second)


def _read_entries(wheel: File, source: ChunkSource, seeds: Seeds) -> tuple[RecordEntry, ...]:
    with tempfile.TemporaryDirectory(prefix="appliance-program-") as name:
        path = Path(name) / "program.whl"
        copy_files([CopyJob(wheel, path)], source, seeds)
        return read_record(wheel, path).entries


def _is_running(entries: Sequence[RecordEntry]) -> bool:
    """Whether the running program has exactly these files."""
    top = running_top()
    code = [entry for entry in entries if ".dist-info/" not in entry.path and not entry.path.startswith(_BESIDE)]
    try:
        return all(sha256((top / entry.path).read_bytes()) == entry.sha256 for entry in code)
    except OSError:
        return False
