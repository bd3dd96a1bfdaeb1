"""Several media hold bundles together: in any order, doubled, with older metadata, swapped and pulled out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.keys.publication import revoke
from appliance.keys.workspace import open_workspace
from bundles.bundle import Bundle, open_bundle, open_bundles
from bundles.medium_check import check_medium
from bundles.oci.layout import INDEX_FILE, STICK_FILE, Layout, blob_path
from bundles.oci.manifest import index_of
from bundles.stick import media as media_module
from bundles.stick import media_set, mounts
from bundles.stick.media import OpenMedia, by_newest, open_media
from bundles.stick.media_check import check_media
from bundles.stick.media_set import Waiting
from bundles.stick.mounts import Mount
from bundles.stick.ranges import parse_ranges
from signing.errors import DamagedError, NextStickError, NotTrustedError, UsageError
from signing.floors import Floors
from tests.sim.sets.stick_folders import StickPerson, both_bundles, deal_blobs
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Path]]:
    """The root, and bundles of three days; on the third the first one had been revoked."""
    folder, found = tmp_path_factory.mktemp("made"), {}
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        if version == "1.2.0":
            revoke(open_workspace(folder / "workspace"), "toy", "1.0.0", NOW)
        workspace, bundle = build_toy(folder / "workspace", version, note=version)
        found[version] = Path(shutil.copytree(bundle, folder / version))
    return workspace.root_file.read_bytes(), found


@pytest.fixture
def root(made: tuple[bytes, dict[str, Path]]) -> bytes:
    return made[0]


@pytest.fixture
def dist(made: tuple[bytes, dict[str, Path]]) -> Path:
    return made[1]["1.1.0"]


@pytest.fixture
def bundle(root: bytes, dist: Path) -> Bundle:
    return open_bundle(dist, root, Floors(), NOW).value


Deal = Callable[..., list[Path]]


@pytest.fixture
def deal(bundle: Bundle, dist: Path, tmp_path: Path) -> Deal:
    def deal_(count: int, **options: bool) -> list[Path]:
        return deal_blobs(dist, bundle, [tmp_path / f"stick{number}" for number in range(1, count + 1)], **options)

    return deal_


def opened(root: bytes, *paths: Path, waiting: Waiting | None = None) -> OpenMedia:
    return open_media(paths, by_newest(root, Floors(), NOW), waiting)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_three_sticks_in_any_order_are_one_bundle(
    root: bytes, bundle: Bundle, deal: Deal, order: tuple[int, ...]
) -> None:
    sticks = deal(3)
    media = opened(root, *(sticks[at] for at in order))
    assert media.select().value == bundle
    assert not media.source.missing(bundle)
    checked = check_media(media)
    assert checked.size_bytes == sum(chunk.size for chunk in bundle.blobs[2:])
    assert media.notices == ()


def test_stick_that_is_not_here_is_exit_5_with_short_ranges_and_its_number(
    root: bytes, bundle: Bundle, deal: Deal
) -> None:
    sticks = deal(3)
    with pytest.raises(NextStickError) as caught:
        check_media(opened(root, sticks[0], sticks[2]))
    error = caught.value
    assert (error.exit_code, error.code) == (5, "stick.next")
    missing = parse_ranges(error.subject.removeprefix("toy 1.1.0: "), bundle)
    assert {blob_path(chunk.sha256) for chunk in missing} == {
        path.relative_to(sticks[1]).as_posix() for path in (sticks[1] / "blobs/sha256").iterdir()
    } - {blob_path(bundle.manifest), blob_path(bundle.config.sha256)}
    assert "insert stick 2" in error.hint


def test_blob_that_a_stick_states_to_have_and_has_not_is_lost(root: bytes, bundle: Bundle, deal: Deal) -> None:
    sticks = deal(2)
    (sticks[0] / blob_path(bundle.blobs[2].sha256)).unlink()
    with pytest.raises(DamagedError) as caught:
        check_media(opened(root, *sticks))
    assert caught.value.code == "blob.missing"


def test_without_a_card_a_missing_blob_is_lost(root: bytes, bundle: Bundle, deal: Deal) -> None:
    sticks = deal(2, cards=False)
    assert check_media(opened(root, *sticks)).blobs == len(bundle.blobs) - 2
    with pytest.raises(DamagedError):
        check_media(opened(root, sticks[0]))


def test_damaged_copy_is_named_with_its_medium_although_another_medium_has_a_right_one(
    root: bytes, bundle: Bundle, dist: Path, tmp_path: Path
) -> None:
    sticks = [Path(shutil.copytree(dist, tmp_path / name)) for name in ("a", "b")]
    (sticks[1] / blob_path(bundle.blobs[-1].sha256)).write_bytes(b"x")
    with pytest.raises(DamagedError) as caught:
        check_media(opened(root, *sticks))
    assert caught.value.subject.startswith(f"{sticks[1]}: ")
    assert not caught.value.others


def test_medium_that_is_named_twice_counts_once(root: bytes, dist: Path, tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(dist)
    media = opened(root, dist, tmp_path / "again")
    assert len(media.media) == 1
    assert media.notices == (f"{tmp_path / 'again'} is named twice, or mounted twice; it counts once",)


def test_two_sticks_with_one_number_are_a_notice(root: bytes, deal: Deal) -> None:
    sticks = deal(2)
    shutil.copyfile(sticks[0] / STICK_FILE, sticks[1] / STICK_FILE)
    assert opened(root, *sticks).notices == (
        f"{sticks[0]} and {sticks[1]} both state that they are stick 1 of this set",
    )


def test_older_metadata_beside_newer_are_a_notice_and_the_newer_decide(
    root: bytes, made: tuple[bytes, dict[str, Path]]
) -> None:
    media = opened(root, made[1]["1.1.0"], made[1]["1.2.0"])
    assert media.notices == (
        f"{made[1]['1.1.0']} has older metadata than {made[1]['1.2.0']}: judged by the newer ones",
    )
    assert {one.evidence.floors.targets for one in media.bundles} == {media.bundles[-1].evidence.floors.targets}
    with pytest.raises(NotTrustedError) as caught:  # on the newer medium's word it was revoked
        opened(root, made[1]["1.0.0"], made[1]["1.2.0"])
    assert caught.value.code == "target.revoked"
    assert str(made[1]["1.0.0"]) in caught.value.subject


def test_two_releases_on_several_sticks_must_be_selected_and_verify_judges_both(
    root: bytes, made: tuple[bytes, dict[str, Path]]
) -> None:
    media = opened(root, made[1]["1.1.0"], made[1]["1.2.0"])
    with pytest.raises(UsageError) as caught:
        media.select()
    assert (caught.value.code, caught.value.found) == ("bundle.several", "toy-1.1.0, toy-1.2.0")
    assert media.select("toy-1.2.0").value.contents.version == "1.2.0"
    with pytest.raises(UsageError) as caught:
        media.select("toy-9.9.9")
    assert caught.value.code == "bundle.not-there"
    assert check_media(media).files == sum(len(one.value.contents.files) for one in media.bundles)


def test_one_medium_holds_two_bundles(root: bytes, made: tuple[bytes, dict[str, Path]], tmp_path: Path) -> None:
    stick = both_bundles(made[1]["1.1.0"], made[1]["1.2.0"], tmp_path / "both", root)
    found = open_bundles(stick, root, Floors(), NOW)
    assert [one.value.contents.version for one in found] == ["1.1.0", "1.2.0"]
    check_medium(Layout(stick), found)
    assert check_media(opened(root, stick)).blobs == len({chunk for one in found for chunk in one.value.blobs[2:]})
    with pytest.raises(UsageError):
        open_bundle(stick, root, Floors(), NOW)
    assert open_bundle(stick, root, Floors(), NOW, select="toy-1.1.0").value.contents.version == "1.1.0"


def test_index_must_have_its_manifests_in_the_order_of_their_targets(
    root: bytes, made: tuple[bytes, dict[str, Path]], tmp_path: Path
) -> None:
    stick = both_bundles(made[1]["1.1.0"], made[1]["1.2.0"], tmp_path / "both", root)
    found = open_bundles(stick, root, Floors(), NOW)
    (stick / INDEX_FILE).write_bytes(
        index_of(*((one.value.manifest, one.value.manifest_size) for one in reversed(found)))
    )
    with pytest.raises(NotTrustedError) as caught:
        check_medium(Layout(stick), open_bundles(stick, root, Floors(), NOW))
    assert caught.value.code == "index.differs"


def swap(here: Path, elsewhere: Path, other: Path) -> Callable[[], object]:
    def act() -> None:
        here.rename(elsewhere)
        other.rename(here)

    return act


def test_sticks_swapped_at_one_place_while_it_waits_are_all_read(root: bytes, bundle: Bundle, deal: Deal) -> None:
    one, two, three = deal(3)
    away = one.with_name("away")
    person = StickPerson(swap(one, away, two), swap(one, two, three))
    checked = check_media(opened(root, one, waiting=person.waiting()))
    assert checked.blobs == len(bundle.blobs) - 2
    assert not person.acts
    assert person.lines[0].startswith("insert one of the sticks 2, 3; ")
    assert person.lines[1].startswith("insert stick 3; ")


def test_stick_that_is_mounted_elsewhere_is_found_by_its_mount(root: bytes, deal: Deal) -> None:
    one, two = deal(2)
    person = StickPerson(lambda: person.points.append(two))
    check_media(opened(root, one, waiting=person.waiting()))
    assert not person.acts


def test_stick_of_another_bundle_is_reported_and_not_used(
    root: bytes, deal: Deal, made: tuple[bytes, dict[str, Path]]
) -> None:
    one, two = deal(2)
    person = StickPerson(
        lambda: person.points.append(made[1]["1.2.0"]), lambda: None, lambda: None, lambda: person.points.append(two)
    )
    check_media(opened(root, one, waiting=person.waiting()))
    assert person.lines.count(f"{made[1]['1.2.0']} holds another bundle, and is not used") == 1


def test_damage_on_a_stick_that_arrives_names_that_stick(root: bytes, deal: Deal) -> None:
    one, two = deal(2)
    blob = next(path for path in (two / "blobs/sha256").iterdir() if not (one / "blobs/sha256" / path.name).exists())
    blob.write_bytes(b"?" * blob.stat().st_size)
    person = StickPerson(lambda: person.points.append(two))
    with pytest.raises(DamagedError) as caught:
        check_media(opened(root, one, waiting=person.waiting()))
    assert caught.value.subject.startswith(f"{two}: ")


def test_hostile_stick_that_arrives_is_refused_as_it_would_be_at_first(root: bytes, deal: Deal) -> None:
    one, two = deal(2)
    (two / "blobs/sha256/evil").write_bytes(b"x")
    person = StickPerson(lambda: person.points.append(two))
    with pytest.raises(NotTrustedError) as caught:
        check_media(opened(root, one, waiting=person.waiting()))
    assert caught.value.code == "layout.unlisted"


def test_other_mounts_are_passed_over(root: bytes, deal: Deal, tmp_path: Path) -> None:
    one, two = deal(2)
    image = tmp_path / "image"
    image.mkdir()
    (image / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (image / "index.json").write_bytes(b'{"manifests":[]}')
    person = StickPerson(lambda: person.points.append(image), lambda: person.points.append(two))
    check_media(opened(root, one, waiting=person.waiting()))


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of block devices, as the kernel shows it; each stick of `deal` is the device of its name."""
    folder = tmp_path / "devices"
    (folder / "disk").mkdir(parents=True)
    (folder / "stick2").mkdir()

    def mount_of(path: Path) -> Mount:
        return Mount(1, path.name, path, "vfat", f"/dev/{path.name}", is_read_only=False)

    monkeypatch.setattr(mounts, "BLOCK_DEVICES", folder)
    for module in (media_module, media_set):
        monkeypatch.setattr(module, "mount_of", mount_of)
    return folder


def test_stick_that_is_pulled_out_is_exit_5_although_its_folder_still_answers(
    root: bytes, bundle: Bundle, deal: Deal, devices: Path
) -> None:
    one, two = deal(2)
    (devices / one.name).mkdir()
    media = opened(root, one, two)
    (devices / one.name).rmdir()
    wanted = next(chunk for chunk in bundle.blobs[2:] if (one / blob_path(chunk.sha256)).exists())
    assert not media.source.holds(wanted)
    with pytest.raises(NextStickError) as caught:
        media.source.wait_for((wanted,))
    assert caught.value.code == "stick.unplugged"
    assert caught.value.subject == str(one)


def test_copy_on_a_stick_that_was_pulled_out_is_not_called_damaged(root: bytes, dist: Path, devices: Path) -> None:
    one, two = (Path(shutil.copytree(dist, devices.parent / name)) for name in ("stick1", "stick2"))
    (devices / one.name).mkdir()
    source = opened(root, one, two).source
    chunk, error = source.bundles[0].blobs[-1], DamagedError("medium.read-failed", "", expected="", found="")
    os.close(source.open_chunk(chunk))
    (devices / one.name).rmdir()
    assert source.pass_over(chunk, error)  # the second stick has it, too
    assert ([str(one.path) for one in source.holders(chunk)], source.notices) == ([str(two)], ())


def test_stick_that_was_pulled_out_before_is_no_folder_without_a_bundle(root: bytes, deal: Deal, devices: Path) -> None:
    one, two = deal(2)
    shutil.rmtree(one)
    one.mkdir()  # what vfat shows of it
    with pytest.raises(NextStickError) as caught:
        opened(root, two, one)
    assert (caught.value.code, caught.value.subject) == ("stick.unplugged", str(one))


def test_pulled_stick_is_taken_again_only_when_another_device_is_mounted_there(
    root: bytes, bundle: Bundle, deal: Deal, devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = deal(2)
    (devices / one.name).mkdir()

    def replug() -> None:
        (devices / "another").mkdir()
        stick = Mount(2, "another", one, "vfat", "/dev/another", is_read_only=False)
        monkeypatch.setattr(media_set, "mount_of", lambda _path: stick)

    person = StickPerson(lambda: None, replug)
    media = opened(root, one, two, waiting=person.waiting())
    (devices / one.name).rmdir()
    check_media(media)
    assert not person.acts
    assert "pulled out" in person.lines[0]


def test_pulled_stick_is_taken_again_once_it_was_unmounted_though_its_mount_has_the_same_number(
    root: bytes, deal: Deal, devices: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, two = deal(2)
    (devices / one.name).mkdir()
    mounted = getattr(media_set, "mount_of")  # noqa: B009

    def unmount() -> None:
        one.rename(tmp_path / "aside")
        monkeypatch.setattr(media_set, "mount_of", lambda _path: None)

    def replug() -> None:
        (devices / one.name).mkdir()
        (tmp_path / "aside").rename(one)
        monkeypatch.setattr(media_set, "mount_of", mounted)

    person = StickPerson(lambda: None, unmount, replug)
    media = opened(root, one, two, waiting=person.waiting())
    (devices / one.name).rmdir()
    check_media(media)
    assert not person.acts


def test_spool_that_is_filling_is_waited_for_in_any_order(
    root: bytes, bundle: Bundle, dist: Path, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    files = sorted(path.relative_to(dist) for path in dist.rglob("*") if path.is_file())

    def put(*paths: Path) -> Callable[[], object]:
        def act() -> None:
            for path in paths:
                (spool / path).parent.mkdir(parents=True, exist_ok=True)
                (spool / f"{path}.part").write_bytes(b"a part")
                shutil.copyfile(dist / path, spool / path)

        return act

    blobs = [path for path in files if path.parts[0] == "blobs"]
    others = [path for path in files if path.parts[0] != "blobs"]
    person = StickPerson(put(*blobs[::2]), *(put(path) for path in others), put(*blobs[1::2]))
    checked = check_media(opened(root, spool, waiting=person.waiting(is_filling=True)))
    assert checked.blobs == len(bundle.blobs) - 2
    with pytest.raises(NotTrustedError):  # a folder that is said to be whole may have no such names
        check_media(opened(root, spool))


def test_blob_of_a_spool_that_has_its_name_before_its_bytes_is_waited_for(
    root: bytes, bundle: Bundle, dist: Path, tmp_path: Path
) -> None:
    spool = Path(shutil.copytree(dist, tmp_path / "spool"))
    path = blob_path(bundle.blobs[-1].sha256)
    (spool / path).write_bytes((dist / path).read_bytes()[:-1])
    person = StickPerson(lambda: shutil.copyfile(dist / path, spool / path))
    check_media(opened(root, spool, waiting=person.waiting(is_filling=True)))
    assert not person.acts


def test_medium_without_a_bundle_is_named_among_several(root: bytes, dist: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        opened(root, dist, tmp_path)
    assert caught.value.code == "bundle.not-found"


def test_reader_writes_nothing(root: bytes, deal: Deal) -> None:
    sticks = deal(2)
    before = {path: path.stat().st_mtime_ns for stick in sticks for path in stick.rglob("*")}
    check_media(opened(root, *sticks))
    assert {path: path.stat().st_mtime_ns for stick in sticks for path in stick.rglob("*")} == before
