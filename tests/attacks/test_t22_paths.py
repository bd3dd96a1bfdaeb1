"""T22: signed contents whose paths leave their folder, or mean two files where there is one name."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.layout.places import place
from appliance.host.layout.prefix import Prefix
from bundles.contents.contents import FORMAT_1_KINDS
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import Signed
from tests.toy import BILLS

ROW = row(22)
PREFIX = Prefix(Path("/srv/appliance"))
HOSTILE = [
    "../../../../etc/cron.d/evil",
    "/etc/cron.d/evil",
    "config/../../evil",
    "config//evil",
    "config/./evil",
    "config/",
    ".git/config",
    "-rf",
    "config\\evil",
    "C:evil",
    "config/nul",
    "config/COM1.txt",
    "config/ends.",
    "config/space ",
    "caf\u00e9",
    "cafe\u0301",
    "a" * 241,
]


def name_it(stick: Stick, path: str) -> None:
    """Give the playbook another path, and sign that."""

    def change(contents: Signed) -> None:
        [file] = [file for file in contents["files"] if file["kind"] == "playbook"]
        file["path"] = path
        contents["files"].sort(key=lambda file: file["path"])

    stick.forge(change)


def test_unattacked_contents_with_another_good_path_verify(stick: Stick) -> None:
    name_it(stick, "adapters/Another_name-1.0+x@y=z.bin")
    stick.verify()


@pytest.mark.parametrize("path", HOSTILE)
def test_attacked_by_a_signed_path(stick: Stick, path: str) -> None:
    name_it(stick, path)
    refused(ROW, stick.verify, "path.refused", repr(path)[:120])
    assert stick.command().code == 4


@pytest.mark.parametrize("path", ["", "config/new\nline", "config/\u202egnp.exe", "config/\0", "a" * 2000])
def test_attacked_by_a_path_that_is_no_line_of_text(stick: Stick, path: str) -> None:
    name_it(stick, path)
    at = sorted(
        [path, *(one.path for one in BILLS), *(f"{kind}s/" for kind in FORMAT_1_KINDS if kind != "playbook")]
    ).index(path)
    refused(ROW, stick.verify, "contents.refused", f"contents.json files[{at}] path")


@pytest.mark.parametrize("path", ["WHEELS/wheel.TXT", "wheels/wheel.txt/inside", "wheels"])
def test_attacked_by_two_paths_that_are_one_on_a_stick(stick: Stick, path: str) -> None:
    name_it(stick, path)
    refused(ROW, stick.verify, "path.collision", "contents.json")


def test_unguarded_the_file_would_lie_outside(stick: Stick) -> None:
    name_it(stick, HOSTILE[0])
    with guard_off(ROW.guard, lambda path: path):
        contents = stick.verify().value.contents
    file = contents.by_path[HOSTILE[0]]
    release = PREFIX.releases / "1.0.0-x"
    assert not place(PREFIX, release, file).resolve().is_relative_to(release)
