"""Whether a bootstrap set that lies on this host is right already.

Owns the comparison of a folder with the signed RECORDs of wheels. It changes nothing.

Rules (threats T14, T24):
- a folder or file that another user may write does not count, nor a link or a FIFO; nothing of that kind is opened;
- exactly the listed files are there, each with its digest.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from bundles.contents.contents import File
from bundles.contents.wheel_record import parse_record
from signing.digest import Digest, sha256
from signing.errors import ApplianceError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def holds_program(
    folder: Path, program: str, files: Iterable[File], others: Mapping[str, Digest], ignored: Collection[str]
) -> bool:
    """Whether a folder holds exactly the packages of some wheels, by the digests of their RECORDs.

    Args:
        folder: untrusted; it may be missing.
        program: the name of the folder in it that holds the packages.
        files: verified; wheels.
        others: the files beside that folder, by name.
        ignored: names there that may be missing, and whose bytes do not count.
    """
    wanted: dict[str, str] = dict(others)
    try:
        # First of all, since nothing else may be opened: a FIFO would never answer.
        present = set(_own_files(folder, folder)) - set(ignored)
        records = {sha256(path.read_bytes()): path for path in (folder / program).glob("*.dist-info/RECORD")}
        for file in files:
            wanted.update(_listed(file, records, folder, program))
        return present == wanted.keys() and all(
            sha256((folder / path).read_bytes()) == digest for path, digest in wanted.items()
        )
    except (KeyError, OSError, ApplianceError):
        return False


def is_beside(path: str) -> bool:
    """Whether a member of a wheel is none of its packages: scripts and data, for which an installer has other places.

    Args:
        path: as the RECORD has it.
    """
    return path.partition("/")[0].endswith(".data")


def _own_files(folder: Path, top: Path) -> Iterator[str]:
    """The files of a set, by path below `top`.

    Raises:
        OSError: something there is neither folder nor file, or another user may write it.
    """
    for path in (folder, *folder.iterdir()):
        status = path.lstat()
        is_file, is_folder = stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode)
        if not (is_file or is_folder) or status.st_uid not in (0, os.geteuid()) or status.st_mode & _OTHERS_WRITE:
            raise OSError(errno.EINVAL, "no file or folder of this user alone", str(path))
        if is_file:
            yield str(path.relative_to(top))
        elif path != folder:
            yield from _own_files(path, top)


def _listed(file: File, records: Mapping[Digest, Path], folder: Path, program: str) -> Iterator[tuple[str, str]]:
    if file.record is None:
        raise KeyError(file.path)
    path = records[file.record]
    own = str(path.relative_to(folder / program))
    yield f"{program}/{own}", file.record
    for entry in parse_record(path.read_bytes(), own, file.path):
        if not is_beside(entry.path):
            yield f"{program}/{entry.path}", entry.sha256
