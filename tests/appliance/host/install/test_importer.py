"""An import gives no incomplete file a final name, and uses nothing that was not read from the copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.install.importer import accept, import_files, import_layout
from appliance.host.trust.trust_store import read_floors, read_root
from bundles.contents.signed_wheel import read_record
from bundles.medium import Medium
from bundles.oci.layout import BLOBS, Layout, blob_path
from bundles.progress import ignore
from signing.errors import ApplianceError, DamagedError, NotTrustedError
from tests.appliance.sim_host import SimHost, new_host
from tests.toy import NOW


@pytest.fixture
def host(tmp_path: Path) -> SimHost:
    made = new_host(tmp_path)
    made.prefix.create()
    return made


def test_metadata_root_and_floors_are_stored_before_content_is_written(host: SimHost) -> None:
    found = host.verify()
    accept(host.prefix, found, host.trust)
    assert read_floors(host.prefix) == found.evidence.floors
    assert read_root(host.prefix) == host.trust
    assert list(host.prefix.releases.iterdir()) == []
    assert list(host.prefix.models.iterdir()) == []


def test_damaged_blob_stops_the_import_and_the_next_run_goes_on(host: SimHost) -> None:
    found = host.verify()
    model = found.value.contents.of_kind("model")[0]
    blob = host.source / blob_path(model.chunks[-1].sha256)
    before = blob.read_bytes()
    blob.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    release = host.prefix.releases / "r"
    release.mkdir()
    with pytest.raises(DamagedError) as caught:
        import_files(host.prefix, Layout(host.source), release, found.value, ignore)
    assert caught.value.subject == model.path
    assert not host.prefix.model_path(model.sha256, "toy.gguf").exists()
    blob.write_bytes(before)
    done = import_files(host.prefix, Layout(host.source), release, found.value, ignore)
    assert done.kept + done.copied == len(found.value.contents.files)
    again = import_files(host.prefix, Layout(host.source), release, found.value, ignore)
    assert (again.copied, again.removed) == (0, ())


def test_medium_that_gives_other_bytes_the_second_time_is_refused(host: SimHost) -> None:
    found = host.verify()
    manifest = host.source / blob_path(found.value.manifest)
    manifest.write_bytes(manifest.read_bytes()[:-1] + b" ")
    with pytest.raises(ApplianceError) as caught:
        import_layout(Layout(host.source), host.prefix.releases / "r", found, host.trust, NOW)
    assert caught.value.exit_code in (3, 4)


def test_file_that_nothing_names_is_removed_from_a_release_and_reported(host: SimHost, tmp_path: Path) -> None:
    release = host.install()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (release.path / "planted").write_text("x")
    (release.path / "playbooks" / "link").symlink_to(outside)
    (release.path / "bundle" / "metadata" / "planted").write_text("x")
    found = import_layout(Layout(host.source), release.path, host.verify(), host.trust, NOW)
    done = import_files(host.prefix, Layout(host.source), release.path, found.value, ignore)
    assert sorted(done.removed) == ["planted", "playbooks/link"]
    assert (outside / "precious").exists()
    assert not (release.path / "bundle" / "metadata" / "planted").exists()
    assert (release.path / "RELEASE.ok").exists()
    assert (release.path / "config" / "gateway.json").exists()


def test_record_that_is_not_the_signed_one_is_refused(host: SimHost) -> None:
    release = host.install()
    file = next(file for file in release.contents.files if "greeter" in file.path)
    wheel = release.place(file)
    wheel.write_bytes(
        wheel.read_bytes().replace(b"greeter-2.0.dist-info/METADATA,", b"greeter-2.0.dist-info/METAdATA,")
    )
    with pytest.raises((DamagedError, NotTrustedError)):
        read_record(file, wheel)


def test_import_reads_each_blob_once_and_all_of_it_from_the_medium(
    host: SimHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, opened = host.verify(), list[str]()
    real = Medium.open

    def opens(medium: Medium, path: str) -> int:
        opened.append(path)
        return real(medium, path)

    monkeypatch.setattr(Medium, "open", opens)
    release = host.prefix.release_path("1.0.0", found.value.manifest)
    count = import_files(host.prefix, Layout(host.source), release, found.value, ignore).count
    chunks = {chunk for file in found.value.contents.files for chunk in file.chunks}
    blobs = sorted(path for path in opened if path.startswith(BLOBS))
    assert blobs == sorted(blob_path(chunk.sha256) for chunk in chunks)
    assert count.medium_bytes == sum(chunk.size for chunk in chunks)
