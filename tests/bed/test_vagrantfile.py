"""The Vagrantfile is right as far as Vagrant can tell without a machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.bed import vagrant_box
from tests.bed.abilities import missing_commands
from tests.bed.fixtures import require

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ci
PAGE = "docs/vagrant.md"


def validate(vagrantfile: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Vagrant keeps its own things outside the checkout and asks nobody about its version."""
    missing = missing_commands(("vagrant",))
    require(f"needs {' '.join(missing)}: run `make system TIER=ci`" if missing else None)
    own = {
        "VAGRANT_CWD": str(vagrantfile.parent),
        "VAGRANT_HOME": str(folder / "home"),
        "VAGRANT_DOTFILE_PATH": str(folder / "dotfile"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }
    argv = ["vagrant", "validate"]
    return subprocess.run(argv, env={**os.environ, **own}, capture_output=True, text=True, timeout=120)


def test_vagrantfile_is_valid(tmp_path: Path) -> None:
    done = validate(TOP / "Vagrantfile", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (TOP / ".vagrant").exists()


def test_control_setting_that_does_not_exist_is_found(tmp_path: Path) -> None:
    text = (TOP / "Vagrantfile").read_text()
    assert "machine.memory =" in text
    (tmp_path / "Vagrantfile").write_text(text.replace("machine.memory =", "machine.memmory ="))
    assert "memmory" in validate(tmp_path / "Vagrantfile", tmp_path).stderr


def test_page_names_machines_and_settings_of_the_vagrantfile() -> None:
    """No test brings the machines up: this holds the page, whose run was made by hand, to the file."""
    page, text = (TOP / PAGE).read_text(), (TOP / "Vagrantfile").read_text()
    defined = set(re.findall(r'config\.vm\.define "(\w+)"', text))
    assert set(re.findall(r"vagrant (?:up|halt|ssh) (\w+)", page)) == defined
    memory, cpus = re.search(r"machine\.memory = (\d+)", text), re.search(r"machine\.cpus = (\d+)", text)
    assert memory
    assert cpus
    assert f"Memory:            {memory[1]}M" in page
    assert f"Cpus:              {cpus[1]}\n" in page
    assert "isolated: no route leads out of this target" in page
    assert "isolated: no route leads out of this target" in text


def test_box_has_what_copies_the_checkout_into_the_builder() -> None:
    # Without a network Vagrant cannot fetch it, and the machine does not come up.
    assert 'type: "rsync"' in (TOP / "Vagrantfile").read_text()
    assert "rsync" in vagrant_box.TREE.packages
