"""A delta carries what is missing, once, and says for which file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.builder.chunking.chunker import Source
from bundles.bundle import Bundle, open_bundle
from bundles.chunks.chunk import Chunk
from bundles.contents.format_2 import SitePermission
from bundles.delta import delta, held_by, needs_boot
from bundles.oci.layout import blob_path
from signing.digest import sha256
from signing.floors import Floors
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle, Bundle]:
    """Where the newer bundle lies, the older and the newer one: every file but the model has another note in it."""
    folder = tmp_path_factory.mktemp("workspace")
    workspace, first = build_toy(folder)
    old = open_bundle(first, workspace.root_file.read_bytes(), Floors(), NOW).value
    workspace, second = build_toy(folder, "1.0.1", note="another note")
    return second, old, open_bundle(second, workspace.root_file.read_bytes(), Floors(), NOW).value


def test_nothing_held_carries_the_whole_bundle(versions: tuple[Path, Bundle, Bundle]) -> None:
    path, _, new = versions
    carried = delta(new, ())
    assert list(carried.blobs) == new.blobs
    on_disk = {blob.name: blob.stat().st_size for blob in (path / "blobs/sha256").iterdir()}
    assert {chunk.sha256: chunk.size for chunk in carried.blobs} == on_disk
    assert carried.size_bytes == sum(on_disk.values())


def test_same_bundle_held_carries_the_two_documents_alone(versions: tuple[Path, Bundle, Bundle]) -> None:
    _, _, new = versions
    carried = delta(new, held_by(new.contents))
    assert carried.blobs == (Chunk(new.manifest, new.manifest_size), new.config)
    assert {entry.size_bytes for entry in carried.files} == {0}


def test_each_changed_file_carries_its_own_bytes_and_the_model_none(versions: tuple[Path, Bundle, Bundle]) -> None:
    path, old, new = versions
    carried = delta(new, held_by(old.contents))
    by_kind = {entry.file.kind: entry.size_bytes for entry in carried.files}
    assert by_kind.pop("model") == 0
    assert by_kind == {entry.file.kind: entry.file.size for entry in carried.files if entry.file.kind != "model"}
    # With what is held, every file of the new bundle can be made.
    have = {chunk.sha256 for chunk in carried.blobs} | held_by(old.contents)
    assert have >= held_by(new.contents)
    assert all((path / blob_path(chunk.sha256)).stat().st_size == chunk.size for chunk in carried.blobs)


def test_a_blob_that_two_files_share_is_carried_for_the_first_alone(tmp_path: Path) -> None:
    same = [Source(f"licences/{name}/LICENSE", "licence", data=b"the same words") for name in ("a", "b")]
    workspace, path = build_toy(tmp_path, extra=same)
    carried = delta(open_bundle(path, workspace.root_file.read_bytes(), Floors(), NOW).value, ())
    [first, second] = [entry for entry in carried.files if entry.file.path.endswith("LICENSE")]
    assert first.blobs == (Chunk(sha256(b"the same words"), 14),)
    assert second.blobs == ()


def test_boot_is_carried_only_where_the_program_of_the_place_cannot_read_the_new_bundle(
    versions: tuple[Path, Bundle, Bundle],
) -> None:
    _, old, new = versions
    assert not needs_boot(new.contents, old.contents.min_reader)
    newer = replace(new.contents, site=SitePermission(("adapter",)))
    assert newer.min_reader == 2
    assert needs_boot(newer, old.contents.min_reader)
    assert not needs_boot(newer, 2)
