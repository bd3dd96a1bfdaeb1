"""T100: a wheel of the program whose members leave its folder, take each other's place, or fill the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles import bootstrap_set
from bundles.bootstrap_set import bootstrap_root, copy_bootstrap_set
from signing.errors import NotTrustedError
from tests.attacks.harness import Stick, guard_off, make_stick, row
from tests.bundles.bare_host.program import HELPER, PYTHON, program_sources
from tests.toy import build_toy

ROW = row(100)
EVIL = b"print('hijacked')\n"
MEMBERS = {
    "a folder above": "../start.py",
    "a folder far above": "../../../../../etc/cron.d/evil",
    "an absolute path": "/tmp/evil.py",
    "a name of the launcher's own folder": "a/../../start.py",
    "a file of another wheel": "appliance/cli/main.py",
    "a file of another wheel where case does not count": "Appliance/CLI/main.py",
    "a folder in place of a file": "appliance/cli/main.py/evil.py",
    "a device of another system": "aux.py",
    "a hidden start": ".pth",
}


def carried(folder: Path, member: str) -> Stick:
    files = {**HELPER, member: (EVIL, 0o644)}
    made = build_toy(folder / "w", extra=program_sources(folder, files), python=PYTHON)[1]
    return make_stick(made, folder)


def test_unattacked_members_lie_below_the_program(tmp_path: Path) -> None:
    stick = carried(tmp_path, "helper_more/part.py")
    folder = copy_bootstrap_set(stick.verify().value, stick.layout.open_chunk, tmp_path / "host")
    assert (folder / "program/helper_more/part.py").read_bytes() == EVIL


@pytest.mark.parametrize("case", MEMBERS)
def test_attacked_by_a_member_that_is(case: str, tmp_path: Path) -> None:
    stick = carried(tmp_path, MEMBERS[case])
    with pytest.raises(NotTrustedError) as caught:
        copy_bootstrap_set(stick.verify().value, stick.layout.open_chunk, tmp_path / "host")
    assert caught.value.exit_code in ROW.exit
    assert caught.value.code in ("path.refused", "path.collision", "wheel.record-refused")
    assert not [path for path in tmp_path.rglob("*.py") if path.read_bytes() == EVIL]
    assert [path.name for path in bootstrap_root(tmp_path / "host").iterdir() if path.suffix == ""] == [".lock"]


def test_attacked_by_more_bytes_than_any_program_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stick = carried(tmp_path, "helper_more/part.py")
    monkeypatch.setattr(bootstrap_set, "MAX_PROGRAM_BYTES", 100)
    with pytest.raises(NotTrustedError) as caught:
        copy_bootstrap_set(stick.verify().value, stick.layout.open_chunk, tmp_path / "host")
    assert (caught.value.code, caught.value.exit_code) == ("bootstrap.too-long", 4)


def test_unguarded_the_other_wheels_file_ends_it_when_it_is_written(tmp_path: Path) -> None:
    """A second file of one name is never written over the first."""
    stick = carried(tmp_path, "appliance/cli/main.py")
    with guard_off(ROW.guard, lambda *_: None), pytest.raises(Exception, match=r"write\.failed"):
        copy_bootstrap_set(stick.verify().value, stick.layout.open_chunk, tmp_path / "host")


def test_unguarded_a_hidden_file_would_lie_in_the_program(tmp_path: Path) -> None:
    stick = carried(tmp_path, ".pth")
    with guard_off(ROW.guard, lambda *_: None):
        folder = copy_bootstrap_set(stick.verify().value, stick.layout.open_chunk, tmp_path / "host")
    assert (folder / "program/.pth").read_bytes() == EVIL
