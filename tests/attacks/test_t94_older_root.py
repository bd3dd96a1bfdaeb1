"""T94: a root that is named on the command line makes a host forget what it knows."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from appliance.host.install.importer import accept, import_layout
from appliance.host.layout.prefix import Prefix
from appliance.host.trust.metadata_store import open_newest
from appliance.host.trust.root_chain import is_same_chain
from appliance.host.trust.trust_store import read_floors, write_root
from appliance.keys.publication import revoke
from appliance.keys.rotation import Change, rotate
from appliance.keys.workspace import open_workspace
from bundles.oci.layout import Layout
from signing.strictjson import load, to_file, to_signing
from tests.attacks.harness import Answer, command, guard_off, row
from tests.toy import NOW, build_toy

ROW = row(94)


@dataclass(frozen=True)
class Published:
    """The root files 1 to 3, the sticks of four days, and a stick of another publisher with its root.

    The first stick holds 1.0.0 under root 1. Then came root 2; then 1.0.0 was revoked, and 1.1.0 published; then came
    root 3, and 1.2.0 was published.
    """

    roots: tuple[Path, ...]
    sticks: dict[str, Path]
    foreign: Path
    foreign_root: Path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder, roots, sticks = tmp_path_factory.mktemp("published"), [], {}
    for number, version in enumerate(("1.0.0", "1.1.0", "1.2.0"), 1):
        if number > 1:
            rotate(open_workspace(folder / "workspace"), Change(), NOW)
        if number == 2:
            revoke(open_workspace(folder / "workspace"), "toy", "1.0.0", NOW)
        workspace, bundle = build_toy(folder / "workspace", version, note=version)
        sticks[version] = folder / version
        shutil.copytree(bundle, sticks[version])
        roots.append(Path(shutil.copy(workspace.root_file, folder / f"{number}.root.json")))
    other, foreign = build_toy(folder / "other", "1.0.0")
    return Published(tuple(roots), sticks, foreign, other.root_file)


@pytest.fixture
def prefix(published: Published, tmp_path: Path) -> Prefix:
    """A host that has pinned root 2, and has installed 1.1.0: it knows that 1.0.0 is revoked."""
    made, root, stick = Prefix.at(tmp_path / "host"), published.roots[1].read_bytes(), published.sticks["1.1.0"]
    made.create()
    write_root(made, root)
    found = open_newest(stick, root, read_floors(made), NOW, made)
    import_layout(Layout(stick), made.releases / "r", found, root, NOW)
    accept(made, found, root)
    return made


def verify(stick: Path, root: Path, prefix: Prefix, *more: str) -> Answer:
    return command("verify", stick, "--trust", root, "--prefix", prefix.root, *more)


@pytest.mark.parametrize("version", ["1.1.0", "1.2.0"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_unattacked_what_the_host_accepts_passes_by_any_root_of_its_chain(
    published: Published, prefix: Prefix, number: int, version: str
) -> None:
    answer = verify(published.sticks[version], published.roots[number - 1], prefix)
    assert answer.code == 0, answer.talk
    assert "alone" not in answer.talk


def test_unattacked_root_of_another_chain_judges_alone_and_the_answer_states_it(
    published: Published, prefix: Prefix
) -> None:
    answer = verify(published.foreign, published.foreign_root, prefix)
    assert (answer.code, answer.talk.count("notice: judged by the named root alone")) == (0, 1)
    assert "judged by  the named root alone" in answer.out
    assert json.loads(verify(published.foreign, published.foreign_root, prefix, "--json").out)["judged_alone"] is True
    for number in (0, 1):
        own = verify(published.sticks["1.1.0"], published.roots[number], prefix, "--json")
        assert json.loads(own.out)["judged_alone"] is False


@pytest.mark.parametrize("name", ["inspect", "plan", "diff"])
def test_unattacked_every_command_states_that_a_root_judged_alone(
    published: Published, prefix: Prefix, name: str
) -> None:
    paths = [published.foreign] * (2 if name == "diff" else 1)
    answer = command(name, *paths, "--trust", published.foreign_root, "--prefix", prefix.root)
    assert answer.talk.count("notice: judged by the named root alone") == len(paths), answer.talk


@pytest.mark.parametrize("number", [1, 2, 3])
def test_attacked_with_a_revoked_bundle_by_any_root_of_the_chain(
    published: Published, prefix: Prefix, number: int
) -> None:
    answer = verify(published.sticks["1.0.0"], published.roots[number - 1], prefix)
    assert (answer.code, "target.revoked" in answer.talk) == (4, True), answer.talk


@pytest.mark.parametrize("name", ["inspect", "plan"])
def test_attacked_through_another_command(published: Published, prefix: Prefix, name: str) -> None:
    answer = command(name, published.sticks["1.0.0"], "--trust", published.roots[0], "--prefix", prefix.root)
    assert (answer.code, "target.revoked" in answer.talk) == (4, True), answer.talk


def test_attacked_by_a_model_that_should_be_from_the_revoked_bundle(
    published: Published, prefix: Prefix, tmp_path: Path
) -> None:
    (tmp_path / "toy.gguf").write_bytes(b"GGUF")
    answer = verify(tmp_path / "toy.gguf", published.roots[0], prefix, "--bundle", str(published.sticks["1.0.0"]))
    assert (answer.code, "target.revoked" in answer.talk) == (4, True), answer.talk


def test_attacked_where_the_host_has_its_floors_and_no_stored_metadata(published: Published, prefix: Prefix) -> None:
    shutil.rmtree(prefix.releases / "r")
    answer = verify(published.sticks["1.0.0"], published.roots[0], prefix)
    assert (answer.code, "version.rollback" in answer.talk) == (4, True), answer.talk


def test_attacked_where_no_medium_and_no_store_has_the_older_root(published: Published, prefix: Prefix) -> None:
    """The pinned root itself is the link: the people of the older one have signed it."""
    (prefix.releases / "r" / "bundle" / "metadata" / "1.root.json").unlink()
    answer = verify(published.sticks["1.0.0"], published.roots[0], prefix)
    assert (answer.code, "target.revoked" in answer.talk) == (4, True), answer.talk


def test_attacked_with_the_pinned_root_in_other_bytes(published: Published, prefix: Prefix, tmp_path: Path) -> None:
    """Another signature of the same person over the same content makes another file, and no other root."""
    workspace = published.roots[0].parent / "workspace"
    private = load_pem_private_key((workspace / "keys" / "root.pem").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    value = load(published.roots[1].read_bytes(), "root")
    value["signatures"][0]["sig"] = private.sign(to_signing(value["signed"]), ec.ECDSA(hashes.SHA256())).hex()
    other = tmp_path / "root.json"
    other.write_bytes(to_file(value))
    assert other.read_bytes() != published.roots[1].read_bytes()
    assert verify(published.sticks["1.1.0"], other, prefix).code == 0
    assert verify(published.sticks["1.0.0"], other, prefix).code == 4


def test_attacked_by_garbage_in_place_of_the_link(published: Published, prefix: Prefix) -> None:
    metadata = prefix.releases / "r" / "bundle" / "metadata"
    (metadata / "2.root.json").write_bytes(b"{}")
    assert verify(published.sticks["1.0.0"], published.roots[0], prefix).code == 4


def test_unattacked_roots_of_one_chain_are_known_by_the_walk_between_them(published: Published) -> None:
    first, second, third = (path.read_bytes() for path in published.roots)
    links = {"2.root.json": second}
    read = lambda name, _most: links.get(name)  # noqa: E731
    assert is_same_chain(first, second)
    assert is_same_chain(second, first)
    assert is_same_chain(first, third, [read])
    assert is_same_chain(third, first, [lambda _name, _most: b"{}", read])
    assert not is_same_chain(first, third), "nothing shows it where the root between them is missing"
    assert not is_same_chain(first, published.foreign_root.read_bytes(), [read])
    assert not is_same_chain(second, published.foreign_root.read_bytes(), [read])


def test_unguarded_the_older_root_makes_the_revoked_bundle_pass(published: Published, prefix: Prefix) -> None:
    with guard_off(ROW.guard, lambda *_: False):
        assert verify(published.sticks["1.0.0"], published.roots[0], prefix).code == 0
