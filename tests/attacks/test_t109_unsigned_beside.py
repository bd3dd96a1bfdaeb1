"""T109: a bundle that nobody signed beside a signed one on the same medium."""

from __future__ import annotations

from bundles.bundle import open_bundles, read_index
from bundles.medium_check import check_medium
from bundles.oci.layout import INDEX_FILE, blob_path
from bundles.oci.manifest import index_of
from signing.digest import sha256
from signing.floors import Floors
from signing.strictjson import load, to_file
from tests.attacks.harness import MAX_JSON, Stick, command, guard_off, refused, row
from tests.toy import NOW

ROW = row(109)


def judge(stick: Stick) -> int:
    found = open_bundles(stick.path, stick.root, Floors(), NOW)
    check_medium(stick.layout, found)
    return len(found)


def add_unsigned(stick: Stick) -> str:
    """Put a manifest of another version beside the signed one, and name it in the index."""
    data = stick.blob(stick.manifest).read_bytes()
    manifest = load(data, "manifest", MAX_JSON)
    manifest["annotations"]["org.opencontainers.image.version"] = "6.6.6"
    other = to_file(manifest)
    stick.blob(sha256(other)).write_bytes(other)
    index = index_of((stick.manifest, len(data)), (sha256(other), len(other)))
    (stick.path / INDEX_FILE).write_bytes(index)
    return blob_path(sha256(other))


def test_unattacked_the_signed_one_alone_passes(stick: Stick) -> None:
    assert judge(stick) == 1


def test_attacked_the_whole_medium_is_refused(stick: Stick) -> None:
    add_unsigned(stick)
    refused(ROW, lambda: judge(stick), "target.unknown", "bundles/toy/6.6.6/manifest.json")
    assert command("verify", stick.path, "--trust", stick.root_file).code == 4


def test_attacked_the_same_manifest_twice_is_no_index(stick: Stick) -> None:
    size = stick.blob(stick.manifest).stat().st_size
    (stick.path / INDEX_FILE).write_bytes(index_of((stick.manifest, size), (stick.manifest, size)))
    refused(ROW, lambda: judge(stick), "manifest.refused", INDEX_FILE)


def test_unguarded_the_second_guard_finds_the_manifest_that_nobody_signed(stick: Stick) -> None:
    path = add_unsigned(stick)
    with guard_off(ROW.guard, lambda layout: read_index(layout)[:1]):
        refused(ROW, lambda: judge(stick), "layout.unlisted", path)
