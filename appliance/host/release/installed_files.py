"""The files that an installed release names, read from its own copy of the contents.

Owns the reading of that list by digest: the folder's name has the first digits of the manifest, the manifest the digest
of the contents. A list that was changed is a refusal here. Whether the release is trusted is for
`appliance.host.release.release`.
"""

from __future__ import annotations

from pathlib import Path

from appliance.host.layout.places import REPAIR_HINT
from bundles.contents.contents import File
from bundles.contents.contents_json import parse_contents
from bundles.oci.layout import INDEX_FILE, Layout, blob_path
from bundles.oci.manifest import MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, parse_index_of_one, parse_manifest
from signing.digest import Digest, sha256
from signing.errors import DamagedError

_BUNDLE = "bundle"
_ID_DIGITS = 12


def installed_files(release: Path, *, is_named: bool = True) -> tuple[File, ...]:
    """List the files that a release should have.

    Args:
        release: its folder; untrusted.
        is_named: whether the folder's name must have the digits of the manifest.

    Raises:
        DamagedError: the list is missing, or differs from the one that was installed.
        NotTrustedError: it breaks a rule of the format.
        OSError: it cannot be read.
    """
    medium = Layout(release / _BUNDLE).medium
    index = medium.read(INDEX_FILE, MAX_INDEX_BYTES)
    if index is None:
        raise _damaged(release, "no index")
    named = parse_index_of_one(index).sha256
    if is_named and not release.name.endswith(f"-{named[:_ID_DIGITS]}"):
        raise _damaged(release, f"manifest {named}")
    manifest = parse_manifest(_read(release, named, MAX_MANIFEST_BYTES))
    return parse_contents(_read(release, manifest.contents, manifest.contents_size)).files


def check_list(release: Path, wanted: Digest, data: bytes) -> None:
    """Refuse a list of files that differs from what its digest names (threat T126).

    Raises:
        DamagedError: code `release.list-changed`.
    """
    found = sha256(data)
    if found != wanted:
        raise _damaged(release, f"sha256 {found}", f"sha256 {wanted}")


def _read(release: Path, wanted: Digest, most: int) -> bytes:
    data = Layout(release / _BUNDLE).medium.read(blob_path(wanted), most)
    if data is None:
        raise _damaged(release, "none")
    check_list(release, wanted, data)
    return data


def _damaged(release: Path, found: str, expected: str = "its list of files, as it was installed") -> DamagedError:
    return DamagedError("release.list-changed", release.name, expected=expected, found=found, hint=REPAIR_HINT)
