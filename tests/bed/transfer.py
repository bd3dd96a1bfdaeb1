"""Files to and from a host by a tar that runs there: links inside the host are resolved there, never here."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.bed.host import CommandError, Finished


def send(enter: Sequence[str], local: Path, remote: str) -> None:
    """Copy a file or a folder to an absolute path, modes kept, owner root.

    Args:
        enter: the words that run a command on the host.

    Raises:
        CommandError: the host could not write it.
    """
    argv = [*enter, "tar", "-x", "--directory=/"]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=errors) as process:
            assert process.stdin is not None
            try:
                with tarfile.open(fileobj=process.stdin, mode="w|", format=tarfile.GNU_FORMAT) as archive:
                    archive.add(local, remote.strip("/"), filter=_owned_by_root)
                process.stdin.close()
            except BrokenPipeError:
                process.kill()
        _require_ok(argv, process.returncode, errors)


def receive(enter: Sequence[str], remote: str, local: Path) -> None:
    """Copy a file or a folder from an absolute path.

    Raises:
        CommandError: the host could not read it.
    """
    path = Path(remote)
    argv = [*enter, "tar", "-c", f"--directory={path.parent}", "--", path.name]
    with (
        tempfile.TemporaryFile("w+") as errors,
        tempfile.TemporaryDirectory(dir=local.parent, prefix=".get-") as folder,
    ):
        with (
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors) as process,
            suppress(tarfile.ReadError),  # a tar that failed may have written nothing; its exit code says so
            tarfile.open(fileobj=process.stdout, mode="r|") as archive,
        ):
            archive.extractall(folder, filter="tar")
        _require_ok(argv, process.returncode, errors)
        shutil.move(Path(folder) / path.name, local)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _require_ok(argv: Sequence[str], code: int, errors: IO[str]) -> None:
    if code != 0:
        errors.seek(0)
        raise CommandError(argv, Finished(code, "", errors.read()))
