"""The sheet's second part: where python3 is missing, root installs the bundle's own packages, after their digests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.builder.chunking.chunker import Source
from appliance.keys.workspace import Workspace
from signing.digest import sha256
from tests.attacks.harness import command
from tests.sim.bare import APPLETS, EACH_SHELL, SHELLS
from tests.toy import build_toy

PACKAGES = {"libnew_1_amd64.deb": "libnew 2.0", "libold_1_amd64.deb": "libold 2.0", "python3_3_amd64.deb": "python3 3"}
INSTALLED = {"libold": "2.5", "libnew": "1.9"}
SYSTEM = "debian-12"
GONE = "python3-is-not-here"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    packages = {**{f"{SYSTEM}/{name}": text for name, text in PACKAGES.items()}, "debian-13/python3_3.deb": "python3 9"}
    extra = [Source(f"os-packages/{name}", "os-package", data=text.encode()) for name, text in packages.items()]
    return build_toy(tmp_path_factory.mktemp("toy"), extra=extra)


class BareHost:
    """A host without python3 whose dpkg and apt are scripts: the sheet runs as it is printed, but for places."""

    def __init__(self, folder: Path, sheet: str) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "var").mkdir()
        (folder / "os-release").write_text('ID=debian\nVERSION_ID="12"\n')
        self._put("dpkg-deb", 'set -- $(cat "$2") "$3"; [ "$3" = Package ] && echo "$1" || echo "$2"')
        rows = "".join(f"{name}) echo {version} ;;" for name, version in INSTALLED.items())
        self._put("version", f'case "$1" in {rows} *) exit 1 ;; esac')
        shown = 'case "$2" in *Abbrev*) echo "ii $v";; *) echo "$v";; esac'
        self._put("dpkg-query", f'v=$("{self.bin}/version" "$3") || exit 1; {shown}')
        self._put("apt-get", f'echo "$@" >"{folder}/apt"; ln -s /bin/true "{self.bin}/{GONE}"')
        self._put("id", "echo 0")
        text = sheet.replace("/dev/shm ", f"{folder} ").replace("python3 -", f"{GONE} -")
        for first in ("PATH=/usr/sbin:", "PATH=/usr/bin:"):
            text = text.replace(first, first.replace("=", f"={self.bin}:"))
        text = text.replace("/etc/os-release", f"{folder}/os-release").replace("/var/tmp/", f"{folder}/var/")
        (folder / "sheet").write_text(text)

    def _put(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def follow(self, stick: Path, shell: str = "dash") -> subprocess.CompletedProcess[str]:
        if shell == "busybox":
            for name in ("cat", *APPLETS):
                (self.bin / name).symlink_to(shutil.which("busybox") or "/bin/busybox")
        argv = [*SHELLS[shell], str(self.folder / "sheet"), str(stick)]
        return subprocess.run(argv, capture_output=True, text=True, cwd=self.folder)

    @property
    def asked_of_apt(self) -> str:
        path = self.folder / "apt"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def host(toy: tuple[Workspace, Path], tmp_path: Path) -> BareHost:
    folder = tmp_path / "host"
    folder.mkdir()
    return BareHost(folder, command("trust", "sheet", "--workspace", toy[0].path).out)


@pytest.fixture
def stick(toy: tuple[Workspace, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy[1], tmp_path / "stick"))


def blob_of(stick: Path, name: str) -> Path:
    return stick / "blobs/sha256" / sha256(PACKAGES[name].encode())


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_only_what_is_absent_or_older_is_installed_and_the_check_goes_on(
    host: BareHost, stick: Path, shell: str
) -> None:
    done = host.follow(stick, shell)
    assert done.returncode == 0, done.stderr
    words = host.asked_of_apt.split()
    assert [Path(word).name for word in words if word.endswith(".deb")] == ["libnew_1_amd64.deb", "python3_3_amd64.deb"]
    assert {"--no-remove", "Dir::Etc::SourceList=/dev/null", "Dir::Etc::SourceParts=/dev/null"} <= set(words)
    assert list((host.folder / "var").iterdir()) == []


def test_package_that_differs_is_damaged_and_nothing_is_installed(host: BareHost, stick: Path) -> None:
    blob_of(stick, "python3_3_amd64.deb").write_bytes(b"python3 4")
    done = host.follow(stick)
    assert (done.returncode, host.asked_of_apt) == (3, "")
    assert "a package differs" in done.stderr


def test_package_that_is_on_another_stick_asks_for_it(host: BareHost, stick: Path) -> None:
    blob_of(stick, "python3_3_amd64.deb").unlink()
    done = host.follow(stick)
    assert (done.returncode, host.asked_of_apt) == (5, "")


def test_ordinary_user_cannot_install_python(host: BareHost, stick: Path) -> None:
    host._put("id", "echo 1000")
    done = host.follow(stick)
    assert (done.returncode, host.asked_of_apt) == (6, "")
    assert "root has to run this" in done.stderr


def test_system_for_which_the_bundle_has_no_python_is_named(host: BareHost, stick: Path) -> None:
    (host.folder / "os-release").write_text("ID=ubuntu\nVERSION_ID=24.04\n")
    done = host.follow(stick)
    assert (done.returncode, host.asked_of_apt) == (6, "")
    assert "ubuntu-24.04" in done.stderr


def test_refusal_of_apt_is_6_and_the_packages_stay_for_a_look(host: BareHost, stick: Path) -> None:
    host._put("apt-get", "exit 100")
    assert host.follow(stick).returncode == 6


def test_first_part_alone_ends_with_6_where_python_is_missing(host: BareHost, stick: Path) -> None:
    text = (host.folder / "sheet").read_text()
    (host.folder / "sheet").write_text(text[: text.index("# Part 2")])
    done = host.follow(stick)
    assert (done.returncode, host.asked_of_apt) == (6, "")
    assert f"{GONE}: not found" in done.stderr


def test_stick_that_is_refused_never_reaches_the_second_part(host: BareHost, stick: Path) -> None:
    (stick / "BOOT/evil.py").write_bytes(b"")
    done = host.follow(stick)
    assert (done.returncode, host.asked_of_apt) == (4, "")
    assert done.stderr == "REFUSED: a file too many\n"
