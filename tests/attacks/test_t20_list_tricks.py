"""T20: a list that `sha256sum -c` reads otherwise than people do, and files that it never mentions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bundles.oci.layout import BOOT
from tests.attacks.harness import Stick, guard_off, row
from tests.attacks.test_t19_bare_host import MARK, evil, sign_changed
from tests.bed.fixtures import tree_folder
from tests.bed.trees import DEBIAN_11
from tests.sim.bare import EACH_SHELL, SHELLS, follow, follow_in, print_sheet, without

ROW = row(20)
LIST = "BOOT.sha256"


def sign_list(stick: Stick, change: Callable[[bytes], bytes]) -> None:
    """Root keys sign another form of the list: the worst that people can be tricked into."""

    def put(files: dict[str, bytes]) -> None:
        files[LIST] = change(files[LIST])
        files["verify.pyz"] = evil()

    sign_changed(stick, put)


def line_of(data: bytes, name: bytes) -> bytes:
    return next(line for line in data.split(b"\n") if line.endswith(b"  " + name))


def short_digest(data: bytes) -> bytes:
    line = line_of(data, b"verify.pyz")
    return data.replace(line, line[1:])


def upper_case(data: bytes) -> bytes:
    line = line_of(data, b"verify.pyz")
    return data.replace(line, line.upper())


def comment(data: bytes) -> bytes:
    return data.replace(line_of(data, b"verify.pyz"), b"# verify.pyz is checked elsewhere")


def binary_mode(data: bytes) -> bytes:
    return data.replace(b"  verify.pyz", b" *verify.pyz")


def other_folder(data: bytes) -> bytes:
    return data.replace(b"  verify.pyz", b"  ../verify.pyz")


def escaped_name(data: bytes) -> bytes:
    line = line_of(data, b"verify.pyz")
    return data.replace(line, b"\\" + line)


def bsd_style(data: bytes) -> bytes:
    line = line_of(data, b"verify.pyz")
    return data.replace(line, b"SHA256 (verify.pyz) = " + line[:64])


def returns(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def no_verifier(data: bytes) -> bytes:
    return data.replace(line_of(data, b"verify.pyz") + b"\n", b"")


def no_serial(data: bytes) -> bytes:
    return data.split(b"\n", 1)[1]


def empty(_data: bytes) -> bytes:
    return b""


SPELLINGS = {
    short_digest: "list",
    upper_case: "list",
    comment: "list",
    binary_mode: "list",
    other_folder: "list",
    escaped_name: "list",
    bsd_style: "list",
    returns: "list",
    no_verifier: "a file too many",
    no_serial: "serial ",
    empty: "serial ",
}
TOO_MANY = "REFUSED: a file too many\n"
EXTRA = ["sitecustomize.py", ".hidden", "verify.pyz.sig", "evil.der", f"{'0' * 64}.sig", " root.json", "a\nb", "-c"]


@pytest.fixture
def good(stick: Stick) -> Stick:
    return stick


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_unattacked_list_passes(good: Stick, shell: str, tmp_path: Path) -> None:
    done = follow(good.path, print_sheet(good), shell, tmp_path / "operator")
    assert (done.returncode, MARK in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("change", SPELLINGS)
def test_attacked_by_a_spelling_that_root_keys_signed(
    good: Stick, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    sign_list(good, change)
    for shell in SHELLS:
        done = follow(good.path, print_sheet(good), shell, tmp_path / shell)
        assert (done.returncode, done.stdout) == (ROW.exit[0], ""), shell
        assert done.stderr.startswith(f"REFUSED: {SPELLINGS[change]}"), (shell, done.stderr)
    assert good.command().code == 4


def plant_file(path: Path) -> None:
    path.write_bytes(b"")


def plant_folder(path: Path) -> None:
    path.mkdir()


def plant_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_attacked_by_what_the_list_does_not_mention(good: Stick, shell: str, tmp_path: Path) -> None:
    for number, name in enumerate(EXTRA):
        plant = (plant_folder, plant_link, plant_file)[min(number, 2)]
        path = good.path / BOOT / name
        plant(path)
        done = follow(good.path, print_sheet(good), shell, tmp_path / str(number))
        assert (done.returncode, done.stdout, done.stderr) == (ROW.exit[0], "", TOO_MANY), name
        path.rmdir() if plant is plant_folder else path.unlink()


@pytest.mark.parametrize("name", EXTRA)
def test_attacked_by_what_the_list_does_not_mention_the_command_refuses_it_too(good: Stick, name: str) -> None:
    plant_file(good.path / BOOT / name)
    assert good.command().code == 4


@pytest.mark.ci
@pytest.mark.bed
@pytest.mark.parametrize("shell", EACH_SHELL)
def test_attacked_on_debian_11_the_same_is_refused(good: Stick, shell: str) -> None:
    tree = tree_folder(DEBIAN_11)
    for change, words in SPELLINGS.items():
        sign_list(good, change)
        done = follow_in(tree, good.path, print_sheet(good), shell)
        assert (done.returncode, done.stdout) == (ROW.exit[0], ""), change
        assert done.stderr.startswith(f"REFUSED: {words}"), change
    good.put_boot()
    for name in EXTRA:
        plant_file(good.path / BOOT / name)
        done = follow_in(tree, good.path, print_sheet(good), shell)
        assert (done.returncode, done.stderr) == (ROW.exit[0], TOO_MANY), name
        (good.path / BOOT / name).unlink()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_unguarded_the_comment_hides_a_line_and_any_verifier_runs(good: Stick, shell: str, tmp_path: Path) -> None:
    """GNU sha256sum skips a comment even when it is strict, and the name behind it is that of a file which is there."""
    sign_list(good, lambda data: comment(data) + b"#" * 66 + b"verify.pyz\n")
    with guard_off(ROW.guard, without("no list")):
        done = follow(good.path, print_sheet(good), shell, tmp_path / "operator")
    assert (done.returncode, done.stdout) == (0, f"{MARK}\n"), done.stderr


def test_unguarded_busybox_counts_the_comment_as_a_file_that_differs(good: Stick, tmp_path: Path) -> None:
    sign_list(good, lambda data: comment(data) + b"#" * 66 + b"verify.pyz\n")
    with guard_off(ROW.guard, without("no list")):
        done = follow(good.path, print_sheet(good), "busybox", tmp_path / "operator")
    assert (done.returncode, done.stderr) == (4, "REFUSED: a file differs\n")


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_unguarded_an_extra_file_meets_the_verifier(good: Stick, shell: str, tmp_path: Path) -> None:
    (good.path / BOOT / "evil.py").write_bytes(b"")
    with guard_off(ROW.guard, without("ls -A")):
        done = follow(good.path, print_sheet(good), shell, tmp_path / "operator")
    assert (done.returncode, "BOOT/evil.py: unlisted (layout.unlisted)" in done.stderr) == (4, True)
