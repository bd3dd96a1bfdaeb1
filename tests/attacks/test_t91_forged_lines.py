"""T91: names that forge lines of an answer; media or records that leave a check without a record, or end as a bug."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.host.layout.prefix import Prefix
from appliance.host.verification.verification_record import (
    MAX_EVIDENCE_BYTES,
    PAYLOAD_TYPE,
    check_report,
    read_evidence,
    write_evidence,
)
from appliance.keys.signers.host_key import make_host_key
from appliance.keys.signers.pem import create_key
from appliance.keys.tuf_metadata import format_time
from bundles.attestation.dsse import pae
from bundles.bare_host import command_line as verifier
from bundles.report import escape, lines, shell_word
from signing.errors import NotTrustedError
from signing.keys import key_to_json
from signing.strictjson import to_file
from tests.attacks.harness import Answer, Stick, command, guard_off, refused, row
from tests.attacks.media_faults import plant
from tests.toy import NOW

ROW = row(91)
FORGED = "stick\nverified   evil 9.9.9 (current)"
HIDDEN = [
    "\x1b[2K",
    "\r",
    "\n",
    "\u202e",
    "\u200b",
    "\u2028",
    "\ufeff",
    "\u00ad",
    "\u3164",
    "\ufe0f",
    "\udcff",
    "\u00a0",
]
RARE = ("\U000e0041", "\U000e0101", "\u061c", "\u2066")


def renamed(stick: Stick, name: str) -> Stick:
    path = stick.path.with_name(name)
    stick.path.rename(path)
    return Stick(path, stick.repository, stick.root_file)


def host_with_key(folder: Path) -> tuple[Prefix, str]:
    prefix = Prefix.at(folder / "host")
    prefix.create()
    return prefix, make_host_key(prefix.trust).fingerprint


def checked(stick: Stick, folder: Path) -> tuple[Answer, dict[str, Any], Answer]:
    """Verify with a record: the answer, the record's payload, and what `evidence check` says of it."""
    prefix, fingerprint = host_with_key(folder)
    record = folder / "record.json"
    answer = stick.command("--prefix", prefix.root, "--evidence", record)
    payload = json.loads(base64.b64decode(json.loads(record.read_bytes())["payload"]))
    return answer, payload, command("evidence", "check", record, "--fingerprint", fingerprint)


def signed_record(folder: Path, report: object) -> tuple[Path, str]:
    """A record with any report, signed by a host's key."""
    key = create_key(folder / "host.pem")
    payload = to_file(
        {
            "format": 1,
            "host": key_to_json(key.public),
            "report": report,
            "stated_time": format_time(NOW),
            "tool": "1",
        }
    )
    signature = {"keyid": key.public.key_id, "sig": base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode()}
    value = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    (folder / "record.json").write_bytes(to_file(value))
    return folder / "record.json", key.public.fingerprint


def good_report(stick: Stick) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(stick.command("--json").out)
    return report


def test_unattacked_ordinary_text_is_shown_as_it_is(stick: Stick, tmp_path: Path) -> None:
    for text in ("/media/stick", "Grüße aus 東京", "it's 50 % (a+b)", "naïve"):
        assert escape(text) == text
    answer, payload, check = checked(stick, tmp_path)
    assert (answer.code, check.code, payload["report"]["verified"]) == (0, 0, True)


@pytest.mark.parametrize("letter", [*HIDDEN, *RARE], ids=lambda letter: f"{ord(letter[0]):x}")
def test_attacked_by_what_a_reader_would_not_see(letter: str) -> None:
    shown = escape(f"a{letter}b")
    assert shown.isprintable()
    assert letter not in shown
    assert shown.startswith("a\\")


@given(st.text())
def test_attacked_by_any_text_it_stays_one_visible_line(text: str) -> None:
    shown = escape(text)
    assert len(shown.splitlines()) <= 1
    assert all(letter.isprintable() and unicodedata.category(letter) != "Cf" for letter in shown)
    assert escape(shown) == shown


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_attacked_by_any_path_what_is_to_be_pasted_is_one_word(path: str) -> None:
    word = shell_word(path, "TYPED")
    assert shlex.split(word) in ([path], ["TYPED"])
    assert word.isprintable()


def test_attacked_by_a_line_break_in_the_name_of_a_medium(stick: Stick, tmp_path: Path) -> None:
    stick = renamed(stick, FORGED)
    answer, payload, check = checked(stick, tmp_path)
    for out in (answer.out, check.out):
        assert [line for line in out.splitlines() if line.startswith("verified")] == [
            line for line in out.splitlines() if line.startswith("verified   toy 1.0.0")
        ]
        assert "stick\\nverified   evil" in out
    assert "\n" not in payload["report"]["path"]


def test_attacked_by_a_command_in_the_name_of_a_medium_what_is_pasted_runs_nothing(
    stick: Stick, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stick = renamed(stick, f"x; touch {tmp_path.name} $(id)")
    assert verifier.main([str(stick.path), "--trust", str(stick.root_file)]) == 0
    pasted = next(line for line in capfd.readouterr().err.splitlines() if "appliance install" in line)
    told = subprocess.run(
        ["sh", "-c", f"appliance() {{ printf '%s\\n' \"$@\"; }}; {pasted}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert told.stdout.splitlines() == ["install", str(stick.path)]
    assert not (tmp_path / tmp_path.name).exists()


def test_attacked_by_a_line_break_nothing_to_paste_is_shown(stick: Stick, capfd: pytest.CaptureFixture[str]) -> None:
    stick = renamed(stick, "x\n  appliance install evil")
    assert verifier.main([str(stick.path), "--trust", str(stick.root_file)]) == 0
    captured = capfd.readouterr()
    assert "appliance install PATH-TO-BE-TYPED-BY-HAND" in captured.err
    assert "install evil" not in captured.err
    assert [line for line in captured.out.splitlines() if line.startswith("  appliance")] == []


def test_attacked_by_a_file_name_that_is_no_utf_8_there_is_a_record(stick: Stick, tmp_path: Path) -> None:
    (stick.path / "blobs/sha256" / os.fsdecode(b"\xff\xfe\n")).write_bytes(b"")
    refused(ROW, stick.verify, "layout.unlisted", "blobs/sha256/\udcff\udcfe\n")
    answer, payload, check = checked(stick, tmp_path)
    assert (answer.code, check.code) == (4, 0)
    assert payload["report"]["errors"][0]["subject"] == "blobs/sha256/\\udcff\\udcfe\\n"
    assert "blobs/sha256/\\udcff\\udcfe\\n: layout.unlisted" in check.out


@pytest.mark.parametrize("place", ["attestations", "blobs/sha256"])
def test_attacked_by_four_thousand_names_the_record_stays_short_and_says_how_many(
    stick: Stick, tmp_path: Path, place: str
) -> None:
    (stick.path / place).mkdir(exist_ok=True)
    long = "\u65e5" * 60
    for number in range(4000):
        (stick.path / place / f"{number:04}-{long}").touch()
    answer, payload, check = checked(stick, tmp_path)
    assert (answer.code, check.code) == (4, 0)
    assert (tmp_path / "record.json").stat().st_size <= MAX_EVIDENCE_BYTES
    named = [error for error in payload["report"]["errors"] if error["code"] == "layout.unlisted"]
    assert named[0]["found"] == "4000 more"
    if place == "attestations":
        assert payload["report"]["errors_left_out"] > 3000
        assert "and 3951 more" in check.out


_TEXTS = dict.fromkeys(("name", "version", "status", "path", "manifest", "profile", "proved_time"), "x")
_NUMBERS = dict.fromkeys(("asked", "threshold", "files", "bytes", "exit_code"), 1)
GOOD: dict[str, Any] = {**_TEXTS, **_NUMBERS, "verified": True, "signers": [], "expires": {"role": "x", "time": "x"}}


@pytest.mark.parametrize("letter", ["a", "\\", "\u202e", "\udcff", "\u4e00", "\U0001f600"])
def test_attacked_by_long_texts_of_any_letter_the_record_is_one_that_a_check_takes(letter: str) -> None:
    text = letter * 4000
    fault = dict.fromkeys(("code", "subject", "expected", "found", "hint"), text)
    report = {"verified": False, "path": text, "exit_code": 4, "errors": [fault] * 100, "passed_over": [fault] * 100}
    assert len(write_evidence(report, None, NOW, "1")) < MAX_EVIDENCE_BYTES


def test_unattacked_report_with_an_override_is_printed() -> None:
    for place in ({"host": "x"}, {"site": "x"}):
        shown = list(lines(check_report({**GOOD, "override": {**place, "last_day": "x", "signers": ["y"]}}, "x")))
        assert "           y" in shown
    assert any("does not verify" in one for one in lines(check_report({**GOOD, "override": {"error": "z"}}, "x")))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    ),
    st.sampled_from(
        ["verified", "path", "errors", "expires", "signers", "boot", "beside", "attestations", "name", "override"]
    ),
    st.booleans(),
)
def test_attacked_by_any_report_it_is_printed_or_refused(value: Any, name: str, verified: bool) -> None:
    texts = dict.fromkeys(("name", "version", "status", "path", "manifest", "profile", "proved_time"), "x")
    report: dict[str, Any] = {**texts, **dict.fromkeys(("asked", "threshold", "files", "bytes", "exit_code"), 1)}
    report |= {"verified": verified, "signers": [], "expires": {"role": "x", "time": "x"}, "errors": []}
    for odd in ({**report, name: value}, value):
        with suppress(NotTrustedError):
            found = check_report(odd, "record.json")
            assert found["verified"] is not True or list(lines(found))


@pytest.mark.parametrize(
    "report",
    [
        None,
        [],
        {},
        {"verified": True},
        {"verified": False},
        {"verified": False, "path": "x", "exit_code": 1, "errors": [1]},
        {**GOOD, "override": []},
        {**GOOD, "override": {"error": 1}},
        {**GOOD, "override": {"last_day": "x", "signers": []}},
        {**GOOD, "override": {"last_day": "x", "signers": [1], "site": "x"}},
    ],
)
def test_attacked_by_an_odd_report_that_a_host_signed(tmp_path: Path, report: object) -> None:
    record, fingerprint = signed_record(tmp_path, report)
    assert read_evidence(record.read_bytes(), fingerprint, "x").payload["report"] == report  # type: ignore[arg-type]
    answer = command("evidence", "check", record, "--fingerprint", fingerprint)
    assert (answer.code, answer.out) == (4, ""), answer.talk
    assert "evidence.refused" in answer.talk
    assert command("evidence", "check", record, "--fingerprint", fingerprint, "--json").code == 0


def test_attacked_by_line_breaks_in_a_signed_report(stick: Stick, tmp_path: Path) -> None:
    report = {**good_report(stick), "name": "toy\nverified   evil 9.9.9"}
    record, fingerprint = signed_record(tmp_path, report)
    out = command("evidence", "check", record, "--fingerprint", fingerprint).out
    assert len([line for line in out.splitlines() if line.startswith("verified")]) == 1


def test_attacked_by_a_host_whose_path_is_no_utf_8(stick: Stick, tmp_path: Path) -> None:
    stick = renamed(stick, os.fsdecode(b"stick-\xff"))
    answer, payload, check = checked(stick, tmp_path)
    assert (answer.code, check.code) == (0, 0)
    assert payload["report"]["path"].endswith("stick-\\udcff")


def test_unattacked_litter_is_listed_and_called_harmless_where_a_system_leaves_it(stick: Stick) -> None:
    for name in (".Trashes/501", "System Volume Information/WPSettings.dat", "._README.txt", "evil.py"):
        plant(name)(stick)
    answer = stick.command()
    assert answer.code == 0
    [line] = [line for line in answer.out.splitlines() if line.startswith("beside")]
    assert ".Trashes (left by macOS, harmless)" in line
    assert "System Volume Information (left by Windows, harmless)" in line
    assert "evil.py; no part of the bundle" in line
    found = {one["name"]: one["left_by"] for one in good_report(stick)["beside"]}
    assert found == {
        ".Trashes": "macOS",
        "System Volume Information": "Windows",
        "._README.txt": "macOS",
        "evil.py": "",
    }


def test_unguarded_the_name_of_a_medium_forges_a_line(stick: Stick) -> None:
    stick = renamed(stick, FORGED)
    with guard_off(ROW.guard, lambda text, keep="": text):
        assert "\nverified   evil 9.9.9" in stick.command().out


def test_unattacked_record_without_a_key_is_a_note() -> None:
    assert b'"signatures":[]' in write_evidence({"verified": False}, None, NOW, "1")
