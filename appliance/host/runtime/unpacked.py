"""The unpacked runtime: one that this program can run on this machine without an install.

Owns the unpacking of a runtime from an installed release, a bundle or a wheel, into a private folder that does not
stay. Members of a release or a bundle are compared with the signed contents. A wheel of the builder's cache is
compared by the caller.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from appliance.host.machine.cpu import REFERENCE
from appliance.host.release.release import VARIANT_PREFIX, Release
from appliance.host.runtime.loader import CPU_LIBRARY, LIBRARY, PACKAGE
from appliance.host.runtime.memory_probe import Runtime
from bundles.chunks.check import check_file
from bundles.chunks.copy import copy_files
from bundles.chunks.source import ChunkSource
from bundles.chunks.work_file import CopyJob
from bundles.contents.contents import Contents, File
from bundles.contents.signed_wheel import extract_members, open_wheel
from signing.errors import UsageError

_MAX_MEMBER_BYTES = 256 << 20
_EXECUTABLE = 0o755


@dataclass(frozen=True, slots=True)
class UnpackedRuntime:
    """An unpacked runtime.

    Args:
        everything: a folder with all programs and libraries, and all CPU variants.
        package: the folder that holds the binding.
        variants: the names of the CPU variants in `everything`.
    """

    everything: Path
    package: Path
    variants: tuple[str, ...]

    def folder_with(self, variant: str) -> Path:
        """A folder beside `everything` with this one variant; made at the first call."""
        folder = self.everything.with_name(f"only-{variant}")
        if not folder.exists():
            folder.mkdir(mode=0o700)
            for name in os.listdir(self.everything):
                if not name.startswith(VARIANT_PREFIX) or name == CPU_LIBRARY.format(variant):
                    os.link(self.everything / name, folder / name)
        return folder

    def runtime(self, variant: str = REFERENCE) -> Runtime:
        """This runtime with one variant; by default with x64, which runs on every machine."""
        return Runtime(self.folder_with(variant), variant, Path(sys.executable), self.package)


def of_release(release: Release, scratch: Path) -> UnpackedRuntime:
    """Unpack the runtime of an installed release from its wheel.

    Args:
        release: opened.
        scratch: a private folder.

    Raises:
        DamagedError: the wheel is not what was signed.
    """

    def wheel_of(file: File) -> Path:
        check_file(file, release.place(file))
        return release.place(file)

    return _unpack(release.contents, wheel_of, scratch)


def of_bundle(source: ChunkSource, contents: Contents, scratch: Path) -> UnpackedRuntime:
    """Unpack the runtime of a bundle or stick.

    Args:
        source: untrusted.
        contents: signed, verified.
        scratch: a private folder.

    Raises:
        DamagedError: a blob differs, or is missing.
        UsageError: the bundle has no runtime.
    """

    def wheel_of(file: File) -> Path:
        path = scratch / PurePosixPath(file.path).name
        copy_files((CopyJob(file, path),), source)
        return path

    return _unpack(contents, wheel_of, scratch)


def of_wheel(wheel: Path, scratch: Path) -> UnpackedRuntime:
    """Unpack the runtime from a wheel that the caller has verified.

    Args:
        wheel: of the runtime.
        scratch: a private folder.
    """
    folder = _folder(scratch, "all")
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            path = PurePosixPath(info.filename)
            if path.parent == PurePosixPath(PACKAGE, "lib") and info.file_size < _MAX_MEMBER_BYTES:
                (folder / path.name).write_bytes(archive.read(info))
                (folder / path.name).chmod(_EXECUTABLE)
        return _unpacked(folder, _unpack_package(archive, scratch))


def _unpack(contents: Contents, wheel_of: Callable[[File], Path], scratch: Path) -> UnpackedRuntime:
    package = None
    folder = _folder(scratch, "all")
    for file in contents.of_kind("runtime"):
        wheel = wheel_of(file)
        extract_members(file, wheel, file.members, folder)
        with open_wheel(file, wheel) as archive:
            package = _unpack_package(archive, scratch)
    if package is None or not (folder / LIBRARY).exists():
        raise UsageError("runtime.none", contents.name, expected="a runtime in this bundle", found="none")
    return _unpacked(folder, package)


def _unpack_package(archive: zipfile.ZipFile, scratch: Path) -> Path:
    folder = _folder(scratch, "package")
    (folder / PACKAGE).mkdir(exist_ok=True)
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        if path.parent == PurePosixPath(PACKAGE) and path.suffix == ".py" and info.file_size < _MAX_MEMBER_BYTES:
            (folder / PACKAGE / path.name).write_bytes(archive.read(info))
    return folder


def _unpacked(folder: Path, package: Path) -> UnpackedRuntime:
    start, end = CPU_LIBRARY.split("{}")
    names = sorted(name for name in os.listdir(folder) if name.startswith(start) and name.endswith(end))
    return UnpackedRuntime(folder, package, tuple(name[len(start) : -len(end)] for name in names))


def _folder(scratch: Path, name: str) -> Path:
    folder = scratch / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
