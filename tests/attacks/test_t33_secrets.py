"""T33: a secret of the builder or the operator travels on, in a bundle or in what a run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.builder.chunking.chunker import Source
from tests.appliance.tiny import TinyBuild
from tests.appliance.web import wheel
from tests.attacks.harness import guard_off, refused, row

ROW = row(33)
# In pieces, so that nobody who searches this repository finds a secret.
PEM = "-----BEGIN EC " + "PRIVATE KEY-----\n" + "MHcCAQEEIAbcdefghijklmnopqrstuvwxyz0123456789ABC\n"
OPENSSH = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\n" + "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n"
PUTTY = "PuTTY-User-Key-File-3: ssh-ed25519\n" + "Encryption: none\n"
TOKEN = "gh" + "p_" + "A1b2" * 9
HUB = "hf" + "_" + "Ab" * 17
ADDRESS = "https://builder:" + "correct-horse" + "@wheels.example.test/simple/"
TEXTS = {"PEM": PEM, "OpenSSH": OPENSSH, "PuTTY": PUTTY, "a token": TOKEN, "a hub's token": HUB, "an address": ADDRESS}
LEAK = "s3cret-of-the-site"


def with_playbook(folder: Path, text: str) -> TinyBuild:
    return TinyBuild(folder, extra=[Source("playbooks/vars.yml", "playbook", data=f"---\na: 1\nb: {text}\n".encode())])


def with_wheel(folder: Path, data: bytes, name: str = "alpha/settings.py") -> TinyBuild:
    return TinyBuild(folder, wheels={"alpha-1.0-py3-none-any.whl": wheel("alpha", files={name: data})})


def test_unattacked_bundle_with_programs_that_look_for_keys_is_built(tmp_path: Path) -> None:
    text = b'MARK = "-----BEGIN RSA ' + b'PRIVATE KEY-----"\nif MARK in text: print("a key")\nAKIAIOSFODNN7EXAMPLE\n'
    assert with_wheel(tmp_path, text).build().bundle is not None


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_attacked_by_a_secret_in_a_playbook(tmp_path: Path, text: str) -> None:
    error = refused(ROW, with_playbook(tmp_path, text).build, "secret.found", "playbooks/vars.yml:3")
    assert text.strip() not in f"{error}{error.hint}"
    assert list((tmp_path / "workspace" / "dist").glob("[!.]*")) == []


def test_attacked_by_a_secret_inside_a_wheel(tmp_path: Path) -> None:
    subject = "wheels/alpha-1.0-py3-none-any.whl!alpha/settings.py:2"
    refused(ROW, with_wheel(tmp_path, b"A = 1\nB = '" + TOKEN.encode() + b"'\n").build, "secret.found", subject)


def test_attacked_by_a_key_in_a_program(tmp_path: Path) -> None:
    data = bytes(5 << 20) + PEM.encode() + bytes(100)
    subject = "wheels/alpha-1.0-py3-none-any.whl!alpha/lib.so"
    refused(ROW, with_wheel(tmp_path, data, "alpha/lib.so").build, "secret.found", subject)


def test_attacked_by_a_key_that_lies_across_two_blocks_of_reading(tmp_path: Path) -> None:
    data = bytes((4 << 20) - 20) + PEM.encode() + bytes(100)
    refused(
        ROW,
        with_wheel(tmp_path, data, "alpha/lib.so").build,
        "secret.found",
        "wheels/alpha-1.0-py3-none-any.whl!alpha/lib.so",
    )


def test_attacked_by_the_home_of_the_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    refused(ROW, with_playbook(tmp_path, "/home/somebody/models").build, "secret.found", "playbooks/vars.yml:3")


def test_attacked_by_secrets_in_several_files_all_are_reported(tmp_path: Path) -> None:
    tiny = with_playbook(tmp_path, TOKEN)
    tiny.extra = [*tiny.extra, Source("config/more.yaml", "config", data=PEM.encode())]
    error = refused(ROW, tiny.build, "secret.found", "config/more.yaml:1")
    assert [other.subject for other in error.others] == ["playbooks/vars.yml:3"]


def test_attacked_again_after_a_clean_build_from_the_same_cache(tmp_path: Path) -> None:
    assert with_wheel(tmp_path, b"A = 1\n").build().bundle is not None
    subject = "wheels/alpha-1.0-py3-none-any.whl!alpha/settings.py:1"
    refused(ROW, with_wheel(tmp_path, TOKEN.encode()).build, "secret.found", subject)


@pytest.mark.ci
def test_attacked_through_what_a_run_of_ansible_leaves_behind(tmp_path: Path) -> None:
    run, playbooks = tmp_path / "run", tmp_path / "playbooks"
    role = playbooks / "roles" / "one" / "tasks"
    role.mkdir(parents=True)
    run.mkdir(mode=0o700)
    (playbooks / "site.yml").write_text("- hosts: all\n  gather_facts: false\n  roles: [{role: one}]\n")
    (playbooks / "inventory.yml").write_text("all: {hosts: {here: {ansible_connection: local}}}\n")
    (playbooks / "ansible.cfg").write_text("")
    task = "- name: Use it\n  ansible.builtin.command: test -n {{ appliance_secret }}\n  no_log: true\n"
    (role / "main.yml").write_text(task)
    order = {"playbooks": str(playbooks), "variables": {"appliance_secret": LEAK}}
    (run / "order.json").write_text(json.dumps(order))
    command = [sys.executable, "-I", "-B", "-m", "appliance.host.playbook.ansible_child", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TOKEN": LEAK}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert LEAK not in done.stdout + done.stderr
    assert [str(path) for path in run.rglob("*") if path.is_file() and LEAK.encode() in path.read_bytes()] == []
    assert [path for path in run.rglob("*") if path.stat().st_mode & 0o077] == []


def test_unguarded_the_secret_is_signed_and_travels(tmp_path: Path) -> None:
    with guard_off(ROW.guard, lambda *_: None):
        built = with_playbook(tmp_path, PEM).build()
    chunk = built.contents.by_path["playbooks/vars.yml"].chunks[0]
    assert PEM.encode() in (built.path / "blobs" / "sha256" / chunk.sha256).read_bytes()
