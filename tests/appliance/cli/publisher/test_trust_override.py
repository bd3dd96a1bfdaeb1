"""`appliance trust override`: what the signers see, what the operator gets, and what `status` shows of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from appliance.keys.ceremony import collect
from tests.appliance.sim_host import SimHost, new_host
from tests.attacks.harness import command
from tests.sim.people import TARGETS, finished
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = new_host(tmp_path_factory.mktemp("override"))
    made.install()
    return made


def test_signer_sees_every_field_and_the_builder_gets_the_file(tmp_path: Path) -> None:
    ceremony = finished(tmp_path)
    build_toy(ceremony.workspace.path)
    ceremony.collect("targets-2", TARGETS[:2])
    words = ("trust", "override", "toy", "1.0.0", "--host", "AB:" * 31 + "AB", "--until", "2031-06-30")
    asked = command(*words, "--workspace", ceremony.workspace.path, "--json")
    assert asked.code == 0, asked.talk
    file = Path(json.loads(asked.out)["file"])
    shown = command("sign", file).talk
    assert "EXPIRY OVERRIDE: one bundle may be installed although its metadata have expired" in shown
    assert "  bundle toy 1.0.0, manifest sha256:" in shown
    assert f"  for host {'ab' * 32} and for no other" in shown
    assert "  last day 2031-06-30, by the time that has been proved there" in shown
    copies = ceremony.signed_by(file.stem, TARGETS[:2])
    done = command("sign", *copies, "--add", "--workspace", ceremony.workspace.path)
    assert f"wrote {ceremony.workspace.path / 'overrides' / file.name}" in done.talk
    again = command("sign", *copies, "--add", "--workspace", ceremony.workspace.path)
    assert again.code == 0, "a run that was cut off before it could say so"
    assert collect(ceremony.workspace, copies, NOW).is_complete


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("toy", "1.0.0", "--until", "2031-06-30"), 2),
        (("toy", "1.0.0", "--site", "north", "--host", "0" * 64, "--until", "2031-06-30"), 2),
        (("toy", "1.0.0", "--site", "North", "--until", "2031-06-30"), 2),
        (("toy", "1.0.0", "--site", "north", "--until", "2031-02-30"), 2),
        (("toy", "1.0.0", "--host", "0" * 63, "--until", "2031-06-30"), 2),
        (("toy", "9.0.0", "--site", "north", "--until", "2031-06-30"), 2),
        (("toy", "1.0.0", "--site", "north", "--until", "2031-06-30"), 0),
    ],
)
def test_what_cannot_be_asked_is_a_wrong_command(host: SimHost, more: tuple[str, ...], code: int) -> None:
    answer = command("trust", "override", *more, "--workspace", host.workspace.path)
    assert answer.code == code, answer.talk


def test_status_and_verify_show_the_override_by_which_a_release_was_installed(host: SimHost) -> None:
    words = ("trust", "override", "toy", "1.0.0", "--site", "south", "--until", "2031-07-01")
    before = set((host.workspace.path / "overrides").glob("*"))
    assert command(*words, "--workspace", host.workspace.path).code == 0
    [file] = set((host.workspace.path / "overrides").iterdir()) - before
    record = host.prefix.trust / "overrides" / f"{host.verify().value.manifest}.json"
    record.parent.mkdir()
    shutil.copy(file, record)
    for name in ("status", "verify"):
        shown = command(name, "--prefix", host.prefix.root).out
        assert "its expiry was lifted for site south, until 2031-07-01, signed by" in shown
        answer = json.loads(command(name, "--prefix", host.prefix.root, "--json").out)
        assert (answer["override"]["site"], answer["override"]["last_day"]) == ("south", "2031-07-01")
    record.write_bytes(record.read_bytes().replace(b'"sig":"ME', b'"sig":"MF'))
    for name in ("status", "verify"):
        answer = json.loads(command(name, "--prefix", host.prefix.root, "--json").out)
        assert "signature.invalid" in answer["override"]["error"]
        assert not [one for one in answer["errors"] if one["code"].startswith("signature")], "it decides nothing"
    shutil.rmtree(record.parent)
    assert json.loads(command("status", "--prefix", host.prefix.root, "--json").out)["override"] is None
