"""T19: a bare host's operator follows the sheet; the stick has another verifier, an old one, or modules beside it."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.builder.bare_host.boot_writer import signed, unsigned
from appliance.keys.signers.pem import PemKey
from bundles.bare_host.boot_check import LIST_FILE, write_list
from bundles.oci.layout import BOOT
from tests.attacks.harness import Stick, guard_off, row
from tests.bed.fixtures import tree_folder
from tests.bed.trees import DEBIAN_11
from tests.sim.bare import EACH_SHELL, SHELLS, follow, follow_in, print_sheet, without
from tests.sim.tuf import STRANGERS

ROW = row(19)
MARK = "every byte is what was signed"
NEEDED = 2
"""The serial on the sheet, and that of the good BOOT."""


def evil() -> bytes:
    """A verifier that accepts everything."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", f"print('{MARK}')\n")
    return buffer.getvalue()


def sign_changed(stick: Stick, change: Callable[[dict[str, bytes]], object], by: tuple[PemKey, ...] = ()) -> None:
    """Write a BOOT whose files were changed before its list was made and signed."""
    files = unsigned(stick.root, NEEDED)
    change(files)
    if files[LIST_FILE] == unsigned(stick.root, NEEDED)[LIST_FILE]:
        files[LIST_FILE] = write_list({name: data for name, data in files.items() if name != LIST_FILE}, NEEDED)
    shutil.rmtree(stick.path / BOOT)
    (stick.path / BOOT).mkdir()
    for name, data in signed(files, by or stick.repository.signers("root")).items():
        (stick.path / BOOT / name).write_bytes(data)


def one_signature(stick: Stick) -> None:
    stick.put_boot(by=stick.repository.people.root[:1], serial=NEEDED)


def copied_signature(stick: Stick) -> None:
    one_signature(stick)
    first, second = (key.public.fingerprint for key in stick.repository.people.root[:2])
    shutil.copy(stick.path / BOOT / f"{first}.sig", stick.path / BOOT / f"{second}.sig")


def changed_verifier(stick: Stick) -> None:
    (stick.path / BOOT / "verify.pyz").write_bytes(evil())


def planted_module(stick: Stick) -> None:
    (stick.path / BOOT / "json.py").write_text("raise SystemExit(print('hijacked'))")


def swapped_key(stick: Stick) -> None:
    """A thief's key under the name of a root key, with the thief's signature over the thief's list."""
    thief, victim = STRANGERS.root[0], stick.repository.people.root[0].public
    stick.put_boot(by=(thief, *stick.repository.people.root[1:2]), serial=NEEDED, verifier=evil())
    boot = stick.path / BOOT
    (boot / f"{victim.fingerprint}.der").write_bytes(thief.public.spki)
    (boot / f"{thief.public.fingerprint}.sig").rename(boot / f"{victim.fingerprint}.sig")


def thieves_keys_under_their_own_names(stick: Stick) -> None:
    def bring(files: dict[str, bytes]) -> None:
        files["verify.pyz"] = evil()
        files.update({f"{one.public.fingerprint}.der": one.public.spki for one in STRANGERS.root})

    sign_changed(stick, bring, STRANGERS.root)


def older_serial(stick: Stick) -> None:
    """Signed once by the right people, before a fault was found in that verifier."""
    stick.put_boot(serial=NEEDED - 1, verifier=evil())


def release_keys(stick: Stick) -> None:
    stick.put_boot(by=stick.repository.people.targets, serial=NEEDED, verifier=evil())


def release_keys_in_the_root_keys_places(stick: Stick) -> None:
    release_keys(stick)
    people = stick.repository.people
    for release, root in zip(people.targets, people.root, strict=True):
        boot = stick.path / BOOT
        (boot / f"{release.public.fingerprint}.sig").rename(boot / f"{root.public.fingerprint}.sig")


def missing_verifier(stick: Stick) -> None:
    (stick.path / BOOT / "verify.pyz").unlink()


def endless_verifier(stick: Stick) -> None:
    (stick.path / BOOT / "verify.pyz").unlink()
    with (stick.path / BOOT / "verify.pyz").open("wb") as file:
        file.truncate(1 << 40)


def no_boot(stick: Stick) -> None:
    shutil.rmtree(stick.path / BOOT)


def list_is_a_fifo(stick: Stick) -> None:
    (stick.path / BOOT / LIST_FILE).unlink()
    os.mkfifo(stick.path / BOOT / LIST_FILE)


ATTACKS: dict[Callable[[Stick], None], str] = {
    one_signature: "1 signatures",
    copied_signature: "1 signatures",
    changed_verifier: "a file differs",
    planted_module: "a file too many",
    swapped_key: "key ",
    thieves_keys_under_their_own_names: "0 signatures",
    older_serial: "serial 1",
    release_keys: "0 signatures",
    release_keys_in_the_root_keys_places: "0 signatures",
    missing_verifier: "no verify.pyz",
    endless_verifier: "a file differs",
    no_boot: "no BOOT",
    list_is_a_fifo: "no BOOT",
}


@pytest.fixture
def good(stick: Stick) -> Stick:
    stick.put_boot(serial=NEEDED)
    return stick


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_unattacked_stick_is_verified_to_its_last_byte(good: Stick, shell: str, tmp_path: Path) -> None:
    done = follow(good.path, print_sheet(good, NEEDED), shell, tmp_path / "operator")
    assert (done.returncode, MARK in done.stdout) == (0, True), done.stderr
    # The operator's shell stands elsewhere: the next command names the checked copy in full.
    [checked] = [word for word in done.stderr.split() if word.endswith("/root.json")]
    assert Path(checked).read_bytes() == (good.path / BOOT / "root.json").read_bytes()


@pytest.mark.parametrize("signers", [(0, 2), (1, 2), (0, 1, 2)])
def test_unattacked_any_two_of_three_root_keys_are_enough(
    good: Stick, signers: tuple[int, ...], tmp_path: Path
) -> None:
    good.put_boot(by=[good.repository.people.root[at] for at in signers], serial=NEEDED + 1)
    assert follow(good.path, print_sheet(good, NEEDED), "dash", tmp_path / "operator").returncode == 0


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacked_nothing_of_the_stick_runs(good: Stick, attack: Callable[[Stick], None], tmp_path: Path) -> None:
    attack(good)
    for shell in SHELLS:
        done = follow(good.path, print_sheet(good, NEEDED), shell, tmp_path / shell)
        assert (done.returncode, done.stdout) == (ROW.exit[0], ""), shell
        assert done.stderr.startswith(f"REFUSED: {ATTACKS[attack]}"), (shell, done.stderr)


def test_attacked_by_commands_on_the_stick_there_are_none(good: Stick) -> None:
    """The stick's own text asks nobody to run anything: what to type is on paper."""
    from appliance.builder.assembly.readme import write_readme

    text = write_readme(good.open().value.contents).decode()
    assert "no instruction on it should be" in " ".join(text.split())
    for word in ("python", "openssl", "sha256sum", "appliance ", "sudo", "$ "):
        assert word not in text


@pytest.mark.bed
@pytest.mark.parametrize("shell", EACH_SHELL)
def test_unattacked_stick_is_verified_by_debian_11(good: Stick, shell: str) -> None:
    done = follow_in(tree_folder(DEBIAN_11), good.path, print_sheet(good, NEEDED), shell)
    assert (done.returncode, MARK in done.stdout) == (0, True), done.stderr


@pytest.mark.bed
@pytest.mark.ci
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacked_nothing_of_the_stick_runs_on_debian_11(good: Stick, attack: Callable[[Stick], None]) -> None:
    tree = tree_folder(DEBIAN_11)
    attack(good)
    for shell in SHELLS:
        done = follow_in(tree, good.path, print_sheet(good, NEEDED), shell)
        assert (done.returncode, done.stdout) == (ROW.exit[0], ""), shell
        assert done.stderr.startswith(f"REFUSED: {ATTACKS[attack]}"), (shell, done.stderr)


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_unguarded_the_old_verifier_runs(good: Stick, shell: str, tmp_path: Path) -> None:
    older_serial(good)
    with guard_off(ROW.guard, without('[ "$r" -ge "$s" ]')):
        done = follow(good.path, print_sheet(good, NEEDED), shell, tmp_path / "operator")
    assert (done.returncode, done.stdout) == (0, f"{MARK}\n")


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_unguarded_one_signature_is_enough(good: Stick, shell: str, tmp_path: Path) -> None:
    good.put_boot(by=good.repository.people.root[:1], serial=NEEDED, verifier=evil())
    with guard_off(ROW.guard, without('[ "$n" -ge "$m" ]')):
        done = follow(good.path, print_sheet(good, NEEDED), shell, tmp_path / "operator")
    assert (done.returncode, done.stdout) == (0, f"{MARK}\n")


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_unguarded_the_swapped_key_counts(good: Stick, shell: str, tmp_path: Path) -> None:
    swapped_key(good)
    with guard_off(ROW.guard, without('= "$k  -" ]', "sha256sum -c ")):
        done = follow(good.path, print_sheet(good, NEEDED), shell, tmp_path / "operator")
    assert (done.returncode, done.stdout) == (0, f"{MARK}\n")


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_unguarded_the_changed_verifier_runs(good: Stick, shell: str, tmp_path: Path) -> None:
    changed_verifier(good)
    with guard_off(ROW.guard, without("sha256sum -c ")):
        done = follow(good.path, print_sheet(good, NEEDED), shell, tmp_path / "operator")
    assert (done.returncode, done.stdout) == (0, f"{MARK}\n")


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_unguarded_the_verifier_itself_refuses_the_module_and_never_loads_it(
    good: Stick, shell: str, tmp_path: Path
) -> None:
    planted_module(good)
    with guard_off(ROW.guard, without("ls -A")):
        done = follow(good.path, print_sheet(good, NEEDED), shell, tmp_path / "operator")
    assert (done.returncode, done.stdout) == (4, "")
    assert "BOOT/json.py: unlisted (layout.unlisted)" in done.stderr
