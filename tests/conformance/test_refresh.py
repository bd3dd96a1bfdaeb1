"""Our client refreshes from a repository that python-tuf wrote: signatures, thresholds, root chains, fields."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tuf.api.metadata import DelegatedRole, Delegations

from tests.conformance.conftest import Client, Server
from tests.conformance.publisher import EVERY, Publisher, signer

HERE = Path(__file__).parent
FIRST = {"root": 1, "targets": 1, "snapshot": 1, "timestamp": 1}


def test_init_asks_the_repository_for_nothing(client: Client, publisher: Publisher) -> None:
    assert publisher.asked == []
    assert client.versions() == {"root": 1}


def test_refresh_asks_for_each_file_once_and_keeps_all(client: Client, publisher: Publisher) -> None:
    assert client.refresh() == 0
    names = ("2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json")
    assert publisher.asked == [f"metadata/{name}" for name in names]
    assert client.versions() == FIRST


def test_second_refresh_asks_only_whether_there_is_something_new(client: Client, publisher: Publisher) -> None:
    assert client.refresh() == 0
    publisher.asked.clear()
    assert client.refresh() == 0
    assert publisher.asked == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_the_executable_speaks_the_protocol(ours: Client, publisher: Publisher) -> None:
    # Only ours is a program of its own.
    publisher.add_target("a.txt", b"a")
    publisher.publish("targets", "snapshot", "timestamp")
    program = [str(HERE / "client"), "--metadata-dir", str(ours.metadata)]
    common = [*program, "--metadata-url", ours.url("metadata")]
    fetch = ["--target-base-url", ours.url("targets"), "--target-dir", str(ours.targets), "download"]
    codes = [
        subprocess.run(argv, cwd=ours.folder, capture_output=True, timeout=60).returncode
        for argv in (
            [*program, "init", str(ours.folder / "initial_root.json")],
            [*common, "refresh"],
            [*common, "--target-name", "a.txt", *fetch],
            [*common, "--target-name", "b.txt", *fetch],
        )
    ]
    assert codes == [0, 0, 0, 1]
    assert ours.downloaded() == [b"a"]


@pytest.mark.filterwarnings("ignore:keytype 'ecdsa-sha2-nistp256' is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "kind", ["ecdsa", "ecdsa, as once spelled", "ed25519", "rsa", pytest.param("rsa-pkcs1v15", marks=pytest.mark.ci)]
)
@pytest.mark.parametrize("has_hashes", [False, True])
def test_keys_of_each_kind_sign_a_repository(server: Server, client: Client, kind: str, has_hashes: bool) -> None:
    server.publisher = Publisher(kind, has_hashes)
    assert client.init(server.publisher.files["metadata/1.root.json"]) == 0
    assert client.refresh() == 0
    assert client.versions() == FIRST
    server.publisher.signers["targets"] = [signer("thief", kind)]
    server.publisher.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.versions() == {**FIRST, "snapshot": 2, "timestamp": 2}


@pytest.mark.parametrize("fault", ["no version", "a signature by nobody", "not JSON"])
def test_first_root_that_is_not_valid_reaches_no_repository(client: Client, publisher: Publisher, fault: str) -> None:
    root = json.loads(publisher.files["metadata/1.root.json"])
    if fault == "no version":
        del root["signed"]["version"]
    else:
        root["signatures"][0]["sig"] = "00" * 70
    client.init(b"{" if fault == "not JSON" else json.dumps(root).encode())
    assert client.refresh() == 1
    assert publisher.asked == []


@pytest.mark.parametrize(
    ("role", "kept"),
    [
        ("root", {"root": 1}),
        ("timestamp", {"root": 1}),
        ("snapshot", {"root": 1, "timestamp": 2}),
        ("targets", {"root": 1, "timestamp": 2, "snapshot": 2}),
    ],
)
@pytest.mark.parametrize("by", ["nobody", "a stranger", "a forger"])
def test_refresh_keeps_what_came_before_a_role_that_is_not_signed(
    client: Client, publisher: Publisher, role: str, kept: dict[str, int], by: str
) -> None:
    honest = publisher.signers[role]
    publisher.signers[role] = [] if by == "nobody" else [signer("thief")]
    publisher.publish(*(["root"] if role == "root" else ["targets", "snapshot", "timestamp"]))
    if by == "a forger":  # claims that the signature is by the right key
        name = next(name for name in publisher.files if name.endswith((f"2.{role}.json", f"/{role}.json")))
        file = json.loads(publisher.files[name])
        file["signatures"][0]["keyid"] = honest[0].public_key.keyid
        publisher.files[name] = json.dumps(file).encode()
    assert client.refresh() == 1
    assert client.versions() == kept


class Step(NamedTuple):
    keys: list[int]
    threshold: int
    signed_by: list[int]
    is_valid: bool = True


CHAINS = {
    "one key replaced": [Step([1], 1, [1]), Step([2], 1, [2, 1]), Step([2], 1, [2])],
    "strangers sign too": [Step([1], 1, [3, 1, 4]), Step([2], 1, [3, 2, 1, 4]), Step([2], 1, [3, 2, 4])],
    "three of five, other people each time": [
        Step([0, 1, 2, 3, 4], 3, who) for who in ([0, 2, 4], [0, 4, 1], [0, 1, 3])
    ],
    "one of five replaced": [Step([0, 1, 2, 3, 4], 3, [0, 2, 4]), Step([0, 1, 3, 4, 5], 3, [0, 4, 1])],
    "all of five replaced": [
        Step([0, 1, 2, 3, 4], 3, [0, 2, 4]),
        Step([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7]),
        Step([5, 6, 7, 8, 9], 3, [5, 6, 7]),
    ],
    "threshold raised": [Step([1, 2, 3], 1, [1]), Step([1, 2, 3], 2, [1, 2])],
    "threshold lowered": [Step([1, 2, 3], 2, [1, 2]), Step([1, 2, 3], 1, [1, 2]), Step([1, 2, 3], 1, [1])],
    "not by the old key": [Step([1], 1, [1]), Step([2], 1, [2, 3, 4], False)],
    "not by the new key": [Step([1], 1, [1]), Step([2], 1, [1, 3, 4], False)],
    "too few new keys": [Step([0, 1, 2, 3, 4], 3, [0, 2, 4]), Step([0, 1, 3, 4, 5], 3, [0, 2, 4], False)],
    "too few old keys": [Step([0, 1, 2, 3, 4], 3, [0, 2, 4]), Step([0, 1, 3, 4, 5], 3, [0, 4, 5], False)],
    "new threshold not reached": [Step([1, 2, 3], 1, [1]), Step([1, 2, 3], 2, [2], False)],
    "old threshold not reached": [Step([1, 2, 3], 2, [1, 2]), Step([1, 2, 3], 1, [1], False)],
}


@pytest.mark.parametrize("steps", CHAINS.values(), ids=CHAINS)
def test_root_chain(client: Client, publisher: Publisher, steps: list[Step]) -> None:
    publisher.root.version = 0
    for step in steps:
        publisher.replace("root", *(signer(f"root-{one}") for one in step.keys), threshold=step.threshold)
        publisher.signers["root"] = [signer(f"root-{one}") for one in step.signed_by]
        publisher.publish("root")
    assert client.init(publisher.files["metadata/1.root.json"]) == 0
    is_valid = steps[-1].is_valid
    assert client.refresh() == (0 if is_valid else 1)
    kept = (client.metadata / "root.json").read_bytes()
    assert kept == publisher.files[f"metadata/{len(steps) - (not is_valid)}.root.json"]
    assert len(client.versions()) == (4 if is_valid else 1)


PEOPLE = {
    "another key": Step([2], 1, [2]),
    "strangers sign too": Step([1], 1, [3, 1, 4]),
    "not by the new key": Step([2], 1, [1, 3, 4], False),
    "three of five": Step([0, 1, 2, 3, 4], 3, [2, 3, 4]),
    "two of three": Step([0, 1, 3, 4, 5], 3, [0, 4], False),
    "one of three is a stranger": Step([0, 1, 3, 4, 5], 3, [0, 2, 4], False),
}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("step", PEOPLE.values(), ids=PEOPLE)
def test_people_of_a_role_replaced_by_a_new_root(client: Client, publisher: Publisher, role: str, step: Step) -> None:
    assert client.refresh() == 0
    publisher.replace(role, *(signer(f"{role}-{one}") for one in step.keys), threshold=step.threshold)
    publisher.signers[role] = [signer(f"{role}-{one}") for one in step.signed_by]
    publisher.publish(*EVERY)
    assert client.refresh() == (0 if step.is_valid else 1)
    assert client.versions()["root"] == 2
    assert (client.versions().get(role) == 2) == step.is_valid


def test_threshold_that_nobody_can_reach_is_a_root_under_which_nothing_is_valid(
    client: Client, publisher: Publisher
) -> None:
    assert client.refresh() == 0
    publisher.root.roles["snapshot"].threshold = 2
    publisher.root.roles["snapshot"].keyids.append("e" * 64)  # and one name without a key
    publisher.publish(*EVERY)
    assert client.refresh() == 1
    assert (client.versions()["root"], client.versions()["snapshot"]) == (2, 1)


def edit(publisher: Publisher, name: str, change: Any) -> None:
    """Change a published file after it was signed."""
    file = json.loads(publisher.files[name])
    change(file)
    publisher.files[name] = json.dumps(file).encode()


def test_the_same_signature_twice_does_not_count_as_two(client: Client, publisher: Publisher) -> None:
    publisher.root.roles["timestamp"].threshold = 2
    publisher.add("timestamp", signer("timestamp-2"))
    publisher.signers["timestamp"].pop()
    publisher.publish("root", "timestamp")
    edit(publisher, "metadata/timestamp.json", lambda file: file["signatures"].extend(file["signatures"]))
    assert client.refresh() == 1
    assert client.versions() == {"root": 2}


def test_one_key_under_two_key_ids_does_not_count_as_two(ours: Client, publisher: Publisher) -> None:
    # python-tuf counts key ids.
    [one] = publisher.signers["timestamp"]
    again = one.public_key.from_dict("alias", one.public_key.to_dict())
    publisher.root.add_key(again, "timestamp")
    publisher.root.roles["timestamp"].threshold = 2
    publisher.publish("root", "timestamp")
    edit(
        publisher,
        "metadata/timestamp.json",
        lambda file: file["signatures"].append({**file["signatures"][0], "keyid": "alias"}),
    )
    assert ours.refresh() == 1
    assert ours.versions() == {"root": 2}
    publisher.root.roles["timestamp"].threshold = 1
    publisher.publish("root")
    assert ours.refresh() == 0, "a key id need not be a digest in TUF, and an unused alias is no fault"


def test_key_id_named_twice_in_a_role_is_refused(client: Client, publisher: Publisher) -> None:
    role = publisher.root.roles["timestamp"]
    role.keyids.append(role.keyids[0])
    publisher.publish("root")
    assert client.refresh() == 1
    assert client.versions() == {"root": 1}


def test_fields_that_nobody_defined_are_accepted_and_signed(client: Client, publisher: Publisher) -> None:
    publisher.root.unrecognized_fields["custom-field"] = "value"
    key_id = publisher.root.roles["root"].keyids[0]
    key = copy.deepcopy(publisher.root.keys[key_id])  # other tests' repositories have the same object
    key.unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    publisher.root.keys[key_id] = key
    publisher.root.roles["root"].unrecognized_fields["another"] = [1, None, True]
    publisher.targets.unrecognized_fields["x"] = {"é": "ü"}
    publisher.publish(*EVERY)
    edit(publisher, "metadata/timestamp.json", lambda file: file.update(beside="unsigned"))
    assert client.refresh() == 0
    assert client.versions() == dict.fromkeys(EVERY, 2)
    publisher.publish(*EVERY)
    edit(publisher, "metadata/3.targets.json", lambda file: file["signed"]["x"].update({"é": "u"}))
    assert client.refresh() == 1
    assert client.versions()["targets"] == 2


def test_delegations_are_refused(ours: Client, publisher: Publisher) -> None:
    # A TUF client need not refuse them; our targets are flat.
    publisher.targets.delegations = Delegations({}, {"other": DelegatedRole("other", [], 1, False, ["*"])})
    publisher.publish("targets", "snapshot", "timestamp")
    assert ours.refresh() == 1
    assert "targets" not in ours.versions()
