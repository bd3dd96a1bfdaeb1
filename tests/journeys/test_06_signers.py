"""Six people and a builder: the signers' page, typed as it stands; then everything that must not work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.keys.signers.pem import load_public
from tests.appliance.keys.signers.test_token import LIBRARY, MAKE_KEY, PIN
from tests.journeys.conftest import RECIPE, Finished, appliance
from tests.journeys.typing import Session
from tests.pages.blocks import read_commands

PAGE = read_commands("docs/signer.md")
WORDS = "several plain words"
PEOPLE = ("alice", "bob", "carol", "dan", "eve", "frank", "grace", "heidi")
LIBRARY_NAME = {"/usr/lib/softhsm/libsofthsm2.so": str(LIBRARY)}
TOKEN = f"pkcs11:token=eve;object=signing?module-path={LIBRARY}"

pytestmark = pytest.mark.ci


def quietly(folder: Path, *arguments: str | Path, secret: str = WORDS) -> Finished:
    """Run a command without a terminal; the passphrase comes from a descriptor."""
    reader, writer = os.pipe()
    os.write(writer, f"{secret}\n".encode())
    os.close(writer)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "appliance.cli.main", *map(str, arguments), "--passphrase-fd", str(reader)],
            cwd=folder,
            pass_fds=[reader],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
        )
    finally:
        os.close(reader)
    return Finished(done.returncode, done.stdout, done.stderr)


def line(start: str) -> str:
    """The one line of the page that starts so; it may stand there twice."""
    [found] = {one for one in PAGE if one.startswith(start)}
    return found


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """One folder for everybody, with the keys of all people but Dan and Eve, who make theirs on the page."""
    for person in PEOPLE:
        if person not in ("dan", "eve"):
            assert quietly(tmp_path, "key", "create", f"{person}.pem").code == 0
    (tmp_path / "conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "bundles").symlink_to(RECIPE.parents[1])
    return Session(tmp_path, PAGE, {"SOFTHSM2_CONF": str(tmp_path / "conf")})


def make_token(session: Session) -> None:
    env = {**os.environ, **session.env}
    made = ["softhsm2-util", "--init-token", "--free", "--label", "eve", "--pin", PIN, "--so-pin", "87654321"]
    subprocess.run(made, env=env, check=True, capture_output=True)
    key = [sys.executable, "-c", MAKE_KEY, str(LIBRARY), "eve", PIN, "secp256r1", "signing"]
    subprocess.run(key, env=env, check=True, capture_output=True)


def make_program(session: Session) -> Path:
    """Frank's key is behind a program of his own."""
    program = session.folder / "hsm-sign"
    program.write_text(
        f"#!{sys.executable}\nimport base64, sys\nfrom pathlib import Path\n"
        "from appliance.keys.signers.pem import load_key\nassert sys.argv[1:] == ['sign', 'slot-7']\n"
        f"key = load_key(Path({str(session.folder / 'frank.pem')!r}), lambda _what: {WORDS!r})\n"
        "print(base64.b64encode(key.sign(sys.stdin.buffer.read())).decode())\n"
    )
    program.chmod(0o755)
    return program


def hand_out(session: Session, label: str, *people: str) -> None:
    for person in people:
        shutil.copy(session.folder / f"ws/requests/{label}.json", session.folder / f"from-{person}.json")


def everybody_signs(session: Session, label: str, *people: str) -> str:
    """People sign their copies, and the builder brings them together."""
    hand_out(session, label, *people)
    for person in people:
        key = TOKEN if person == "eve" else f"{person}.pem"
        session.type(f"appliance sign from-{person}.json --key '{key}'", secret=PIN if person == "eve" else WORDS)
    copies = " ".join(f"from-{person}.json" for person in people)
    return session.type(f"appliance sign {copies} --add --workspace ws")


@pytest.mark.skipif(LIBRARY is None, reason="needs Debian's softhsm2 (TIER=ci installs it)")
def test_the_signers_page_can_be_typed_as_it_stands(session: Session) -> None:
    dan = make_keys(session)
    hold_ceremony(session)
    sign_bundle(session)
    change_root(session, dan)
    revoke_bundle(session)
    shown = session.follow(line("appliance trust show"))
    assert "root version 4" in shown
    assert dan not in shown
    assert session.open == []


def make_keys(session: Session) -> str:
    """Dan makes a key, and Eve shows hers; returns Dan's fingerprint."""
    shown = session.follow(line("appliance key create"), secret=WORDS)
    dan = load_public(session.folder / "dan.pub").fingerprint
    assert dan in shown
    assert dan in session.follow(line("appliance key show dan"))
    make_token(session)
    session.follow(line("appliance key show 'pkcs11"), LIBRARY_NAME, PIN)
    return dan


def hold_ceremony(session: Session) -> None:
    shown = session.follow(line("appliance init"))
    assert "root 1: 0 of 2 signatures" in shown
    assert all(load_public(session.folder / f"{one}.pub").fingerprint in shown for one in PEOPLE[:6])
    assert "workspace.unsigned" in session.type("appliance build bundles/recipes/smollm2.yaml --workspace ws", code=2)
    hand_out(session, "root-1", *PEOPLE[:6])
    shown = session.follow(line("appliance sign root-1"), {"root-1.json": "from-alice.json"}, WORDS)
    assert "root 1: 1 of 2 signatures, waiting for 1 of" in shown
    for person in ("bob", "dan"):
        session.type(f"appliance sign from-{person}.json --key {person}.pem", secret=WORDS)
    session.type(f"appliance sign from-eve.json --key '{TOKEN}'", secret=PIN)
    assert "published root-1" in session.follow(line("appliance sign from-alice.json"))
    shutil.copy(session.folder / "ws/trust/root.json", session.folder / "root.json")


def sign_bundle(session: Session) -> None:
    shown = session.follow(line("appliance build"))
    assert "targets: 0 of 2 signatures" in shown
    assert "root: 0 of 2 signatures" in shown
    hand_out(session, "targets-2", *PEOPLE[:6])
    for person in ("alice", "bob"):
        session.type(f"appliance sign from-{person}.json --key {person}.pem", secret=WORDS)
    shown = session.follow(line("appliance sign targets-2.json --key dan"), {"targets-2": "from-dan"}, WORDS)
    assert re.search(r"smollm2 1\.0\.0 becomes current, manifest\s+sha256:[0-9a-f]{64}\s", shown)
    assert "meant to be installed until 2027-06-30T23:59:59Z" in shown
    assert "1 of 2 signatures, waiting for 1 of" in session.type("appliance sign from-dan.json --add --workspace ws")
    shown = session.follow(line("appliance verify"), code=4)
    assert "found 1 of 2" in shown
    session.follow(line("appliance sign targets-2.json --key 'pkcs11"), LIBRARY_NAME | {"targets-2": "from-eve"}, PIN)
    assert "published targets-2" in session.follow(line("appliance sign from-alice.json"))
    shown = session.follow(line("appliance verify"))
    assert "signed by  2 of 3 keys, 2 needed; production root" in shown
    assert "boot       serial 1" in shown
    # Two people signed two statements in other people's formats: about the model, and about the bundle.
    assert count_attestations(session) == 4


def change_root(session: Session, dan: str) -> None:
    session.follow(line("appliance trust rotate --workspace"))
    assert "published root-2" in everybody_signs(session, "root-2", "bob", "carol")
    shown = session.follow(line("appliance trust revoke --key"), {"FINGERPRINT": dan})
    assert f"{dan} REVOKED" in shown
    assert "published root-3" in everybody_signs(session, "root-3", "alice", "bob", "eve", "grace")
    session.follow(line("appliance trust rotate --new-builder-key"))
    assert "published root-4" in everybody_signs(session, "root-4", "alice", "carol")
    assert count_attestations(session) == 2
    assert "signed by  2 of 3" in session.type("appliance verify ws/dist/smollm2-1.0.0 --trust ws/trust/root.json")
    assert "signed by  2 of 3" in session.type("appliance verify ws/dist/smollm2-1.0.0 --trust root.json")


def revoke_bundle(session: Session) -> None:
    session.follow(line("appliance trust revoke smollm2"))
    hand_out(session, "targets-4", "frank")
    program = {"/usr/local/bin/hsm-sign": str(make_program(session)), "targets-2": "from-frank"}
    assert "becomes REVOKED" in session.follow(line("appliance sign targets-2.json --key 'exec"), program)
    assert "1 of 2" in session.type("appliance sign from-frank.json --add --workspace ws")
    assert "published targets-4" in everybody_signs(session, "targets-4", "eve")
    assert "target.revoked" in session.type("appliance verify ws/dist/smollm2-1.0.0 --trust root.json", code=4)


def count_attestations(session: Session) -> int:
    return len(list((session.folder / "ws/dist/smollm2-1.0.0/attestations").rglob("*.*s*")))


@pytest.fixture(scope="module")
def ceremony(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everybody's keys, and a workspace `ws` whose root alice, bob, dan and eve have signed."""
    folder = tmp_path_factory.mktemp("ceremony")
    for person in PEOPLE:
        assert quietly(folder, "key", "create", f"{person}.pem").code == 0
    keys = [f"--{'root' if at < 3 else 'targets'}-key={folder / person}.pub" for at, person in enumerate(PEOPLE[:6])]
    assert appliance("init", folder / "ws", "--ceremony", *keys).code == 0
    sign(folder, "root-1", "alice", "bob", "dan", "eve")
    return folder


@pytest.fixture
def fresh(ceremony: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(ceremony, tmp_path / "copy"))


def sign(folder: Path, label: str, *people: str, code: int = 0) -> dict[str, object]:
    """People sign copies of a request; the builder brings them together."""
    copies = []
    for person in people:
        copies.append(folder / f"from-{person}.json")
        shutil.copy(folder / f"ws/requests/{label}.json", copies[-1])
        done = quietly(folder, "sign", copies[-1], "--key", f"{person}.pem", "--yes")
        assert done.code == 0, done.err
    done = appliance("sign", *copies, "--add", "--workspace", folder / "ws", "--json")
    assert done.code == code, done.err
    answer: dict[str, object] = json.loads(done.out)
    return answer


def test_lost_root_key_is_replaced_and_its_thief_cannot_sign_the_next_root(fresh: Path) -> None:
    lost = load_public(fresh / "alice.pub").fingerprint
    pinned = shutil.copy(fresh / "ws/trust/root.json", fresh / "pinned.json")
    revoke = ("trust", "revoke", "--key", lost, "--replace-by", fresh / "grace.pub", "--workspace", fresh / "ws")
    done = appliance(*revoke, "--json")
    assert (done.code, json.loads(done.out)["complete"]) == (0, False)
    assert sign(fresh, "root-2", "alice", "grace")["complete"] is False  # the thief and a new hire
    assert sign(fresh, "root-2", "bob")["complete"] is True  # alice's own signature still counts for the old root
    shown = json.loads(appliance("trust", "show", "--workspace", fresh / "ws", "--json").out)
    assert lost not in shown["roles"]["root"]["fingerprints"]
    assert appliance("trust", "rotate", "--workspace", fresh / "ws").code == 0
    shutil.copy(fresh / "ws/requests/root-3.json", fresh / "x.json")
    done = quietly(fresh, "sign", "x.json", "--key", "alice.pem", "--yes")
    assert (done.code, "request.not-asked" in done.err) == (2, True)
    done = quietly(fresh, "sign", "x.json", "--key", "bob.pem", "--yes", "--trust", pinned)
    assert (done.code, "request.other-root" in done.err) == (4, True)
    (fresh / "ws/requests/root-3.json").unlink()
    again = appliance("trust", "rotate", "--add-root-key", fresh / "alice.pub", "--workspace", fresh / "ws")
    assert (again.code, "rotation.removed-key" in again.err) == (2, True)


def test_signer_without_a_terminal_must_confirm_by_an_option_and_signs_nothing_else(fresh: Path) -> None:
    assert appliance("trust", "rotate", "--workspace", fresh / "ws").code == 0
    request = fresh / "ws/requests/root-2.json"
    before = request.read_bytes()
    done = quietly(fresh, "sign", request, "--key", "alice.pem")
    assert done.code != 0
    assert request.read_bytes() == before
    done = quietly(fresh, "sign", request, "--key", "alice.pem", "--yes", secret="canary of another")
    assert (done.code, "key.passphrase" in done.err) == (2, True)
    assert "canary" not in done.err
    assert request.read_bytes() == before


def test_request_that_was_changed_on_its_way_is_refused(fresh: Path) -> None:
    assert appliance("trust", "rotate", "--workspace", fresh / "ws").code == 0
    request, copy = fresh / "ws/requests/root-2.json", fresh / "changed.json"
    copy.write_bytes(request.read_bytes().replace(b'"threshold":2', b'"threshold":1', 1))
    done = quietly(fresh, "sign", copy, "--key", "alice.pem", "--yes")
    if done.code == 0:  # it is another request now, which the builder never made
        done = appliance("sign", copy, "--add", "--workspace", fresh / "ws")
    assert done.code == 4
    assert appliance("sign", fresh / "alice.pub", "--add", "--workspace", fresh / "ws").code == 4


def test_stale_copy_of_the_repository_asks_for_nothing(fresh: Path) -> None:
    shutil.copytree(fresh / "ws/trust/repository", fresh / "backup")
    assert appliance("trust", "rotate", "--workspace", fresh / "ws").code == 0
    sign(fresh, "root-2", "alice", "bob")
    shutil.rmtree(fresh / "ws/trust/repository")
    shutil.copytree(fresh / "backup", fresh / "ws/trust/repository")
    shutil.copy(fresh / "backup/metadata/1.root.json", fresh / "ws/trust/root.json")
    done = appliance("trust", "rotate", "--workspace", fresh / "ws")
    assert (done.code, done.out) == (1, "")
    assert "repository.stale" in done.err
    assert "expected targets version 1, root version 2" in done.err


def test_two_at_once_do_not_sign_the_same_version(fresh: Path) -> None:
    import fcntl

    with (fresh / "ws/trust/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert appliance("trust", "rotate", "--workspace", fresh / "ws").code == 75
