"""An install takes a bundle from several sticks, and a delta from a stick and the host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from appliance.host.install.bundle_admission import AdmittedBundle, model_workloads, verify_media
from appliance.host.install.importer import accept, import_files, import_layout
from appliance.host.layout.places import place
from appliance.host.preflight.inputs import Host, SourceMedia
from appliance.host.release.held_chunks import held_chunks
from appliance.host.release.held_source import HeldSource
from bundles.chunks.check import check_file
from bundles.oci.layout import blob_path
from bundles.progress import ignore
from signing.errors import DamagedError, NextStickError
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, new_host
from tests.sim.sets.stick_folders import StickPerson, deal_blobs
from tests.toy import NOW


@pytest.fixture
def host(tmp_path: Path) -> SimHost:
    made = new_host(tmp_path)
    made.prefix.create()
    return made


@pytest.fixture
def sticks(host: SimHost, tmp_path: Path) -> list[Path]:
    return deal_blobs(host.source, host.verify().value, [tmp_path / f"stick{number}" for number in (1, 2)])


def admitted(host: SimHost, *sticks: Path, person: StickPerson | None = None) -> AdmittedBundle:
    source = SourceMedia(sticks, waiting=person.waiting() if person else None)
    return verify_media(source, host.trust, Host(host.prefix, CARD, lambda: NOW, "", is_root_compared=True))


def take_in(host: SimHost, bundle: AdmittedBundle) -> int:
    """The part of an install that copies; how many bytes came from media."""
    path = host.prefix.release_path(bundle.found.value.contents.version, bundle.found.value.manifest)
    accept(host.prefix, bundle.found, host.trust)
    found = import_layout(bundle.layout, path, bundle.found, host.trust, NOW)
    done = import_files(host.prefix, bundle.media.source, path, found.value, ignore)
    for file in found.value.contents.files:
        check_file(file, place(host.prefix, path, file))
    return done.count.medium_bytes


def test_all_files_come_from_two_sticks(host: SimHost, sticks: list[Path]) -> None:
    assert take_in(host, admitted(host, *reversed(sticks))) > 0


def test_second_stick_may_come_later(host: SimHost, sticks: list[Path]) -> None:
    person = StickPerson(lambda: person.points.append(sticks[1]))
    take_in(host, admitted(host, sticks[0], person=person))
    assert person.lines[0].startswith("insert stick 2; ")


def test_without_the_second_stick_it_is_5_and_the_next_run_reads_only_what_is_missing(
    host: SimHost, sticks: list[Path]
) -> None:
    bundle = admitted(host, sticks[0])
    with pytest.raises(NextStickError):
        take_in(host, bundle)
    missing = sum(chunk.size for chunk in bundle.media.source.missing(bundle.found.value))
    assert take_in(host, admitted(host, *sticks)) == missing


def test_damage_names_the_stick_that_has_it(host: SimHost, sticks: list[Path]) -> None:
    bundle = admitted(host, *sticks)
    common = {bundle.found.value.manifest, bundle.found.value.config.sha256}
    blob = next(path for path in sorted((sticks[1] / "blobs/sha256").iterdir()) if path.name not in common)
    blob.write_bytes(b"E" * blob.stat().st_size)
    with pytest.raises(DamagedError) as caught:
        take_in(host, bundle)
    assert caught.value.subject.startswith(f"{sticks[1]}: ")


@pytest.mark.parametrize("fault", ["other bytes", "cut short", "gone"])
def test_damaged_blob_is_taken_from_another_stick_and_named(host: SimHost, tmp_path: Path, fault: str) -> None:
    sticks = [Path(shutil.copytree(host.source, tmp_path / name)) for name in ("a", "b")]
    bundle = admitted(host, *sticks)
    chunk = bundle.found.value.contents.of_kind("model")[0].chunks[-1]
    blob = sticks[0] / blob_path(chunk.sha256)
    if fault == "gone":
        blob.unlink()
    else:
        blob.write_bytes(b"E" * (chunk.size - (fault == "cut short")))
    take_in(host, bundle)
    assert bundle.media.source.notices == (
        f"{sticks[0]} is damaged: {blob_path(chunk.sha256)} came from {sticks[1]}; write that medium again",
    )


def test_blob_that_is_damaged_on_every_stick_is_3_and_has_no_name(host: SimHost, tmp_path: Path) -> None:
    sticks = [Path(shutil.copytree(host.source, tmp_path / name)) for name in ("a", "b")]
    bundle = admitted(host, *sticks)
    file = bundle.found.value.contents.of_kind("model")[0]
    for stick in sticks:
        (stick / blob_path(file.chunks[-1].sha256)).write_bytes(b"E" * file.chunks[-1].size)
    with pytest.raises(DamagedError) as caught:
        take_in(host, bundle)
    assert caught.value.subject == f"{sticks[1]}: {file.path}"
    release = host.prefix.release_path(bundle.found.value.contents.version, bundle.found.value.manifest)
    assert not place(host.prefix, release, file).exists()


def test_head_of_a_model_is_read_from_another_stick_where_the_first_is_damaged(host: SimHost, tmp_path: Path) -> None:
    sticks = [Path(shutil.copytree(host.source, tmp_path / name)) for name in ("a", "b")]
    bundle = admitted(host, *sticks)
    contents = bundle.found.value.contents
    (sticks[0] / blob_path(contents.of_kind("model")[0].chunks[0].sha256)).write_bytes(b"E")
    for source in (bundle.media.source, HeldSource(admitted(host, *sticks).media.source, {})):
        assert [one.name for one in model_workloads(source, contents)] == ["toy"]


def test_stick_that_leaves_out_what_the_host_holds_is_enough(host: SimHost, sticks: list[Path], tmp_path: Path) -> None:
    take_in(host, admitted(host, *sticks))
    held = held_chunks(host.prefix)
    other = deal_blobs(host.source, host.verify().value, [tmp_path / "a", tmp_path / "b"])[0]
    bundle = admitted(host, other)
    assert bundle.media.source.missing(bundle.found.value)
    assert take_in(host, bundle) == 0
    model = bundle.found.value.contents.of_kind("model")[0]
    for chunk in model.chunks:
        (other / blob_path(chunk.sha256)).unlink(missing_ok=True)
    bundle = admitted(host, other)
    assert model_workloads(bundle.media.source, bundle.found.value.contents) == ()
    assert [
        one.name for one in model_workloads(HeldSource(bundle.media.source, held), bundle.found.value.contents)
    ] == ["toy"]
