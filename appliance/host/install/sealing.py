"""Sealing what an install has stored: the models, and the programs and libraries of the engine.

Owns which files of a release get a seal of fs-verity, and what becomes of recorded incidents.

Rules:
- a file is sealed after its bytes were compared with the signed ones, and never before;
- a file that cannot be sealed stays as it is: the warning names the reason and the way to a seal;
- an incident is cleared only where every byte of that file was just read from the disk and is right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from appliance.host.layout.places import STORED, place
from appliance.host.layout.prefix import Prefix
from appliance.host.models.incident import clear_incidents, incident_file
from appliance.host.models.seal import FAILED, NO_FEATURE, OTHER_BLOCKS, SealResult, describe_missing_seal, seal
from appliance.host.release.release import runtime_members
from bundles.contents.contents import Contents, File
from bundles.durability import forget_cached
from signing.digest import Digest


def forget_stopped_models(prefix: Prefix, release: Path, contents: Contents) -> None:
    """Have the disk asked again for each model with an incident: the memory may hold its bytes as they were.

    Args:
        prefix, release: the host, and the release's folder.
        contents: verified.
    """
    for file in _stored(contents):
        if os.path.lexists(incident_file(prefix, file.sha256)):
            with suppress(OSError):
                descriptor = os.open(place(prefix, release, file), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    forget_cached(descriptor)
                finally:
                    os.close(descriptor)


def seal_models(prefix: Prefix, release: Path, contents: Contents) -> dict[str, SealResult]:
    """Seal the models of a release, and clear the incidents of their files. Reads each model once more.

    Args:
        prefix, release: the host, and the release's folder; every byte of the models was compared.
        contents: verified.

    Returns:
        What became of each, by its path in the bundle.

    Raises:
        OSError: the record of an incident cannot be removed.
    """
    outcomes = {
        file.path: _seal(place(prefix, release, file), file.fsverity)
        for file in _stored(contents)
        if file.fsverity is not None
    }
    clear_incidents(prefix, {file.sha256 for file in _stored(contents)})
    return outcomes


def seal_runtime(folder: Path, contents: Contents) -> dict[str, SealResult]:
    """Seal the programs and libraries of the engine, whose bytes were compared. They are read once more.

    Args:
        folder: the release's `runtime/`.
        contents: verified.
    """
    outcomes = {}
    for _, member in runtime_members(contents):
        path = folder / PurePosixPath(member.path).name
        if path.exists():  # of the CPU variants there is one
            outcomes[f"runtime/{path.name}"] = _seal(path, member.fsverity)
    return outcomes


def seal_warnings(models: dict[str, SealResult]) -> Iterator[str]:
    """What an operator should know where models are not sealed although this host seals files."""
    expected = (NO_FEATURE, OTHER_BLOCKS)  # preflight has reported it
    if text := describe_missing_seal({name: one for name, one in models.items() if one.outcome not in expected}):
        yield text


def _seal(path: Path, expected: Digest) -> SealResult:
    try:
        return seal(path, expected)
    except OSError as error:
        return SealResult(FAILED, error.strerror or "")


def _stored(contents: Contents) -> tuple[File, ...]:
    return contents.of_kind(*STORED)
