"""The wheel of this program itself, written from the running installation.

Owns how the program packs itself into a bundle. It must never run a build tool, nor read anything but its own
packages, playbooks, recipes, pages and metadata.

Rules:
- the same program gives the same bytes: from a checkout or an installed wheel, by any user, in any folder;
- members are sorted, stored without compression (compressors differ), dated by the lock, and have mode 0644;
- METADATA is written here, from the fields of the installed distribution: build tools write it in different forms;
- caches, tests, hidden files and backups are left out; a link is an error.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import importlib.resources
import io
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from appliance.resources import docs_path, playbooks_path, readme_path
from signing.errors import ApplianceError

DISTRIBUTION = "airgap-appliance"
PACKAGES = ("appliance", "bundles", "signing")
PLAYBOOKS = "appliance/playbooks"
DOCS = "appliance/docs"
_SKIPPED_FOLDERS = ("__pycache__", "tests")
_SKIPPED_ENDS = (".pyc", ".pyo", ".orig", ".rej", "~")
_FIRST_ZIP_DATE = 315532800  # 1980-01-01, the oldest date of a member of a ZIP file
_PLAIN_FIELDS = ("Name", "Version", "Summary", "License-Expression", "Requires-Python")


def build_appliance_wheel(destination_dir: Path, source_date_epoch: int) -> Path:
    """Write the wheel of the running distribution.

    Args:
        destination_dir: exists; the wheel replaces one of the same name there.
        source_date_epoch: seconds since 1970; the date of every member.

    Returns:
        The path of the wheel.

    Raises:
        ApplianceError: the program runs without being installed, or a link lies among its files.
    """
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise ApplianceError(
            "self.not-installed",
            DISTRIBUTION,
            expected="an installed distribution",
            found="modules without metadata",
            hint="install the program (make setup) and run its command appliance",
        ) from None
    stem = f"{DISTRIBUTION.replace('-', '_')}-{distribution.version}"
    members = dict(_modules())
    members |= {f"{stem}.dist-info/{name}": data for name, data in _dist_info(distribution).items()}
    record = f"{stem}.dist-info/RECORD"
    members[record] = _record(members, record)
    path = destination_dir / f"{stem}-py3-none-any.whl"
    # Every build writes it again, so nothing waits until it is on the disk.
    temp = path.with_name(f".{path.name}.partial")
    temp.write_bytes(_zip(members, source_date_epoch))
    temp.chmod(0o644)
    temp.replace(path)
    return path


def own_licence() -> bytes:
    """The text of this program's licence (Apache-2.0)."""
    checkout = Path(str(importlib.resources.files("appliance"))).parent
    if (checkout / "pyproject.toml").is_file():
        return (checkout / "LICENSE").read_bytes()
    text = importlib.metadata.distribution(DISTRIBUTION).read_text("licenses/LICENSE")
    return (text or "").encode()


def _modules() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        yield from _files(Path(str(importlib.resources.files(package))), package)
    yield from _files(playbooks_path(), PLAYBOOKS)
    yield from _files(docs_path(), DOCS)
    yield f"{DOCS}/README.md", readme_path().read_bytes()


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = f"{prefix}/{entry.name}"
        if entry.name.startswith(".") or entry.name.endswith(_SKIPPED_ENDS) or entry.name in _SKIPPED_FOLDERS:
            continue
        if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
            raise ApplianceError("self.odd-file", entry.path, expected="files and folders", found="a link or device")
        if entry.is_dir():
            yield from _files(Path(entry.path), name)
        else:
            with open(entry.path, "rb", buffering=0) as file:
                yield name, file.read()


def _dist_info(distribution: importlib.metadata.Distribution) -> dict[str, bytes]:
    scripts = sorted(
        (point for point in distribution.entry_points if point.group == "console_scripts"), key=lambda point: point.name
    )
    lines = ["[console_scripts]", *(f"{point.name} = {point.value}" for point in scripts)]
    wheel = f"Wheel-Version: 1.0\nGenerator: {DISTRIBUTION}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return {
        "METADATA": _metadata(distribution),
        "WHEEL": wheel.encode(),
        "entry_points.txt": ("\n".join(lines) + "\n").encode(),
        "licenses/LICENSE": own_licence(),
    }


def _metadata(distribution: importlib.metadata.Distribution) -> bytes:
    fields = distribution.metadata
    lines = ["Metadata-Version: 2.4"]
    lines += [f"{name}: {value}" for name in _PLAIN_FIELDS for value in fields.get_all(name) or []]
    lines.append("License-File: LICENSE")
    lines += [f"Provides-Extra: {extra}" for extra in sorted(fields.get_all("Provides-Extra") or [])]
    requires = {str(Requirement(text)) for text in fields.get_all("Requires-Dist") or []}
    lines += [f"Requires-Dist: {text}" for text in sorted(requires)]
    return ("\n".join(lines) + "\n").encode()


def _record(members: dict[str, bytes], record: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for name, data in sorted(members.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        writer.writerow([name, f"sha256={digest}", len(data)])
    writer.writerow([record, "", ""])
    return text.getvalue().encode()


def _zip(members: dict[str, bytes], epoch: int) -> bytes:
    # In memory: each member's header is written again when its size is known.
    date, file = time.gmtime(max(epoch, _FIRST_ZIP_DATE))[:6], io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # The specification recommends the dist-info folder at the end.
        for name in sorted(members, key=lambda name: (".dist-info/" in name, name)):
            info = zipfile.ZipInfo(name, date)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, members[name])
    return file.getvalue()
