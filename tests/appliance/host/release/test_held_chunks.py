"""What a host holds is listed from its releases, and a release that cannot be read is left out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from appliance.host.install.importer import accept, import_files, import_layout
from appliance.host.layout.places import place
from appliance.host.release.held_chunks import held_chunks
from appliance.host.release.held_source import HeldSource
from bundles.bundle import Bundle
from bundles.chunks.check import placed
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import Seed
from bundles.oci.layout import INDEX_FILE, Layout, blob_path
from bundles.progress import ignore
from signing.digest import sha256
from signing.errors import DamagedError
from tests.appliance.sim_host import SimHost, new_host
from tests.toy import NOW


@pytest.fixture
def host(tmp_path: Path) -> SimHost:
    made = new_host(tmp_path)
    made.prefix.create()
    return made


def take_in(host: SimHost, folder: str = "") -> tuple[Path, Bundle]:
    found = host.verify()
    bundle = found.value
    path = host.prefix.releases / folder if folder else host.prefix.release_path("1.0.0", bundle.manifest)
    accept(host.prefix, found, host.trust)
    import_layout(Layout(host.source), path, found, host.trust, NOW)
    import_files(host.prefix, Layout(host.source), path, bundle, ignore)
    return path, bundle


def test_every_chunk_of_a_release_is_listed_where_it_lies(host: SimHost) -> None:
    path, bundle = take_in(host)
    held = held_chunks(host.prefix)
    for file in bundle.contents.files:
        for start, chunk in placed(file):
            assert Seed(place(host.prefix, path, file), start) in held[chunk.sha256]


def test_file_that_is_missing_or_has_another_length_is_left_out(host: SimHost) -> None:
    path, bundle = take_in(host)
    playbook, licence = bundle.contents.of_kind("playbook")[0], bundle.contents.of_kind("licence")[0]
    place(host.prefix, path, playbook).write_bytes(b"longer than it was signed")
    place(host.prefix, path, licence).unlink()
    held = held_chunks(host.prefix)
    assert held.keys() & {file.chunks[0].sha256 for file in (playbook, licence)} == set()
    assert len(held) == len({chunk for file in bundle.contents.files for chunk in file.chunks}) - 2


@pytest.mark.parametrize("what", ["index", "manifest", "contents", "everything"])
def test_release_that_cannot_be_read_is_left_out(host: SimHost, what: str) -> None:
    path, bundle = take_in(host)
    names = {"index": INDEX_FILE, "manifest": blob_path(bundle.manifest), "contents": blob_path(bundle.config.sha256)}
    if what in names:
        (path / "bundle" / names[what]).write_bytes(b"{}")
    else:
        shutil.rmtree(path / "bundle")
    assert held_chunks(host.prefix) == {}


def test_at_most_four_places_of_a_chunk_are_listed(host: SimHost) -> None:
    for number in range(6):
        take_in(host, f"release-{number}")
    assert max(len(places) for places in held_chunks(host.prefix).values()) == 4


def test_second_release_with_the_same_bytes_reads_nothing_from_the_medium(host: SimHost) -> None:
    take_in(host)
    found = host.verify()
    other = host.prefix.releases / "other"
    count = import_files(host.prefix, Layout(host.source), other, found.value, ignore).count
    assert (count.medium_bytes, count.copied_bytes) == (0, count.held_bytes)
    assert count.copied > count.kept


@pytest.mark.parametrize("harm", ["", "other bytes", "cut", "gone"])
def test_what_no_medium_has_is_read_from_the_host_after_it_was_hashed(tmp_path: Path, harm: str) -> None:
    data, file = b"held by this host", tmp_path / "file"
    file.write_bytes(b"before" + {"other bytes": b"other bytes......", "cut": data[:-1]}.get(harm, data) + b"behind")
    if harm == "gone":
        file.unlink()
    chunk = Chunk(sha256(data), len(data))
    source = HeldSource(Layout(tmp_path / "medium"), {chunk.sha256: [Seed(file, len(b"before"))]})
    assert source.holds(chunk) == (not harm)
    if harm:
        with pytest.raises(DamagedError) as caught:
            source.open_chunk(chunk)
        assert caught.value.code == "blob.missing"
    else:
        with os.fdopen(source.open_chunk(chunk), "rb") as stream:
            assert stream.read() == data
