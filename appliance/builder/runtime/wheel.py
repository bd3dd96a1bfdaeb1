"""The wheel of the runtime as a file: the same files give the same bytes.

Owns the archive's layout and its dist-info. It must never read a clock, an owner or a file's own mode.

Rules:
- members sorted, dist-info last, RECORD the very last; one date, two modes, no folders, no symlinks, no extra fields;
- the name shows that it is not upstream's build: `0.3.36+appliance.<8 of the settings' digest>`.

Source: PyPA, binary distribution format; PEP 440 (local versions); PEP 639 (licence files).
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.runtime.repack import WheelFile
from appliance.builder.runtime.settings import DATE
from signing.digest import Digest, sha256

DISTRIBUTION = "llama_cpp_python"
_LEVEL = 9
_DROPPED = ("metadata-version", "version", "description-content-type", "license-file")


@dataclass(frozen=True, slots=True)
class WheelIdentity:
    """The name of the wheel.

    Args:
        version: with the local part.
        platform: the platform tag.
        distribution: its name, in the form of file names.
    """

    version: str
    platform: str
    distribution: str = DISTRIBUTION

    @property
    def tag(self) -> str:
        """Any Python 3: the binding is ctypes, no extension module."""
        return f"py3-none-{self.platform}"

    @property
    def file(self) -> str:
        """The wheel's file name."""
        return f"{self.distribution}-{self.version}-{self.tag}.whl"

    @property
    def dist_info(self) -> str:
        """The folder of the metadata."""
        return f"{self.distribution}-{self.version}.dist-info"


def local_version(version: str, settings: tuple[str, ...]) -> str:
    """The version of our build, for example `0.3.36+appliance.1a2b3c4d`.

    Args:
        version: upstream's.
        settings: of `settings.settings`.
    """
    digest = sha256("\n".join(settings).encode())
    # PEP 440 reads a part of digits alone as a number and drops its leading zeros.
    start = next(start for start in range(len(digest) - 8) if not digest[start : start + 8].isdigit())
    return f"{version}+appliance.{digest[start : start + 8]}"


def write_wheel(
    folder: Path, identity: WheelIdentity, parts: tuple[WheelFile, ...], pkg_info: bytes, licences: dict[str, Path]
) -> tuple[Path, int]:
    """Write the wheel. Memory is the largest of its files.

    Args:
        folder: exists; the file in it is replaced.
        identity: name, version, tag and date.
        parts: what goes into site-packages.
        pkg_info: metadata in the form of an sdist's PKG-INFO.
        licences: licence texts, by their path below the dist-info's `licenses/`.

    Returns:
        The wheel, and the size of its files when unpacked, in bytes.
    """
    contents: dict[str, tuple[int, Path | bytes]] = {part.path: (part.mode, part.source) for part in parts}
    for licence, text in licences.items():
        contents[f"{identity.dist_info}/licenses/{licence}"] = (0o644, text)
    contents[f"{identity.dist_info}/METADATA"] = (0o644, _metadata(pkg_info, identity, sorted(licences)))
    contents[f"{identity.dist_info}/WHEEL"] = (0o644, _wheel(identity))
    record: list[str] = []
    unpacked_bytes = 0
    path = folder / identity.file
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(contents, key=lambda name: (name.startswith(identity.dist_info), name)):
            mode, given = contents[name]
            data = given if isinstance(given, bytes) else given.read_bytes()
            _add(archive, name, mode, data)
            record.append(f"{name},sha256={_base64(data)},{len(data)}\n")
            unpacked_bytes += len(data)
        own = f"{identity.dist_info}/RECORD"
        data = "".join([*record, f"{own},,\n"]).encode()
        _add(archive, own, 0o644, data)
    return path, unpacked_bytes + len(data)


def _add(archive: zipfile.ZipFile, name: str, mode: int, data: bytes) -> None:
    info = zipfile.ZipInfo(name, time.gmtime(DATE)[:6])
    info.create_system = 3
    info.external_attr = (0o100000 | mode) << 16
    archive.writestr(info, data, zipfile.ZIP_DEFLATED, _LEVEL)


def _metadata(pkg_info: bytes, identity: WheelIdentity, licences: list[str]) -> bytes:
    # The headers only: the long description is for the page of a package index.
    header = pkg_info.decode("utf-8").replace("\r\n", "\n").partition("\n\n")[0]
    fields = [field for field in re.split(r"\n(?![ \t])", header) if field.partition(":")[0].lower() not in _DROPPED]
    fields = ["Metadata-Version: 2.4", fields[0], f"Version: {identity.version}", *fields[1:]]
    return "".join(f"{field}\n" for field in [*fields, *(f"License-File: {path}" for path in licences)]).encode()


def _wheel(identity: WheelIdentity) -> bytes:
    lines = ("Wheel-Version: 1.0", "Generator: airgap-appliance", "Root-Is-Purelib: false", f"Tag: {identity.tag}")
    return "".join(f"{line}\n" for line in lines).encode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def runtime_key(sdist: Digest, version: str, flags: tuple[str, ...], toolchain: Mapping[str, str]) -> Digest:
    """The digest of everything that decides the bytes of a runtime's wheel.

    Args:
        sdist: digest of the sources.
        version: of llama-cpp-python.
        flags: every setting that shapes the wheel.
        toolchain: name and version of everything that shapes its bytes.
    """
    recorded = (f"{name}={value}" for name, value in sorted(toolchain.items()))
    return fingerprint((f"sdist={sdist}", f"version={version}", *flags, *recorded))


def fingerprint(lines: tuple[str, ...]) -> Digest:
    """The digest of lines that together decide a build's bytes."""
    return sha256("\n".join(lines).encode())
