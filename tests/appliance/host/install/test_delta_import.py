"""A delta on a stick, a host that holds the rest: the host ends with the signed bytes, or with an error."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.host.install.importer import accept, import_files, import_layout
from appliance.host.layout.places import place
from appliance.host.release.held_chunks import held_chunks
from bundles.bundle import Bundle, open_bundle
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.delta import delta, held_by
from bundles.oci.layout import Layout
from bundles.progress import ignore
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError
from signing.floors import Floors
from tests.appliance.sim_host import SimHost, build_bundle, new_host
from tests.toy import NOW


class CarriedBlobs:
    """A medium that holds some blobs of a bundle."""

    def __init__(self, layout: Layout, carried: Collection[Digest]) -> None:
        self.layout, self.carried = layout, carried
        self.opened: list[Digest] = []

    def holds(self, chunk: Chunk) -> bool:
        return chunk.sha256 in self.carried

    def open_chunk(self, chunk: Chunk) -> int:
        if not self.holds(chunk):
            raise DamagedError("blob.missing", chunk.sha256)
        self.opened.append(chunk.sha256)
        return self.layout.open_chunk(chunk)


class Upgrade:
    """A host with version 1.0.0 in place, and version 1.1.0 in the workspace."""

    def __init__(self, folder: Path) -> None:
        self.host: SimHost = new_host(folder)
        self.prefix = self.host.prefix
        self.old = self.host.verify().value
        self.prefix.create()
        found = self.host.verify()
        path = self.prefix.release_path("1.0.0", found.value.manifest)
        accept(self.prefix, found, self.host.trust)
        import_layout(Layout(self.host.source), path, found, self.host.trust, NOW)
        import_files(
            self.prefix, CarriedBlobs(Layout(self.host.source), held_by(self.old.contents)), path, self.old, ignore
        )
        self.layout = Layout(build_bundle(self.host.workspace, "1.1.0", "another note"))
        self.new: Bundle = open_bundle(self.layout.path, self.host.trust, Floors(), NOW).value
        self.path = self.prefix.release_path("1.1.0", self.new.manifest)

    def old_places(self) -> list[Path]:
        folder = self.prefix.release_path("1.0.0", self.old.manifest)
        return sorted({place(self.prefix, folder, file) for file in self.old.contents.files})

    def take(self, claimed: Collection[Digest]) -> CarriedBlobs:
        """Import version 1.1.0 from a stick that leaves out what is claimed to be here."""
        carried = {chunk.sha256 for chunk in delta(self.new, claimed).blobs}
        source = CarriedBlobs(self.layout, carried)
        import_files(self.prefix, source, self.path, self.new, ignore)
        return source

    def wrong(self) -> list[File]:
        """The files of version 1.1.0 whose place does not hold the signed bytes."""
        return [file for file in self.new.contents.files if not _is_right(place(self.prefix, self.path, file), file)]


def _is_right(path: Path, file: File) -> bool:
    return path.is_file() and sha256(path.read_bytes()) == file.sha256


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Upgrade:
    return Upgrade(tmp_path_factory.mktemp("upgrade"))


def test_true_claim_makes_the_host_whole_from_a_few_blobs(upgrade: Upgrade) -> None:
    shutil.rmtree(upgrade.path, ignore_errors=True)
    source = upgrade.take(held_by(upgrade.old.contents))
    assert upgrade.wrong() == []
    assert set(source.opened) == held_by(upgrade.new.contents) - held_by(upgrade.old.contents)
    assert len(source.opened) < len(held_by(upgrade.new.contents))


def test_host_holds_what_its_receipt_would_name(upgrade: Upgrade) -> None:
    assert held_by(upgrade.old.contents) <= set(held_chunks(upgrade.prefix))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_whatever_was_claimed_and_however_the_host_was_damaged_no_other_byte_is_installed(
    upgrade: Upgrade, data: st.DataObject
) -> None:
    shutil.rmtree(upgrade.path, ignore_errors=True)
    claimed = data.draw(st.sets(st.sampled_from(sorted(held_by(upgrade.new.contents, upgrade.old.contents)))))
    damaged = {path: path.read_bytes() for path in data.draw(st.sets(st.sampled_from(upgrade.old_places())))}
    for path in damaged:
        _put(path, bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    failure: ApplianceError | None = None
    try:
        upgrade.take(claimed)
    except ApplianceError as error:
        failure = error
    wrong = [place(upgrade.prefix, upgrade.path, file) for file in upgrade.wrong()]
    present = {path for path in wrong if path.exists()}
    for path, before in damaged.items():
        _put(path, before)
    if failure is None:
        assert wrong == []
    else:
        # What has its final name is right, or was damaged before: releases share the store of models.
        assert failure.exit_code in (3, 5)
        assert claimed
        assert present <= set(damaged)


def _put(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)
