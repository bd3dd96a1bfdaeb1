"""What the pages ask the people of a bare host to type does what the pages promise."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appliance.keys.workspace import Workspace
from bundles.bare_host.boot_check import LIST_FILE
from bundles.oci.layout import BOOT
from bundles.stick.writing.writer import write_stick
from tests.attacks.harness import Stick, command, make_stick
from tests.bundles.bare_host.program import PYTHON, program_sources
from tests.pages.blocks import read_commands
from tests.toy import build_toy

GOOD = "every byte is what was signed"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    folder = tmp_path_factory.mktemp("toy")
    return build_toy(folder, extra=program_sources(folder), python=PYTHON)


@pytest.fixture
def stick(toy: tuple[Workspace, Path], tmp_path: Path) -> Stick:
    return make_stick(toy[1], tmp_path)


def test_the_two_commands_of_the_page_take_a_stick_from_the_sheet_to_its_last_byte(
    toy: tuple[Workspace, Path], tmp_path: Path
) -> None:
    [printing] = read_commands("docs/bare-host.md", "The sheet")
    _, checking, for_a_user = read_commands("docs/bare-host.md", "The check")
    workspace, bundle = toy
    opened = command("verify", bundle, "--workspace", workspace.path)
    assert opened.code == 0
    wrote = command("stick", "write", bundle, tmp_path / "stick", "--workspace", workspace.path)
    assert wrote.code == 0

    words = printing.partition("#")[0].split()
    assert words[0] == "appliance"
    assert words[3:] == ["--workspace", "~/appliance-workspace", ">sheet.sh"]
    sheet = command(*words[1:3], "--workspace", workspace.path).out
    (tmp_path / "sheet.sh").write_text(sheet.replace("/dev/shm ", f"{tmp_path} "))
    typed = f"{checking.replace('/media/stick', str(tmp_path / 'stick'))} --verify-only"
    done = subprocess.run(["sh", "-c", typed], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, GOOD in done.stdout) == (0, True), done.stderr

    host = tmp_path / "srv" / "appliance"
    typed_by_user = for_a_user.replace("/media/stick", str(tmp_path / "stick")).replace("/srv/appliance", str(host))
    done = subprocess.run(["sh", "-c", typed_by_user], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, GOOD in done.stdout) == (0, True), done.stderr
    assert f" {host}/opt/appliance/bootstrap/" in done.stdout.splitlines()[-1]

    (tmp_path / "stick" / BOOT / "json.py").write_text("")
    done = subprocess.run(["sh", "-c", typed], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("REFUSED: ")


def test_a_host_without_python_is_told_after_the_check(toy: tuple[Workspace, Path], tmp_path: Path) -> None:
    workspace, bundle = toy
    sheet = command("trust", "sheet", "--workspace", workspace.path).out.replace("/dev/shm ", f"{tmp_path} ")
    sheet = sheet.replace("python3 -", "python3-is-not-here -").replace('"$(id -u)"', "1000")
    (tmp_path / "sheet.sh").write_text(sheet)
    done = subprocess.run(["sh", "sheet.sh", str(bundle)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 6
    assert "not found" in done.stderr
    assert "REFUSED: no python3" in done.stderr
    assert list(tmp_path.glob("boot.*")) == []


def by_hand(stick: Path, memory: Path, *, last: bool = False) -> str:
    """What the commands of the page print for a stick. The last one starts the verifier, and is typed only if asked."""
    lines = read_commands("signing/TRUST.md", "7. A bare host")
    script = "\n".join(lines if last else lines[:-1])
    script = script.replace("/dev/shm/", f"{memory}/").replace("/media/stick", str(stick))
    return subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True, timeout=60).stdout


def signers_of(printed: str) -> list[str]:
    """The fingerprints that were printed as those of signers."""
    return [line.split()[0] for line in printed.splitlines() if line.endswith("  -")]


def test_commands_by_hand_do_what_the_sheet_does(stick: Stick, tmp_path: Path) -> None:
    printed = by_hand(stick.path, tmp_path, last=True)
    assert signers_of(printed) == sorted(one.public.fingerprint for one in stick.repository.signers("root"))
    assert printed.count(": OK") == 7
    assert "  serial-1\n" in printed
    assert "REFUSED" not in printed
    assert GOOD in printed
    (stick.path / BOOT / LIST_FILE).write_bytes((stick.path / BOOT / LIST_FILE).read_bytes() + b"\n")
    printed = by_hand(stick.path, tmp_path)
    assert (signers_of(printed), "REFUSED: the list" in printed) == ([], True)


def test_second_stick_is_not_judged_by_the_copy_of_the_first(stick: Stick, tmp_path: Path) -> None:
    assert "REFUSED" not in by_hand(stick.path, tmp_path)
    (stick.path / BOOT / "verify.pyz").write_bytes(b"another verifier")
    printed = by_hand(stick.path, tmp_path)
    assert "verify.pyz: FAILED" in printed
    assert "REFUSED: a file differs" in printed


@pytest.mark.parametrize("name", ["verify.pyz", "BOOT.sha256", "root.json"])
def test_link_is_not_copied_so_nothing_leads_back_to_the_stick(stick: Stick, tmp_path: Path, name: str) -> None:
    path = stick.path / BOOT / name
    path.rename(stick.path / "real")
    path.symlink_to(stick.path / "real")
    assert f"REFUSED: {path}" in by_hand(stick.path, tmp_path)
    [copy] = tmp_path.glob("boot.*")
    assert all(one.is_file() and not one.is_symlink() for one in copy.iterdir())
    assert not (copy / name).exists()


@pytest.mark.parametrize("name", [".hidden", "json.py", "a b"])
def test_file_too_many_is_refused_by_hand(stick: Stick, tmp_path: Path, name: str) -> None:
    (stick.path / BOOT / name).write_bytes(b"")
    assert "REFUSED: a file too many" in by_hand(stick.path, tmp_path)


def test_folder_in_boot_is_refused_by_hand(stick: Stick, tmp_path: Path) -> None:
    (stick.path / BOOT / "folder").mkdir()
    assert f"REFUSED: {stick.path / BOOT}/folder" in by_hand(stick.path, tmp_path)


def test_one_signature_under_two_names_counts_once(stick: Stick, tmp_path: Path) -> None:
    first, second = stick.repository.signers("root")
    for ending, name in ((".der", second.public.fingerprint), (".sig", second.public.fingerprint)):
        source = (stick.path / BOOT / f"{first.public.fingerprint}{ending}").read_bytes()
        (stick.path / BOOT / f"{name}{ending}").write_bytes(source)
    assert signers_of(by_hand(stick.path, tmp_path)) == [first.public.fingerprint]


def test_keys_of_other_roles_are_no_fingerprints_of_the_sheet(stick: Stick, tmp_path: Path) -> None:
    insider = stick.repository.signers("root")[0]
    helper = stick.repository.people.targets[0]
    stick.put_boot(by=[insider])
    message = (stick.path / BOOT / LIST_FILE).read_bytes()
    (stick.path / BOOT / f"{helper.public.fingerprint}.der").write_bytes(helper.public.spki)
    (stick.path / BOOT / f"{helper.public.fingerprint}.sig").write_bytes(helper.sign(message))
    printed = by_hand(stick.path, tmp_path)
    on_the_sheet = {one.public.fingerprint for one in stick.repository.people.root}
    assert set(signers_of(printed)) & on_the_sheet == {insider.public.fingerprint}
    assert "REFUSED: a file too many" in printed  # its key is not in the list


def test_stick_write_refuses_to_carry_a_boot_that_was_changed(stick: Stick, tmp_path: Path) -> None:
    (stick.path / BOOT / "verify.pyz").write_bytes(b"changed")
    answer = command("stick", "write", stick.path, tmp_path / "copy", "--trust", stick.root_file)
    assert (answer.code, (tmp_path / "copy").exists()) == (3, False)
    stick.put_boot()
    write_stick(stick.layout, stick.open(), tmp_path / "copy")
    assert (tmp_path / "copy" / BOOT / "verify.pyz").read_bytes() == (stick.path / BOOT / "verify.pyz").read_bytes()
