"""Keys on tokens, with SoftHSM2 as the token. Each step is a process of its own: the library reads its place once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.keys.signature_requests.request import read_request
from appliance.keys.signers.pem import create_key, load_public, public_pem
from tests.sim.people import ROOT, TARGETS, Ceremony
from tests.sim.tuf import key

PROGRAM = [sys.executable, "-m", "appliance.cli.main"]
LIBRARY = next(
    (
        path
        for path in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so"))
        if path.exists()
    ),
    None,
)
PIN = "123456"
MAKE_KEY = """
import sys, pkcs11
from pkcs11.util.ec import encode_named_curve_parameters
token = pkcs11.lib(sys.argv[1]).get_token(token_label=sys.argv[2])
with token.open(rw=True, user_pin=sys.argv[3]) as session:
    curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(sys.argv[4])}
    parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
    parameters.generate_keypair(store=True, label=sys.argv[5])
"""
pytestmark = pytest.mark.skipif(
    LIBRARY is None or shutil.which("softhsm2-util") is None, reason="needs Debian's softhsm2 (TIER=ci installs it)"
)


@dataclass(frozen=True)
class Token:
    """A token of software, and how a process finds it."""

    env: dict[str, str]

    def uri(self, object_: str = "signing", token: str = "bob") -> str:
        return f"pkcs11:token={token};object={object_}?module-path={LIBRARY}"

    def run(self, *arguments: str | Path, pin: str = PIN) -> subprocess.CompletedProcess[str]:
        reader, writer = os.pipe()
        os.write(writer, f"{pin}\n".encode())
        os.close(writer)
        try:
            return subprocess.run(
                [*PROGRAM, *map(str, arguments), "--passphrase-fd", str(reader)],
                env={**os.environ, **self.env},
                pass_fds=[reader],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )
        finally:
            os.close(reader)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    env = {"SOFTHSM2_CONF": str(folder / "conf")}
    made = ["softhsm2-util", "--init-token", "--free", "--label", "bob", "--pin", PIN, "--so-pin", "87654321"]
    subprocess.run(made, env={**os.environ, **env}, check=True, capture_output=True)
    for curve, label in (("secp256r1", "signing"), ("secp384r1", "other-curve")):
        subprocess.run(
            [sys.executable, "-c", MAKE_KEY, str(LIBRARY), "bob", PIN, curve, label],
            env={**os.environ, **env},
            check=True,
            capture_output=True,
        )
    return Token(env)


def test_public_half_leaves_the_token_and_a_signature_by_it_counts(token: Token, tmp_path: Path) -> None:
    shown = token.run("key", "show", token.uri(), "--out", tmp_path / "bob.pub", "--json")
    assert shown.returncode == 0, shown.stderr
    public = load_public(tmp_path / "bob.pub")
    assert json.loads(shown.stdout)["fingerprint"] == public.fingerprint
    from appliance.keys.ceremony import begin
    from tests.toy import NOW

    people = [public, *(one.public for one in TARGETS[:2])]
    workspace, _ = begin(tmp_path / "w", ([one.public for one in ROOT], 2), (people, 2), NOW)
    copy = tmp_path / "copy.json"
    copy.write_bytes((workspace.requests / "root-1.json").read_bytes())
    done = token.run("sign", copy, "--key", token.uri(), "--yes")
    assert done.returncode == 0, done.stderr
    assert "targets: 1 of 2 signatures" in done.stdout
    [(path, by)] = read_request(copy.read_bytes(), "copy").signatures
    assert (path, by) == ("metadata/1.targets.json", public.key_id)
    (tmp_path / "mail").mkdir()
    made = Ceremony(workspace, tmp_path / "mail")
    shutil.copy(copy, made.waiting("root-1"))
    assert made.collect("root-1", (*ROOT[:2], TARGETS[0])).is_complete


@pytest.mark.parametrize(
    ("changes", "pin", "code", "word"),
    [
        ({}, "000000", 1, "token.pin"),
        ({"token": "nobody"}, PIN, 1, "token.absent"),
        ({"object_": "nothing"}, PIN, 1, "token.no-key"),
        ({"object_": "other-curve"}, PIN, 1, "token.key-kind"),
    ],
)
def test_token_that_cannot_sign_says_why(token: Token, changes: dict[str, str], pin: str, code: int, word: str) -> None:
    done = token.run("key", "show", token.uri(**changes), pin=pin)
    assert (done.returncode, done.stdout) == (code, "")
    assert word in done.stderr
    assert "hint:" in done.stderr or word == "token.key-kind"
    assert pin not in done.stderr


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("pkcs11:token=bob;object=signing", "token.name"),
        (f"pkcs11:token=bob;object=signing?module-path={LIBRARY}&pin-value=123456", "token.pin-in-name"),
        ("pkcs11:token=bob;object=signing?module-path=/usr/lib/none.so", "token.no-library"),
    ],
)
def test_name_that_is_no_name_of_a_key_is_a_usage_error(token: Token, name: str, word: str) -> None:
    done = token.run("key", "show", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr


def test_files_and_tokens_are_told_apart(token: Token, tmp_path: Path) -> None:
    made = create_key(tmp_path / "a.pem", "correct horse battery")
    (tmp_path / "a.pub").write_bytes(public_pem(made.public))
    for file in ("a.pem", "a.pub"):
        done = token.run("key", "show", tmp_path / file, pin="correct horse battery")
        assert made.public.fingerprint in done.stdout, done.stderr
    assert key("nobody").public.fingerprint not in done.stdout
