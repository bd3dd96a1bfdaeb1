"""T90: files of the format's own names that nobody reads: other metadata, other manifests, empty folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from appliance.host.install.bundle_admission import admit
from appliance.host.install.importer import accept, import_layout
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.trust.trust_store import write_root
from bundles.oci.layout import Layout
from signing.errors import NotTrustedError
from tests.appliance.sim_card import CARD
from tests.attacks.harness import Stick, command, guard_off, make_stick, refused, row
from tests.attacks.media_faults import NAMES, folder, plant
from tests.sim.tuf import STRANGERS, USUAL, TufRepository
from tests.toy import NOW

ROW = row(90)
SUBJECTS = {
    "metadata that nothing leads to": "metadata/77.targets.json",
    "a snapshot that nothing leads to": "metadata/1.snapshot.json",
    "a root beyond the newest": "metadata/9.root.json",
    "an empty folder of blobs": "blobs/sha256/ab/",
    "an empty folder of targets": "targets/bundles/other/1.0.0/",
    "an empty folder in BOOT": "BOOT/empty/",
}
LEFT = {
    "metadata/.DS_Store": "macOS",
    "blobs/sha256/._evil": "macOS",
    "targets/.Trashes/501/x": "macOS",
    "attestations/Thumbs.db": "Windows",
    "blobs/System Volume Information/WPSettings.dat": "Windows",
    "BOOT/.Trash-1000/files/x": "Linux",
}


@pytest.fixture
def host(stick: Stick, tmp_path: Path) -> Host:
    """A host that has taken the stick of a later day: the stick itself is older than what the host knows."""
    host = Host(Prefix.at(tmp_path / "host"), CARD, lambda: NOW, "")
    host.prefix.create()
    write_root(host.prefix, stick.root)
    newer = Stick(Path(shutil.copytree(stick.path, tmp_path / "newer")), stick.repository, stick.root_file)
    newer.publish()
    found = admit(newer.path, stick.root, host).found
    accept(host.prefix, found, stick.root)
    release = host.prefix.release_path(found.value.contents.version, found.value.manifest)
    import_layout(Layout(newer.path), release, found, stick.root, NOW)
    return host


def test_unattacked_every_file_is_there_for_a_reason(stick: Stick, host: Host) -> None:
    stick.verify()
    assert [one.code for one in admit(stick.path, stick.root, host).found.evidence.passed_over] == ["version.rollback"]


def test_unattacked_roots_of_the_chain_may_lie_there(stick: Stick) -> None:
    stick.repository.rotate(USUAL)
    stick.save().put_boot()
    stick.verify()
    stick.root_file.write_bytes(stick.repository.files["2.root.json"])
    stick.verify()


@pytest.mark.parametrize(("name", "subject"), SUBJECTS.items(), ids=SUBJECTS)
def test_attacked_by_what_nothing_leads_to(stick: Stick, name: str, subject: str) -> None:
    NAMES[name].act(stick)
    refused(ROW, stick.verify, "layout.unlisted", subject)


@pytest.mark.parametrize("place", ["metadata", "blobs", "targets", "BOOT", "attestations"])
def test_attacked_by_an_empty_folder_in_each_covered_one(stick: Stick, place: str) -> None:
    folder(f"{place}/empty/empty")(stick)
    error = refused(ROW, stick.verify, "layout.unlisted", f"{place}/empty/empty/")
    assert error.hint == "these folders are empty: remove them, or copy the bundle again"


def test_attacked_by_a_covered_folder_in_which_nothing_lies(stick: Stick) -> None:
    folder("attestations")(stick)
    refused(ROW, stick.verify, "layout.unlisted", "attestations/")


@pytest.mark.parametrize("which", ["snapshot", "targets"])
def test_attacked_by_garbage_behind_an_old_valid_timestamp(stick: Stick, host: Host, which: str) -> None:
    [path] = (stick.path / "metadata").glob(f"*.{which}.json")
    path.write_bytes(b"{}")
    refused(ROW, lambda: admit(stick.path, stick.root, host), "metadata.mixed", path.name)
    path.unlink()
    refused(ROW, lambda: admit(stick.path, stick.root, host), "metadata.missing", path.name)
    assert command("verify", stick.path, "--prefix", host.prefix.root).code == 4


def test_attacked_by_metadata_that_the_store_has_and_this_medium_does_not_lead_to(stick: Stick, host: Host) -> None:
    stored = next(host.prefix.releases.glob("*/bundle/metadata"))
    name = max(path.name for path in stored.glob("*.targets.json"))
    shutil.copy(stored / name, stick.path / "metadata")
    refused(ROW, lambda: admit(stick.path, stick.root, host), "layout.unlisted", f"metadata/{name}")


def test_attacked_by_a_bad_copy_of_an_older_root(stick: Stick) -> None:
    stick.repository.rotate(USUAL)
    stick.save().put_boot()
    stick.root_file.write_bytes(stick.repository.files["2.root.json"])
    stick.verify()
    (stick.path / "metadata/1.root.json").write_bytes(TufRepository(STRANGERS).pinned)
    with pytest.raises(NotTrustedError) as caught:
        stick.verify()
    assert caught.value.subject == "1.root.json"


@pytest.mark.parametrize(("path", "system"), LEFT.items(), ids=LEFT)
def test_attacked_by_what_an_operating_system_leaves_the_remedy_is_told(stick: Stick, path: str, system: str) -> None:
    plant(path)(stick)
    error = refused(ROW, stick.verify, "layout.unlisted", path)
    assert error.hint == f"{system} left these files: copy the bundle again without them"
    plant("metadata/evil.json")(stick)
    with pytest.raises(NotTrustedError) as caught:
        stick.verify()
    assert any("key holder" in one.hint for one in (caught.value, *caught.value.others))


def test_unguarded_the_unread_metadata_passes(toy: Path, tmp_path: Path) -> None:
    stick = make_stick(toy, tmp_path, "unguarded")
    NAMES["metadata that nothing leads to"].act(stick)
    with guard_off(ROW.guard, lambda *_: []):
        assert stick.command().code == 0
