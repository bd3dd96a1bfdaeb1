"""The trust root changes: signed by old and new people, never back to a key that was removed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.keys.bundle_renewal import renew
from appliance.keys.ceremony import collect, waiting
from appliance.keys.publication import publish, revoke
from appliance.keys.rotation import Change, rotate
from appliance.keys.signature_requests.request import Item
from appliance.keys.signature_requests.request_rules import check_rules
from appliance.keys.signature_requests.request_text import explain
from appliance.keys.tuf_repository import published, read_newest
from appliance.keys.workspace import create_development
from signing.chain import walk
from signing.errors import ApplianceError, NotTrustedError, UsageError
from signing.floors import Floors
from signing.roles import REVOKED_KEYS
from tests.sim.people import ROOT, TARGETS, Ceremony, finished
from tests.sim.tuf import Keys, key, keys
from tests.toy import NOW

LATER = NOW + timedelta(days=30)
PAIRS = tuple(itertools.combinations(range(3), 2))
GRACE, HEIDI = key("grace"), key("heidi")


@pytest.fixture
def ceremony(tmp_path: Path) -> Ceremony:
    return finished(tmp_path)


def prints(people: Keys) -> set[str]:
    return {one.public.fingerprint for one in people}


def fingerprint(one: Keys) -> tuple[str, ...]:
    return tuple(person.public.fingerprint for person in one)


def follow(ceremony: Ceremony, pinned: bytes) -> tuple[int, set[str]]:
    """Where a host that pinned a root comes to."""
    files = read_newest(ceremony.workspace)
    root = walk(pinned, lambda name, _most: files.get(name), Floors()).root
    return root.version, {one.fingerprint for one in root.roles["root"].keys.values()}


def test_lost_root_key_is_replaced_by_the_two_that_are_left(ceremony: Ceremony) -> None:
    pinned = ceremony.workspace.root_file.read_bytes()
    rotate(ceremony.workspace, Change(remove=fingerprint(ROOT[:1]), replace_by=GRACE.public), LATER)
    request = waiting(ceremony.workspace, "root-2")
    assert request is not None
    told = "\n".join(explain(request))
    assert f"{ROOT[0].public.fingerprint} REMOVED" in told
    assert f"{GRACE.public.fingerprint} ADDED" in told
    assert not ceremony.collect("root-2", (ROOT[1], GRACE), LATER).is_complete  # 1 of 2 old, 2 of 2 new
    assert follow(ceremony, pinned)[0] == 1
    assert ceremony.collect("root-2", (ROOT[2],), LATER).is_complete
    assert follow(ceremony, pinned) == (2, prints((*ROOT[1:], GRACE)))
    assert ceremony.workspace.root().version == 2


@pytest.mark.parametrize(
    "signers", [(), (0,), (1,), (2,), (0, 3), (1, 4), (2, 5), (3, 4, 5)], ids=lambda value: "".join(map(str, value))
)
def test_new_people_need_the_old_threshold_and_their_own(ceremony: Ceremony, signers: tuple[int, ...]) -> None:
    pinned = ceremony.workspace.root_file.read_bytes()
    new = keys("new-root", 3)
    change = Change(remove=fingerprint(ROOT), add_root=tuple(one.public for one in new))
    rotate(ceremony.workspace, change, LATER)
    people = (*ROOT, *new)
    if signers:
        assert not ceremony.collect("root-2", tuple(people[at] for at in signers), LATER).is_complete
    assert follow(ceremony, pinned)[0] == 1


@pytest.mark.parametrize("old", PAIRS)
@pytest.mark.parametrize("new", PAIRS)
def test_any_two_old_and_any_two_new_are_enough(ceremony: Ceremony, old: tuple[int, int], new: tuple[int, int]) -> None:
    pinned = ceremony.workspace.root_file.read_bytes()
    people = keys("new-root", 3)
    change = Change(remove=fingerprint(ROOT), add_root=tuple(one.public for one in people))
    rotate(ceremony.workspace, change, LATER)
    signers = (*(ROOT[at] for at in old), *(people[at] for at in new))
    assert ceremony.collect("root-2", signers, LATER).is_complete
    assert follow(ceremony, pinned) == (2, prints(people))
    # A new host pins the new root, which the old people's signatures stand in too.
    assert follow(ceremony, ceremony.workspace.root_file.read_bytes()) == (2, prints(people))


def test_stolen_targets_key_is_replaced_and_targets_are_signed_anew(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    ceremony.collect("targets-2", TARGETS[:2])
    rotate(ceremony.workspace, Change(remove=fingerprint(TARGETS[:1]), replace_by=GRACE.public), LATER)
    assert not ceremony.collect("root-2", ROOT[:2], LATER).is_complete
    assert ceremony.collect("root-2", (TARGETS[1], GRACE), LATER).is_complete
    walked = published(ceremony.workspace).walked
    assert (walked.root.version, walked.targets.version) == (2, 3)
    assert TARGETS[0].public not in walked.signers
    publish(ceremony.workspace, "toy", "1.1.0", b"[]", LATER)
    with pytest.raises(UsageError) as caught:
        ceremony.collect("targets-4", TARGETS[:1], LATER)
    assert caught.value.code == "request.not-asked"
    assert ceremony.collect("targets-4", (GRACE, TARGETS[2]), LATER).is_complete


def test_thresholds_change_under_the_old_ones(ceremony: Ceremony) -> None:
    change = Change(add_targets=(GRACE.public, HEIDI.public), root_threshold=3, targets_threshold=3)
    rotate(ceremony.workspace, change, LATER)
    assert not ceremony.collect("root-2", (*ROOT[:2], *TARGETS), LATER).is_complete
    assert ceremony.collect("root-2", ROOT[2:], LATER).is_complete
    roles = ceremony.workspace.root().roles
    assert [(roles[name].threshold, len(roles[name].keys)) for name in ("root", "targets")] == [(3, 3), (3, 5)]


def test_without_a_change_the_expiry_is_renewed(ceremony: Ceremony) -> None:
    before = ceremony.workspace.root()
    rotate(ceremony.workspace, Change(), LATER)
    assert ceremony.collect("root-2", ROOT[1:], LATER).is_complete
    after = ceremony.workspace.root()
    assert after.expires > before.expires
    assert after.roles == before.roles
    assert published(ceremony.workspace).walked.targets.version == 1


def test_builders_key_is_replaced_and_builds_go_on(ceremony: Ceremony) -> None:
    pinned = ceremony.workspace.root_file.read_bytes()
    old = ceremony.workspace.key("builder").public
    rotate(ceremony.workspace, Change(remove=(old.fingerprint[:8],)), LATER)
    assert ceremony.collect("root-2", ROOT[:2], LATER).is_complete
    root = ceremony.workspace.root()
    assert old.key_id not in root.roles["timestamp"].keys
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", LATER)
    assert ceremony.collect("targets-2", TARGETS[:2], LATER).is_complete
    assert follow(ceremony, pinned)[0] == 2


def test_removed_key_never_comes_back(ceremony: Ceremony) -> None:
    rotate(ceremony.workspace, Change(remove=fingerprint(ROOT[:1]), replace_by=GRACE.public), LATER)
    ceremony.collect("root-2", (*ROOT[1:], GRACE), LATER)
    for change in (Change(add_root=(ROOT[0].public,)), Change(add_targets=(ROOT[0].public,))):
        with pytest.raises(UsageError) as caught:
            rotate(ceremony.workspace, change, LATER)
        assert caught.value.code == "rotation.removed-key"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (Change(remove=fingerprint(ROOT[:2])), "rotation.too-few"),
        (Change(root_threshold=4), "rotation.too-few"),
        (Change(remove=("f" * 64,)), "rotation.unknown-key"),
        (Change(remove=(ROOT[0].public.fingerprint[:7],)), "rotation.unknown-key"),
    ],
)
def test_root_that_nobody_could_sign_is_not_asked(ceremony: Ceremony, change: Change, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        rotate(ceremony.workspace, change, LATER)
    assert caught.value.code == code
    assert waiting(ceremony.workspace, "root-2") is None


def test_one_new_root_at_a_time(ceremony: Ceremony) -> None:
    rotate(ceremony.workspace, Change(), LATER)
    with pytest.raises(ApplianceError) as caught:
        rotate(ceremony.workspace, Change(root_threshold=3), LATER)
    assert caught.value.code == "request.waits"
    ceremony.waiting("root-2").unlink()
    rotate(ceremony.workspace, Change(root_threshold=3), LATER)


def test_targets_that_were_asked_under_the_old_root_are_not_published_under_the_new(ceremony: Ceremony) -> None:
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", NOW)
    old = ceremony.signed_by("targets-2", TARGETS[:2])
    rotate(ceremony.workspace, Change(), LATER)
    ceremony.collect("root-2", ROOT[:2], LATER)
    with pytest.raises(ApplianceError) as caught:
        collect(ceremony.workspace, old, LATER)
    assert caught.value.code == "repository.stale"
    publish(ceremony.workspace, "toy", "1.0.0", b"{}", LATER)
    assert ceremony.collect("targets-2", TARGETS[:2], LATER).is_complete


def test_key_that_a_root_made_builder_cannot_be_a_persons(ceremony: Ceremony) -> None:
    builder = ceremony.workspace.key("builder").public
    with pytest.raises(ApplianceError) as caught:
        rotate(ceremony.workspace, Change(add_targets=(builder,)), LATER)
    assert caught.value.exit_code == 4
    assert waiting(ceremony.workspace, "root-2") is None


def test_development_root_rotates_by_itself_and_stays_one(tmp_path: Path) -> None:
    workspace, _ = create_development(tmp_path / "trials", NOW)
    request = rotate(workspace, Change(new_builder=True), LATER)
    assert request.is_complete
    assert (workspace.root().version, workspace.root().profile) == (2, "development")
    made = publish(workspace, "toy", "1.0.0", b"{}", LATER)
    assert made is not None
    assert made.is_complete
    assert revoke(workspace, "toy", "1.0.0", LATER) is not None
    assert published(workspace).walked.targets.entries["bundles/toy/1.0.0/manifest.json"].status == "revoked"


def test_revocation_goes_into_every_bundle_of_the_workspace(tmp_path: Path) -> None:
    from tests.toy import build_toy

    workspace, first = build_toy(tmp_path / "workspace", "1.0.0")
    _, second = build_toy(tmp_path / "workspace", "1.1.0", note="newer")
    request = revoke(workspace, "toy", "1.0.0", LATER)
    assert request is not None
    assert renew(workspace, request, LATER) == (first, second)
    for bundle in (first, second):
        assert sorted(path.name for path in (bundle / "metadata").iterdir()) == [
            "1.root.json",
            "4.snapshot.json",
            "4.targets.json",
            "timestamp.json",
        ]


def test_every_later_root_lists_a_revoked_key_and_none_may_leave_it_out(ceremony: Ceremony) -> None:
    gone = TARGETS[0].public
    rotate(ceremony.workspace, Change(revoke=(gone.fingerprint,), replace_by=GRACE.public), LATER)
    asked = waiting(ceremony.workspace, "root-2")
    assert asked is not None
    told = "\n".join(explain(asked))
    assert f"{gone.fingerprint} REVOKED" in told
    assert f"revoked for ever: the key with key id {gone.key_id}" in told
    assert ceremony.collect("root-2", (*ROOT[:2], TARGETS[1], GRACE), LATER).is_complete
    rotate(ceremony.workspace, Change(), LATER)
    request = waiting(ceremony.workspace, "root-3")
    assert request is not None
    assert request.new_root().revoked == (gone.key_id,)
    body = {name: value for name, value in request.items[0].body.items() if name != REVOKED_KEYS}
    forged = replace(request, items=(Item.of_metadata(body), *request.items[1:]))
    with pytest.raises(NotTrustedError) as caught:
        check_rules(forged)
    assert (caught.value.code, gone.key_id in caught.value.expected) == ("key.unrevoked", True)


def test_key_that_was_rotated_out_is_not_revoked_and_can_be_later(ceremony: Ceremony) -> None:
    gone = TARGETS[0].public
    rotate(ceremony.workspace, Change(remove=(gone.fingerprint,), add_targets=(GRACE.public,)), LATER)
    assert ceremony.collect("root-2", (*ROOT[:2], TARGETS[1], GRACE), LATER).is_complete
    assert published(ceremony.workspace).walked.root.revoked == ()
    rotate(ceremony.workspace, Change(revoke=(gone.fingerprint,)), LATER)
    assert ceremony.collect("root-3", ROOT[:2], LATER).is_complete
    assert published(ceremony.workspace).walked.root.revoked == (gone.key_id,)
