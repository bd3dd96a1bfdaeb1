"""Signers: a key in an encrypted file, and a program of the site's own. For tokens see `test_token.py` beside this."""

from __future__ import annotations

import os
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.keys.signers.external_signer import ExternalSigner
from appliance.keys.signers.key_name import open_signer
from appliance.keys.signers.pem import PemKey, create_key, load_key, load_public, public_pem
from appliance.keys.signers.signer import sign_checked
from signing.errors import ApplianceError, UsageError
from signing.keys import PublicKey
from tests.sim.tuf import key

WORDS = "correct horse battery"


def program(folder: Path, body: str) -> str:
    path = folder / "signer"
    path.write_text(f"#!{sys.executable}\nimport base64, os, sys, time\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_persons_key_is_encrypted_and_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    path = tmp_path / "own" / "alice.pem"
    made = create_key(path, WORDS)
    assert b"ENCRYPTED" in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path, lambda _what: WORDS).public == made.public
    with pytest.raises(UsageError) as caught:
        load_key(path, lambda _what: "something else")
    assert caught.value.code == "key.passphrase"
    with pytest.raises(UsageError) as caught:
        load_key(path)
    assert caught.value.code == "key.encrypted"


def test_passphrase_that_is_too_short_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        create_key(tmp_path / "a.pem", "short")
    assert caught.value.code == "key.passphrase-short"
    assert "short" not in str(caught.value.found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["x" * 1001, "\u00e9" * 501, "\udcff" * 20])
def test_passphrase_that_no_key_can_have_is_refused(tmp_path: Path, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        create_key(tmp_path / "a.pem", words)
    assert caught.value.code == "key.passphrase-odd"
    assert list(tmp_path.iterdir()) == []
    create_key(tmp_path / "a.pem", WORDS)
    with pytest.raises(UsageError):
        load_key(tmp_path / "a.pem", lambda _: words)
    create_key(tmp_path / "b.pem", "\u00e9" * 500)
    load_key(tmp_path / "b.pem", lambda _: "\u00e9" * 500)


def test_key_is_never_written_over_another(tmp_path: Path) -> None:
    create_key(tmp_path / "a.pem", WORDS)
    before = (tmp_path / "a.pem").read_bytes()
    with pytest.raises(UsageError) as caught:
        create_key(tmp_path / "a.pem", WORDS)
    assert caught.value.code == "key.exists"
    assert (tmp_path / "a.pem").read_bytes() == before


def test_public_half_is_read_and_a_private_key_is_not_taken_for_one(tmp_path: Path) -> None:
    made = create_key(tmp_path / "a.pem", WORDS)
    (tmp_path / "a.pub").write_bytes(public_pem(made.public))
    assert load_public(tmp_path / "a.pub") == made.public
    for name, data, code in (
        ("a.pem", None, "key.private"),
        ("none", None, "key.missing"),
        ("text", b"hello", "key.kind"),
    ):
        if data:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError) as caught:
            load_public(tmp_path / name)
        assert caught.value.code == code


@dataclass
class Liar:
    """Says that it is one key and signs with another."""

    public: PublicKey
    key: PemKey

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message)


def test_signature_is_checked_before_it_is_used() -> None:
    with pytest.raises(ApplianceError) as caught:
        sign_checked(Liar(key("alice").public, key("mallory")), b"message", "targets-2")
    assert caught.value.code == "signer.wrong-signature"
    assert sign_checked(key("alice"), b"message", "targets-2")


def test_program_signs_by_the_protocol(tmp_path: Path) -> None:
    made = create_key(tmp_path / "a.pem")
    signer = program(
        tmp_path,
        f"from appliance.keys.signers.pem import load_key; from pathlib import Path\n"
        f"assert sys.argv[1:] == ['sign', 'hsm-7'], sys.argv\n"
        f"key = load_key(Path({str(tmp_path / 'a.pem')!r}))\n"
        "print(base64.b64encode(key.sign(sys.stdin.buffer.read())).decode())",
    )
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[4])
    try:
        external = open_signer(f"exec:{signer}#hsm-7", lambda _what: "", (), made.public)
        made.public.verify(sign_checked(external, b"message", "x"), b"message", "x")
    finally:
        del os.environ["PYTHONPATH"]


@pytest.mark.parametrize(
    ("body", "code", "found"),
    [
        ("print('no base64!')", "signer.answer", "no base64!"),
        ("print('A' * 5000)", "signer.answer", "5001 bytes"),
        ("pass", "signer.wrong-signature", "0 bytes"),
        ("print(base64.b64encode(b'x' * 70).decode())", "signer.wrong-signature", "70 bytes"),
        ("print('the card is out', file=sys.stderr); sys.exit(3)", "signer.failed", "exit code 3: the card is out"),
        ("os.kill(os.getpid(), 9)", "signer.failed", "signal 9"),
    ],
)
def test_program_that_answers_badly_is_named(tmp_path: Path, body: str, code: str, found: str) -> None:
    signer = ExternalSigner(program(tmp_path, body), "k", key("alice").public)
    with pytest.raises(ApplianceError) as caught:
        sign_checked(signer, b"message", "x")
    assert caught.value.code == code
    assert found in caught.value.found


def test_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    body = (
        "import subprocess; child = subprocess.Popen(['sleep', '1000'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\nchild.wait()"
    )
    signer = ExternalSigner(program(tmp_path, body), "k", key("alice").public, timeout_s=3)
    started = time.monotonic()
    with pytest.raises(ApplianceError) as caught:
        signer.sign(b"message")
    assert caught.value.code == "signer.timeout"
    assert time.monotonic() - started < 60
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the program's child still runs")


def test_program_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ExternalSigner(str(tmp_path / "none"), "k", key("alice").public).sign(b"m")
    assert (caught.value.code, caught.value.found) == ("signer.no-program", "no such file or directory")


def test_public_half_of_a_programs_key_comes_from_the_request_by_fingerprint() -> None:
    people = [key("alice").public, key("bob").public]
    found = open_signer(f"exec:hsm#{people[1].fingerprint[:12]}", lambda _what: "", people)
    assert found.public == people[1]
    for wrong in ("", "1234567", "f" * 64):
        with pytest.raises(UsageError) as caught:
            open_signer(f"exec:hsm#{wrong}", lambda _what: "", people)
        assert caught.value.code == "key.public-unknown"
