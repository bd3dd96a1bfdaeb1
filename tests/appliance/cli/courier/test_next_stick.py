"""While a set is written, the next stick is taken as soon as it is mounted where the one before was."""

from __future__ import annotations

import io
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from appliance.cli.console.terminal import Terminal
from appliance.cli.courier.stick_writing import ask_for_sticks, parity_place
from signing.errors import UsageError
from tests.bundles.stick.disks import mounted_disk


def ask_while(terminal: Terminal, point: Path, *steps: Callable[[], object]) -> Sequence[Path]:
    """Ask for the next stick, and do some steps meanwhile, a moment apart."""
    ask = ask_for_sticks(terminal, [point])
    timers = [threading.Timer(0.2 * number, step) for number, step in enumerate(steps, 1)]
    for timer in timers:
        timer.start()
    try:
        return ask(12_400_000_000)
    finally:
        for timer in timers:
            timer.join()


def mount(image: Path, point: Path, *options: str) -> Callable[[], object]:
    return lambda: subprocess.run(("mount", "-o", ",".join(("loop", *options)), image, point), check=True)


def unmount(point: Path) -> Callable[[], object]:
    return lambda: subprocess.run(("umount", point), check=True)


def test_the_next_stick_is_taken_when_it_is_mounted(tmp_path: Path) -> None:
    said = io.StringIO()
    with mounted_disk(tmp_path) as disk:
        image = tmp_path / "disk.img"
        assert ask_while(Terminal(io.StringIO(), said), disk, unmount(disk), mount(image, disk)) == (disk,)
    assert said.getvalue() == f"insert the next stick and mount it at {disk}; 12.4 GB to go\n"


def test_a_stick_that_is_mounted_read_only_is_not_taken(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        image = tmp_path / "disk.img"
        steps = (unmount(disk), mount(image, disk, "ro"), unmount(disk), mount(image, disk))
        assert ask_while(Terminal(io.StringIO(), io.StringIO()), disk, *steps) == (disk,)
        (disk / "writable").write_bytes(b"x")


def test_nobody_is_asked_where_no_stick_was_mounted(tmp_path: Path) -> None:
    said = io.StringIO()
    assert ask_for_sticks(Terminal(io.StringIO(), said), [tmp_path])(1) == ()
    assert not said.getvalue()


@pytest.mark.parametrize("further", [None, lambda _size: ()])
def test_the_parity_has_its_own_place_and_never_that_of_another_stick(
    tmp_path: Path, further: Callable[[int], Sequence[Path]] | None
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert parity_place(two, [one], further)(1) == two
    for same in (one, tmp_path / "two" / ".." / "one"):
        with pytest.raises(UsageError) as caught:
            parity_place(same, [one], further)
        assert caught.value.code == "stick.twice"


def test_the_parity_waits_for_a_further_stick_where_one_is_mounted(tmp_path: Path) -> None:
    mounted = Path("/proc")
    assert parity_place(mounted, [mounted], lambda size: [tmp_path / str(size)])(7) == tmp_path / "7"
