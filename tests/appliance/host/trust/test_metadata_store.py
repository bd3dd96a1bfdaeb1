"""A host judges a stick by the newest metadata that it has seen, and stores those that it used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.host.install.bundle_admission import admit
from appliance.host.install.importer import accept, import_layout
from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.trust import metadata_store
from appliance.host.trust.metadata_store import notices, open_newest
from appliance.host.trust.trust_store import read_floors
from appliance.keys.publication import revoke
from appliance.keys.workspace import open_workspace
from bundles.bundle import Bundle, open_bundle, open_bundles
from bundles.oci.layout import Layout
from bundles.stick import media
from signing.errors import NotTrustedError
from signing.verified import Verified
from tests.appliance.sim_card import CARD
from tests.attacks.harness import command
from tests.toy import NOW, build_toy

Sticks = dict[str, Path]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Sticks]:
    """The trust root, and the sticks of three days: 1.0.0; then 1.1.0; then 1.2.0, when 1.0.0 had been revoked."""
    folder, sticks = tmp_path_factory.mktemp("published"), {}
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        if version == "1.2.0":
            revoke(open_workspace(folder / "workspace"), "toy", "1.0.0", NOW)
        workspace, bundle = build_toy(folder / "workspace", version, note=version)
        sticks[version] = folder / version
        shutil.copytree(bundle, sticks[version])
    return workspace.root_file.read_bytes(), sticks


@pytest.fixture
def root(published: tuple[bytes, Sticks]) -> bytes:
    return published[0]


@pytest.fixture
def sticks(published: tuple[bytes, Sticks], tmp_path: Path) -> Sticks:
    return {version: shutil.copytree(path, tmp_path / version) for version, path in published[1].items()}


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    made = Prefix.at(tmp_path / "host")
    made.create()
    return made


@pytest.fixture
def take(prefix: Prefix, root: bytes) -> Callable[[Path], Path]:
    """The part of an install that is about trust."""

    def take_(stick: Path) -> Path:
        found = open_newest(stick, root, read_floors(prefix), NOW, prefix)
        accept(prefix, found, root)
        release = prefix.release_path(found.value.contents.version, found.value.manifest)
        import_layout(Layout(stick), release, found, root, NOW)
        return release / "bundle"

    return take_


def judged(stick: Path, root: bytes, prefix: Prefix) -> Verified[Bundle]:
    return admit(stick, root, Host(prefix, CARD, lambda: NOW, "")).found


def test_an_older_stick_is_judged_by_stored_metadata_and_a_notice_reports_it(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path]
) -> None:
    take(sticks["1.1.0"])
    found = judged(sticks["1.0.0"], root, prefix)
    assert (found.value.contents.version, found.evidence.status) == ("1.0.0", "allowed")
    assert found.evidence.floors == read_floors(prefix)
    [notice] = notices(found)
    assert notice.startswith("judged by the newest metadata that this host has stored")
    answer = command("verify", sticks["1.0.0"], "--prefix", prefix.root)
    assert (answer.code, answer.talk.count("notice: judged by the newest")) == (0, 1)
    answered = json.loads(command("verify", sticks["1.0.0"], "--prefix", prefix.root, "--json").out)
    assert [one["code"] for one in answered["passed_over"]] == ["version.rollback"]


def test_without_stored_metadata_an_older_stick_is_a_rollback(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path]
) -> None:
    shutil.rmtree(take(sticks["1.1.0"]))
    with pytest.raises(NotTrustedError, match="version.rollback"):
        judged(sticks["1.0.0"], root, prefix)
    assert command("verify", sticks["1.0.0"], "--prefix", prefix.root).code == 4


def test_bundle_that_the_newest_metadata_revoke_is_refused_on_a_stick_with_older_metadata(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path]
) -> None:
    take(sticks["1.2.0"])
    with pytest.raises(NotTrustedError, match="target.revoked"):
        judged(sticks["1.0.0"], root, prefix)
    assert judged(sticks["1.1.0"], root, prefix).evidence.status == "allowed"


def test_a_newer_stick_is_judged_by_its_own_metadata_without_a_notice(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path]
) -> None:
    take(sticks["1.0.0"])
    before = read_floors(prefix)
    found = judged(sticks["1.1.0"], root, prefix)
    assert (found.evidence.status, notices(found)) == ("current", ())
    assert found.evidence.floors.targets == before.targets + 1


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0", "1.2.0"])
def test_a_forged_stick_is_refused_although_the_store_is_good(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path], version: str
) -> None:
    take(sticks["1.1.0"])
    file = sticks[version] / "metadata" / "timestamp.json"
    file.write_bytes(file.read_bytes().replace(b'"version":', b'"version":9', 1))
    with pytest.raises(NotTrustedError, match="signature.invalid: timestamp.json"):
        judged(sticks[version], root, prefix)
    assert command("verify", sticks[version], "--prefix", prefix.root).code == 4


def test_a_store_that_cannot_be_used_is_reported_and_decides_nothing(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path]
) -> None:
    copy = take(sticks["1.1.0"]) / "metadata" / "timestamp.json"
    copy.write_bytes(copy.read_bytes().replace(b'"version":', b'"version":9', 1))
    [notice] = notices(judged(sticks["1.1.0"], root, prefix))
    assert notice.startswith("metadata that this host has stored cannot be used (signature.invalid")
    with pytest.raises(NotTrustedError, match="version.rollback"):
        judged(sticks["1.0.0"], root, prefix)
    copy.unlink()
    assert judged(sticks["1.1.0"], root, prefix).evidence.status == "current"


def test_one_good_copy_in_the_store_is_enough(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path]
) -> None:
    first = take(sticks["1.0.0"]) / "metadata" / "timestamp.json"
    take(sticks["1.1.0"])
    first.write_bytes(b"{}")
    assert len(notices(judged(sticks["1.0.0"], root, prefix))) == 2


def test_every_release_keeps_the_metadata_that_an_install_was_judged_by(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path]
) -> None:
    newer = take(sticks["1.1.0"])
    older = take(sticks["1.0.0"])
    names = sorted(path.name for path in (sticks["1.1.0"] / "metadata").iterdir())
    for copy in (newer, older):
        assert sorted(path.name for path in (copy / "metadata").iterdir()) == names
        assert open_bundle(copy, root, read_floors(prefix), NOW).evidence.floors == read_floors(prefix)


def test_metadata_are_read_from_the_medium_once(sticks: Sticks, root: bytes, prefix: Prefix) -> None:
    stick = sticks["1.0.0"]
    found = judged(stick, root, prefix)
    kept = {path.name: path.read_bytes() for path in (stick / "metadata").iterdir()}
    for path in (stick / "metadata").iterdir():
        path.write_bytes(b"{}")
    import_layout(Layout(stick), prefix.releases / "r", found, root, NOW)
    copies = {path.name: path.read_bytes() for path in (prefix.releases / "r" / "bundle" / "metadata").iterdir()}
    assert copies == kept


def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Record each medium or copy whose chain of trust is verified from now on."""
    paths: list[Path] = []

    def counted(path: Path, *arguments: Any, **named: Any) -> tuple[Verified[Bundle], ...]:
        paths.append(path)
        return open_bundles(path, *arguments, **named)

    monkeypatch.setattr(media, "open_bundles", counted)
    return paths


def test_medium_whose_metadata_are_those_in_the_store_is_verified_once(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = take(sticks["1.1.0"])
    paths = opened(monkeypatch)
    assert judged(sticks["1.1.0"], root, prefix).evidence.status == "current"
    assert paths == [sticks["1.1.0"]]
    # Everything else in the store is verified, too.
    (copy / "metadata" / "2.root.json").write_bytes(b"{}")
    assert len(notices(judged(sticks["1.1.0"], root, prefix))) == 1
    assert len(paths) == 3


def test_trust_state_changes_with_every_install_that_brings_something(
    sticks: Sticks, root: bytes, prefix: Prefix, take: Callable[[Path], Path]
) -> None:
    seen = [metadata_store.trust_state(prefix)]
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        take(sticks[version])
        seen.append(metadata_store.trust_state(prefix))
    assert len(set(seen)) == 4
    take(sticks["1.1.0"])
    assert metadata_store.trust_state(prefix) == seen[-1]
