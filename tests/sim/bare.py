"""A bare host's operator: a sheet on paper, a shell, `openssl`, `sha256sum`, python3, and a stick.

Owns how the sheet is run in tests, on this machine and inside a Debian 11 tree. It runs as it is printed, but for where
its copies lie on this machine.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from appliance.builder.bare_host import sheet as paper
from signing.chain import read_root
from tests.attacks.harness import Stick
from tests.bed.entered import enter

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}
# For `parametrize`: a quick run takes Debian's /bin/sh alone.
EACH_SHELL = ["dash", *(pytest.param(name, marks=pytest.mark.ci) for name in ("bash", "busybox"))]
PATH_LINE = "PATH=/usr/bin:/bin"
APPLETS = ("cut", "grep", "head", "ls", "mktemp", "rm", "sed", "sha256sum")


def print_sheet(stick: Stick, serial: int = 1) -> str:
    """The sheet of the root that the stick's hosts trust, as its people print it."""
    return paper.render_sheet(read_root(stick.root, "root.json"), serial)


def follow(
    stick: Path, sheet: str, shell: str, folder: Path, options: Sequence[str] = ("--verify-only",)
) -> subprocess.CompletedProcess[str]:
    """Type the sheet on this machine, and run it with one shell. With busybox its own programs stand first.

    Args:
        stick: the folder to check.
        sheet: of `print_sheet`, or a weaker one.
        shell: of `SHELLS`.
        folder: for the operator's files, and the copies.
        options: after the stick; the program may only be copied below a folder of the test.
    """
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"needs {SHELLS[shell][0]}: run `make bed`")
    folder.mkdir(exist_ok=True)
    text = sheet.replace("/dev/shm ", f"{folder} ")
    if shell == "busybox":
        text = text.replace(PATH_LINE, f"PATH={applets(folder)}:/usr/bin:/bin")
    (folder / "sheet").write_text(text)
    # The operator stands in the worst of all places.
    argv = [*SHELLS[shell], str(folder / "sheet"), str(stick), *options]
    return subprocess.run(argv, capture_output=True, text=True, cwd=stick, timeout=120, stdin=subprocess.DEVNULL)


def follow_in(tree: Path, stick: Path, sheet: str, shell: str) -> subprocess.CompletedProcess[str]:
    """The same inside a tree, where the operator types the sheet into `/tmp`."""
    typed = f"cat >/tmp/sheet; {' '.join(SHELLS[shell])} /tmp/sheet /media --verify-only"
    if shell == "busybox":
        sheet = sheet.replace(PATH_LINE, "PATH=/tmp/a:/usr/bin:/bin")
        link = 'ln -s "$(command -v busybox)" "/tmp/a/$x"'
        typed = f"mkdir /tmp/a; for x in {' '.join(APPLETS)}; do {link}; done; {typed}"
    return enter(tree, stick, ["sh", "-c", typed], stdin=sheet)


def applets(folder: Path) -> Path:
    """A folder with busybox's own programs of the names that the sheet uses."""
    place = folder / "applets"
    place.mkdir(exist_ok=True)
    for name in APPLETS:
        if not (place / name).is_symlink():
            (place / name).symlink_to(shutil.which("busybox") or "/bin/busybox")
    return place


def without(*lines: str) -> Callable[..., str]:
    """A printer of sheets in which the lines that contain these texts are left out."""
    whole = paper.render_sheet

    def render(*arguments: object) -> str:
        text = whole(*arguments)  # type: ignore[arg-type]
        for line in lines:
            kept = [one for one in text.splitlines(keepends=True) if line not in one]
            assert len(kept) == len(text.splitlines()) - 1, line
            text = "".join(kept)
        return text

    return render
