"""Two installs at once: the second waits a moment, then leaves with exit code 75 (threat T36)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from signing.errors import BusyError


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    made = Prefix.at(tmp_path / "host")
    made.create()
    return made


def test_second_install_is_refused_and_the_error_names_the_first(prefix: Prefix) -> None:
    with hold(prefix), pytest.raises(BusyError) as caught, hold(prefix, wait_s=0.1):
        pass
    assert caught.value.exit_code == 75
    assert "process" in caught.value.found


def test_lock_is_free_again_afterwards_also_after_a_failure(prefix: Prefix) -> None:
    with pytest.raises(RuntimeError), hold(prefix):
        raise RuntimeError
    with hold(prefix, wait_s=0):
        pass


def test_next_install_waits_for_a_child_that_outlives_its_install(prefix: Prefix) -> None:
    with hold(prefix) as descriptor:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(descriptor,)
        )
    try:
        with pytest.raises(BusyError), hold(prefix, wait_s=0.1):
            pass
    finally:
        child.communicate()
    with hold(prefix, wait_s=0):
        pass


def test_lock_that_a_shell_has_taken_goes_on_in_the_program_that_it_becomes(tmp_path: Path) -> None:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    code = (
        "import sys; from pathlib import Path\n"
        "from appliance.host.layout import install_lock\n"
        "from appliance.host.layout.prefix import Prefix\n"
        "prefix = Prefix.at(Path(sys.argv[1]))\n"
        "if sys.argv[2] == 'give': install_lock.give_back_inherited(prefix)\n"
        "with install_lock.hold(prefix, wait_s=0.1): print('held')\n"
    )
    shell = 'exec 9>>"$1/var/lib/appliance/journal/lock"; flock -n 9; exec "$2" -c "$3" "$1" "$4"'
    for how, said in (("give", "held\n"), ("keep", "")):
        command = ["/bin/sh", "-c", shell, "sh", str(prefix.root), sys.executable, code, how]
        done = subprocess.run(command, cwd=Path(__file__).parents[4], check=False, capture_output=True, text=True)
        assert done.stdout == said, done.stderr
