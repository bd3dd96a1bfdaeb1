"""The bootstrap set: the program of a verified bundle, copied and unpacked so that a host's own python3 can start it.

Owns the folder `opt/appliance/bootstrap/<first 12 digits of the manifest>/` of a host: its files, how they are made,
and how the program in it is started. A bare host begins with it, and so does an install by the bundle's own program.

Rules (threats T14, T16, T24):
- the bundle is verified; every chunk is hashed while it is copied, and only the copy is read after that;
- each file comes out of a wheel whose RECORD has the signed digest, with the size and digest that its line states;
- the folder gets its name when all of it is right and durable; a right one is kept, and any other is made again;
- only folders and files that no other user may write count; a link in the place of one is removed, never followed;
- the program sees Python's own library and itself: no package of the machine or of a user (`-I -S`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

from bundles.bare_host.program_check import holds_program, is_beside
from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import PassOver, never
from bundles.chunks.transfer import take, writing_to
from bundles.contents.contents import Contents, File
from bundles.contents.paths import check_path, check_unique
from bundles.contents.signed_wheel import WheelRecord, read_members, read_record
from bundles.durability import sync_file_system
from bundles.medium import disk_full, explain_write, sync_folder
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest, sha256
from signing.errors import BusyError, HostUnfitError, NotTrustedError

LAUNCHER_FILE, PROGRAM_FOLDER, ROOT_FILE = "start.py", "program", "root.json"
MAX_PROGRAM_BYTES = 512 << 20
"""Of all files together, as their RECORDs state them; the real ones have about 30 MB."""
OLDEST_PYTHON = (3, 10)
"""Of the program; the verifier itself needs less."""
_BOOTSTRAP = "opt/appliance/bootstrap"
_BLOCK_BYTES = 4 << 10
_LAUNCHER = b'''\
"""Start the program beside this file: python3 -I -S -B start.py COMMAND"""
import os
import sys

if not (sys.flags.isolated and sys.flags.no_site):
    sys.exit("start it with: python3 -I -S -B")
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "program"))

from appliance.cli.main import main

main()
'''


def bootstrap_root(prefix: Path) -> Path:
    """The folder with one bootstrap set for each bundle that this host began to install.

    Args:
        prefix: the root of the host's tree, for example `/`.
    """
    return prefix / _BOOTSTRAP


def bootstrap_folder(prefix: Path, manifest: Digest) -> Path:
    """Where the bootstrap set of a bundle lies, whether it is there or not."""
    return bootstrap_root(prefix) / manifest[:12]


def bootstrap_argv(folder: Path, arguments: Sequence[str], python: str = "") -> list[str]:
    """The command that runs the program of a bootstrap set.

    Args:
        folder: of `copy_bootstrap_set`.
        arguments: for example `["install", "/media/stick"]`.
        python: the interpreter; the running one where it is empty.
    """
    return [python or sys.executable, "-I", "-S", "-B", str(folder / LAUNCHER_FILE), *arguments]


def bootstrap_files(contents: Contents, python: tuple[int, int]) -> tuple[File, ...]:
    """The wheels of the program for one version of Python.

    Args:
        contents: verified.
        python: major and minor version, for example `(3, 11)`.

    Raises:
        HostUnfitError: the bundle brings no program, or none for this Python.
    """
    version = f"{python[0]}.{python[1]}"
    wheels = [file for file in contents.of_kind("wheel") if file.bootstrap]
    if own_wheel(contents) not in wheels:
        raise HostUnfitError(
            "bootstrap.none",
            f"{contents.name} {contents.version}",
            expected="a bundle that brings the program for a host without one",
            found="none in it",
            hint="begin with a bundle that holds a runtime; it brings the program",
        )
    known = {one for target in contents.targets for one in target.python}
    if version not in known or python < OLDEST_PYTHON:
        raise HostUnfitError(
            "bootstrap.python",
            "python3",
            expected=f"Python {' or '.join(sorted(known))}, for which this bundle was built",
            found=f"Python {version}",
            hint="install it on this host, or ask the publisher for a bundle that is built for this Python",
        )
    own = f"wheels/cp{python[0]}{python[1]}/"
    return tuple(file for file in wheels if file.path.startswith(own) or file.path.count("/") == 1)


def own_wheel(contents: Contents) -> File | None:
    """The wheel of this project's program in a bundle; two builds of the program differ in its `record`."""
    named = (file for file in contents.of_kind("wheel") if file.path.startswith("wheels/airgap_appliance-"))
    return next(named, None)


def missing_chunks(
    contents: Contents, holds: Callable[[Chunk], bool], python: tuple[int, int] = sys.version_info[:2]
) -> tuple[Chunk, ...]:
    """The chunks of the bootstrap set that a medium lacks.

    Args:
        contents: verified.
        holds: whether the medium has the blob of a chunk.
        python: as for `bootstrap_files`, which raises the errors.
    """
    chunks = (chunk for file in bootstrap_files(contents, python) for chunk in file.chunks)
    return tuple(chunk for chunk in dict.fromkeys(chunks) if not holds(chunk))


def copy_bootstrap_set(
    bundle: Bundle,
    open_chunk: Callable[[Chunk], int],
    prefix: Path,
    python: tuple[int, int] = sys.version_info[:2],
    on_progress: OnProgress = ignore,
    pass_over: PassOver = never,
) -> Path:
    """Copy the program of a bundle from a medium and unpack it, where that has not been done.

    Args:
        bundle: verified.
        open_chunk: opens a blob, untrusted, for reading at the chunk's first byte; the descriptor is closed here.
        prefix: the root of the host's tree; folders are made where they are missing.
        python: major and minor version of the interpreter that is to run it.
        on_progress: called with bytes done.
        pass_over: asked with each damaged copy of a blob whether `open_chunk` gives another one.

    Returns:
        The folder, complete and durable.

    Raises:
        HostUnfitError: as `bootstrap_files`, or no program may run from that file system (code `prefix.noexec`).
        DamagedError: a blob or a member of a wheel differs from what was signed.
        NotTrustedError: a blob is longer than signed, or a RECORD breaks a rule.
        BusyError: another process makes the set at this moment.
        ApplianceError: the disk is full, or may not be written.
    """
    files = bootstrap_files(bundle.contents, python)
    folder = bootstrap_folder(prefix, bundle.manifest)
    try:
        _make_folders(folder.parent)
        _check_may_run(folder.parent)
        with _locked(folder.parent):
            if not holds_program(folder, PROGRAM_FOLDER, files, {LAUNCHER_FILE: sha256(_LAUNCHER)}, {ROOT_FILE}):
                try:
                    _make(folder, files, open_chunk, on_progress, pass_over)
                finally:  # a full disk gets its room back
                    shutil.rmtree(_partial(folder), ignore_errors=True)
    except OSError as error:
        raise explain_write(error, folder, sum(file.size for file in files)) from None
    return folder


def put_root(folder: Path, data: bytes) -> Path:
    """Put a root file beside the program, for the command that pins it; returns where it lies.

    Args:
        folder: of `copy_bootstrap_set`.
        data: the root that a person has chosen to trust.

    Raises:
        BusyError: another process makes a set at this moment.
        ApplianceError: the disk is full, or may not be written.
    """
    path, partial = folder / ROOT_FILE, folder.with_name(f"{folder.name}.{ROOT_FILE}")
    try:
        with _locked(folder.parent):
            _remove(partial)
            _write(partial, data)
            partial.replace(path)
            sync_folder(folder)
    except OSError as error:
        raise explain_write(error, path, len(data)) from None
    return path


def remove_bootstrap_sets(prefix: Path, keep: Collection[Digest]) -> None:
    """Remove every bootstrap set of a host but those of some bundles, and what interrupted copies have left.

    Args:
        prefix: the root of the host's tree.
        keep: manifests. A program that runs from a set must keep its own: it imports from it until it ends.

    Raises:
        BusyError: another process makes a set at this moment.
    """
    root = bootstrap_root(prefix)
    if not root.is_dir():
        return
    kept = {".lock", *(bootstrap_folder(prefix, manifest).name for manifest in keep)}
    with _locked(root):
        for path in root.iterdir():
            if path.name not in kept:
                _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder, or what lies in its place; a link is not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_may_run(folder: Path) -> None:
    """Refuse a file system whose programs the kernel does not run: parts of the program are machine code."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise HostUnfitError(
            "prefix.noexec",
            str(folder),
            expected="a file system from which programs may run",
            found="one that is mounted with noexec",
            hint="name a folder elsewhere with --prefix, or ask root to mount it without noexec",
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                "bootstrap.busy",
                str(folder),
                expected="one copy of the program at a time",
                found="another run is making one",
                hint="wait until it has ended, then run the same command again",
            ) from None
        yield
    finally:
        os.close(descriptor)


def _partial(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _make(
    folder: Path,
    files: Iterable[File],
    open_chunk: Callable[[Chunk], int],
    on_progress: OnProgress,
    pass_over: PassOver,
) -> None:
    partial, old = _partial(folder), folder.with_name(f"{folder.name}.old")
    for leftover in (partial, old):
        _remove(leftover)
    program = partial / PROGRAM_FOLDER
    _make_folders(program)
    files = tuple(files)
    total, done = sum(file.size for file in files), 0
    wheels: list[tuple[File, Path, WheelRecord]] = []
    for number, file in enumerate(files):
        wheel = partial / f"{number}.whl"
        _copy(file, open_chunk, wheel, pass_over)
        wheels.append((file, wheel, read_record(file, wheel)))
        done += file.size
        on_progress(Progress("copying the program", done, total))
    records = [record for _, _, record in wheels]
    _check_paths(files, records)
    status, room = os.statvfs(partial), _room(records)
    if status.f_bavail * status.f_frsize < room:
        raise disk_full(folder, room)
    for file, wheel, record in wheels:
        _unpack(file, wheel, record, program)
        wheel.unlink()
    _write(partial / LAUNCHER_FILE, _LAUNCHER)
    sync_file_system(partial)
    if os.path.lexists(folder):
        folder.rename(old)
    partial.rename(folder)
    sync_folder(folder.parent)
    _remove(old)


def _copy(file: File, open_chunk: Callable[[Chunk], int], wheel: Path, pass_over: PassOver) -> None:
    with open(wheel, "xb") as stream:
        at = 0
        for chunk in file.chunks:
            take(open_chunk, chunk, writing_to(stream.fileno(), at), file.path, pass_over)
            at += chunk.size


def _check_paths(files: Iterable[File], records: Iterable[WheelRecord]) -> None:
    """Refuse paths that leave the folder or meet each other, and more bytes than any program has."""
    paths: list[str] = []
    total = 0
    for record in records:
        entries = [entry for entry in record.entries if not is_beside(entry.path)]
        paths += [check_path(path) for path in (record.path, *(entry.path for entry in entries))]
        total += sum(entry.size for entry in entries)
    subject = ", ".join(file.path for file in files)[:120]
    check_unique(paths, subject)
    if total > MAX_PROGRAM_BYTES:
        raise NotTrustedError(
            "bootstrap.too-long", subject, expected=f"at most {MAX_PROGRAM_BYTES} bytes", found=f"{total}"
        )


def _room(records: Iterable[WheelRecord]) -> int:
    """How much room the files take on a disk, in bytes."""
    return sum(
        size + _BLOCK_BYTES
        for record in records
        for size in (len(record.data), *(entry.size for entry in record.entries))
    )


def _unpack(file: File, wheel: Path, record: WheelRecord, program: Path) -> None:
    _write(program / record.path, record.data)
    entries = [entry for entry in record.entries if not is_beside(entry.path)]
    for entry, data in read_members(file, wheel, entries):
        _write(program / entry.path, data)


def _write(path: Path, data: bytes) -> None:
    _make_folders(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as stream:
        os.fchmod(descriptor, 0o644)
        stream.write(data)


def _make_folders(folder: Path) -> None:
    """Make folders with one mode, whatever the umask: other users must be able to go through them later."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
