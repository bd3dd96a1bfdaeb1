"""A bundle without a runtime is verified, shown and carried like every other, and no command takes it for a release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.root_pin import pin_root
from tests.attacks.harness import Answer, Stick, command, make_stick
from tests.sim.tuf import Signed
from tests.toy import build_toy


def light(contents: Signed) -> None:
    contents["files"] = [file for file in contents["files"] if file["kind"] not in ("runtime", "model")]
    contents.update(models=[], targets=[], needs={"disk_bytes": 5, "ram_bytes": 0}, format=2, min_reader=2)
    contents.pop("serve")


@pytest.fixture
def stick(tmp_path: Path) -> Stick:
    found = make_stick(build_toy(tmp_path / "workspace")[1], tmp_path)
    found.forge(light)
    return found


def asked(stick: Stick, *arguments: str | Path) -> Answer:
    return command(*arguments, "--trust", stick.root_file)


def test_it_is_verified_shown_and_carried(stick: Stick, tmp_path: Path) -> None:
    assert asked(stick, "verify", stick.path).code == 0
    shown = asked(stick, "inspect", stick.path)
    assert (shown.code, "glibc" in shown.out) == (0, False)
    contents = json.loads(asked(stick, "inspect", stick.path, "--json").out)["contents"]
    assert (contents["format"], contents["min_reader"], contents["models"]) == (2, 2, [])
    assert asked(stick, "diff", stick.path, stick.path).code == 0
    (tmp_path / "copy").mkdir()
    assert asked(stick, "stick", "write", stick.path, tmp_path / "copy").code == 0
    assert asked(stick, "verify", tmp_path / "copy").code == 0


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("plan", "PATH"), 2, "plan.no-model"),
        (("host", "probe", "--with", "PATH"), 2, "runtime.none"),
        (("install", "PATH", "--prefix", "HOST"), 1, "install.unknown-parts"),
    ],
)
def test_no_command_takes_it_for_a_release(
    stick: Stick, tmp_path: Path, words: tuple[str, ...], code: int, error: str
) -> None:
    host = Prefix.at(tmp_path / "host")
    pin_root(host, stick.root_file, [key.public.fingerprint for key in stick.repository.people.root])
    paths = {"PATH": str(stick.path), "HOST": str(tmp_path / "host")}
    answer = asked(stick, *(paths.get(word, word) for word in words))
    assert (answer.code, error in answer.talk) == (code, True), answer.talk
    assert not list(host.releases.iterdir())
