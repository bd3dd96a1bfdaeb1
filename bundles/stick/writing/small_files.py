"""The files of a stick beside its blobs: metadata, targets, attestations, `BOOT/`, the index and what people read.

Owns which of several bundles each of them comes from. All sticks of a set get the same ones.

Rules:
- metadata is one chain: it comes whole from the bundle whose timestamp is the newest;
- `BOOT/` is one signed whole: it comes from the bundle whose serial is the highest;
- the index names every bundle, and comes last: a stick without it does not look like a bundle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bundles.bare_host.boot_check import MAX_FILE_BYTES
from bundles.bundle import Bundle
from bundles.oci.covered_names import is_attestation_path, is_boot_path, is_metadata_path
from bundles.oci.layout import (
    ATTESTATIONS,
    BOOT,
    INDEX_FILE,
    LAYOUT_FILE,
    METADATA,
    README_FILE,
    TARGETS,
    Layout,
    target_name,
)
from bundles.oci.manifest import index_of
from signing.errors import NotTrustedError
from signing.roles import MAX_BYTES
from signing.strictjson import load

_SERIAL = re.compile(BOOT + r"/serial-([0-9]+)\Z")


def read_small_files(sources: Sequence[Layout], bundles: Sequence[Bundle]) -> dict[str, bytes]:
    """Read what lies beside the blobs of some bundles, in the order in which it is written.

    Args:
        sources: the bundles' layouts, each checked by `bundles.medium_check`.
        bundles: every bundle that lies there, verified.

    Raises:
        NotTrustedError: a file is longer than any that the format gives.
    """
    newest, boot = max(sources, key=_timestamp_version), max(sources, key=_boot_serial)
    files: dict[str, bytes] = {}
    for source, folders in [
        (newest, (METADATA,)),
        *((one, (TARGETS, ATTESTATIONS)) for one in sources),
        (boot, (BOOT,)),
    ]:
        for path in (path for folder in folders for path in source.medium.walk(folder)):
            _read(source, path, files)
    for name in (LAYOUT_FILE, README_FILE):
        _read(sources[0], name, files)
    order = sorted(bundles, key=lambda one: target_name(one.contents.name, one.contents.version))
    named = dict.fromkeys((one.manifest, one.manifest_size) for one in order)
    return {**files, INDEX_FILE: index_of(*named)}


def older_files(stick: Layout, paths: Iterable[str]) -> list[str]:
    """Files that an older writing left, and that a reader would refuse beside these.

    `BOOT/` is one signed whole: a serial or key of an earlier one would make the new one a refusal. So would metadata
    that nothing leads to, and an attestation by a key that was revoked since.
    """
    keep = set(paths)
    ours = ((BOOT, is_boot_path), (METADATA, is_metadata_path), (ATTESTATIONS, is_attestation_path))
    there = (path for folder, is_ours in ours for path in stick.medium.walk(folder) if is_ours(path))
    return [path for path in there if path not in keep]


def _read(source: Layout, path: str, files: dict[str, bytes]) -> None:
    data = source.medium.read(path, MAX_FILE_BYTES)
    if data is not None and len(data) > MAX_FILE_BYTES:
        raise NotTrustedError("file.too-long", path, expected=f"at most {MAX_FILE_BYTES} bytes", found="more")
    if data is not None:
        files[path] = data


def _timestamp_version(source: Layout) -> int:
    data = source.medium.read(f"{METADATA}/timestamp.json", MAX_BYTES["timestamp"]) or b"{}"
    value = load(data, "timestamp.json")
    signed = value.get("signed") if isinstance(value, dict) else None
    version = signed.get("version") if isinstance(signed, dict) else None
    return version if isinstance(version, int) else 0


def _boot_serial(source: Layout) -> int:
    return max((int(match[1]) for path in source.medium.walk(BOOT) if (match := _SERIAL.match(path))), default=0)
