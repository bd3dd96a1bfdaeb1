"""What the pages ask the people of a bare host to type does what the pages promise."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appliance.keys.workspace import Workspace
from bundles.bare_host.boot_check import LIST_FILE
from bundles.oci.layout import BOOT
from bundles.stick.writer import write_stick
from tests.attacks.harness import Stick, command, make_stick
from tests.pages.blocks import read_commands
from tests.toy import build_toy

GOOD = "every byte is what was signed"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    return build_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def stick(toy: tuple[Workspace, Path], tmp_path: Path) -> Stick:
    return make_stick(toy[1], tmp_path)


def test_the_two_commands_of_the_page_take_a_stick_from_the_sheet_to_its_last_byte(
    toy: tuple[Workspace, Path], tmp_path: Path
) -> None:
    [printing] = read_commands("docs/bare-host.md", "The sheet")
    _, checking = read_commands("docs/bare-host.md", "The check")
    workspace, bundle = toy
    opened = command("verify", bundle, "--workspace", workspace.path)
    assert opened.code == 0
    wrote = command("stick", "write", bundle, tmp_path / "stick", "--workspace", workspace.path)
    assert wrote.code == 0

    words = printing.partition("#")[0].split()
    assert words[0] == "appliance"
    assert words[3:] == ["--workspace", "~/appliance-workspace", ">sheet.sh"]
    sheet = command(*words[1:3], "--workspace", workspace.path).out
    (tmp_path / "sheet.sh").write_text(sheet.replace("/dev/shm/", f"{tmp_path}/"))
    typed = checking.replace("/media/stick", str(tmp_path / "stick"))
    done = subprocess.run(["sh", "-c", typed], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, GOOD in done.stdout) == (0, True), done.stderr

    (tmp_path / "stick" / BOOT / "json.py").write_text("")
    done = subprocess.run(["sh", "-c", typed], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("REFUSED: ")


def test_a_host_without_python_says_so_last(toy: tuple[Workspace, Path], tmp_path: Path) -> None:
    workspace, bundle = toy
    sheet = command("trust", "sheet", "--workspace", workspace.path).out.replace("/dev/shm/", f"{tmp_path}/")
    (tmp_path / "sheet.sh").write_text(sheet.replace("exec python3 ", "exec python3-is-not-here "))
    done = subprocess.run(["sh", "sheet.sh", str(bundle)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 127
    assert "not found" in done.stderr
    [copies] = tmp_path.glob("boot.*")
    assert (copies / "python3.sha256").read_bytes() == (bundle / BOOT / "python3.sha256").read_bytes()


def test_what_trust_says_to_do_by_hand_is_what_the_sheet_does(stick: Stick, tmp_path: Path) -> None:
    lines = read_commands("signing/TRUST.md", "7. A bare host")
    script = "\n".join(lines).replace("/media/stick", str(stick.path)).replace("/dev/shm/boot", f"{tmp_path}/boot")
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    people = stick.repository.people.root
    for key in people:
        assert f"{key.public.fingerprint}  {key.public.fingerprint}.der" in said
    assert said.count("Verified OK") == 2
    assert said.count(": OK") == 7
    assert GOOD in said
    (stick.path / BOOT / LIST_FILE).write_bytes((stick.path / BOOT / LIST_FILE).read_bytes() + b"\n")
    again = script.replace(f"{tmp_path}/boot", f"{tmp_path}/again")
    assert subprocess.run(["sh", "-c", again], capture_output=True, text=True).stdout.count("Verified OK") == 0


def test_stick_write_refuses_to_carry_a_boot_that_was_changed(stick: Stick, tmp_path: Path) -> None:
    (stick.path / BOOT / "verify.pyz").write_bytes(b"changed")
    answer = command("stick", "write", stick.path, tmp_path / "copy", "--trust", stick.root_file)
    assert (answer.code, (tmp_path / "copy").exists()) == (3, False)
    stick.put_boot()
    write_stick(stick.layout, stick.open().value, tmp_path / "copy")
    assert (tmp_path / "copy" / BOOT / "verify.pyz").read_bytes() == (stick.path / BOOT / "verify.pyz").read_bytes()
