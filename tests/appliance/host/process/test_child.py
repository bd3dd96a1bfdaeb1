"""Children are isolated, get only what is named, and never outlive the appliance."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from appliance.host.process.child import NETNS, NONE, Child, describe_exit, spawn
from signing.errors import ApplianceError

ROOT = Path(__file__).parents[4]
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
PROBE = """
import socket
for address in ("127.0.0.1", "192.0.2.1", "10.0.0.1"):
    try:
        socket.create_connection((address, 80), 1)
        print("connected", address)
    except OSError as error:
        print(error.errno)
with open("/proc/net/dev") as file:
    print([line.split(":")[0].strip() for line in file.readlines()[2:]])
with open("/proc/self/status") as file:
    print([line.split()[1] for line in file if line.startswith(("CapEff", "CapPrm", "CapInh", "NoNewPrivs"))])
"""
UNREACHABLE = "101\n101\n101\n['lo']\n['0000000000000000', '0000000000000000', '0000000000000000', '1']\n"


def python(code: str, **options: object) -> Child:
    given: dict = {"cwd": Path("/"), "env": {}, "stdout": subprocess.PIPE, **options}
    return spawn([sys.executable, "-I", "-B", "-c", code], **given)


def output(child: Child) -> str:
    assert child.stdout is not None
    with child.stdout as stream:
        text = stream.read().decode()
    child.wait(20)
    return text


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(pid: int, timeout_s: float = 10) -> bool:
    until = time.monotonic() + timeout_s
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not is_running(pid)


def test_an_isolated_child_reaches_no_network_and_holds_no_capability() -> None:
    child = python(PROBE)
    assert output(child) == UNREACHABLE
    assert child.isolation == NETNS


def test_a_child_that_is_not_isolated_reports_it_and_sees_the_hosts_network() -> None:
    child = python("import os; print(os.readlink('/proc/self/ns/net'))", isolated=False)
    assert output(child).strip() == os.readlink("/proc/self/ns/net")
    assert child.isolation == NONE


def test_a_child_of_an_ordinary_user_is_isolated_too() -> None:
    interpreter = readable_python()
    if os.geteuid() != 0 or interpreter is None:
        pytest.skip("needs root, to become another user, and a Python that this user can read")
    with tempfile.TemporaryDirectory() as folder:
        code = (
            f"import sys; sys.path.insert(0, {folder!r})\n"
            "import subprocess\nfrom pathlib import Path\nfrom appliance.host.process.child import spawn\n"
            f"child = spawn([sys.executable, '-I', '-c', {PROBE!r}], cwd=Path('/'), env={{}}, stdout=subprocess.PIPE)\n"
            "print(child.isolation)\nprint(child.stdout.read().decode(), end='')\nchild.wait()\n"
        )
        for package in ("appliance", "signing"):
            shutil.copytree(ROOT / package, Path(folder, package), ignore=shutil.ignore_patterns("__pycache__"))
        Path(folder).chmod(0o755)
        command = [*AS_NOBODY, interpreter, "-I", "-B", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert (done.stdout, done.stderr) == (f"{NETNS}\n{UNREACHABLE}", "")


def readable_python() -> str | None:
    """A Python ≥ 3.10 that another user can start; that of the tests may lie in a private home folder."""
    for path in (sys.executable, "/usr/bin/python3"):
        code = "import subprocess, sys; sys.exit(sys.version_info < (3, 10) or subprocess.call([sys.executable, '-V']))"
        done = subprocess.run([*AS_NOBODY, path, "-I", "-c", code], capture_output=True, cwd="/")
        if done.returncode == 0:
            return path
    return None


def test_a_child_gets_the_named_environment_and_descriptors_and_no_others() -> None:
    reading, writing = os.pipe()
    try:
        environment = spawn(["/usr/bin/env"], cwd=Path("/"), stdout=subprocess.PIPE, env={"ONLY": "this"})
        assert output(environment) == "ONLY=this\n"
        code = f"import os; os.write({writing}, b'passed'); print(*os.listdir('/proc/self/fd'))"
        assert set(output(python(code, pass_fds=(writing,))).split()) - {"0", "1", "2", str(writing)} <= {
            "3",
            "4",
        }  # listdir's own
        assert os.read(reading, 64) == b"passed"
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("isolated", [True, False])
def test_killing_the_appliance_ends_children_and_grandchildren(isolated: bool, tmp_path: Path) -> None:
    grandchildren = (
        "import subprocess, time; subprocess.Popen(['/bin/sleep', '60'], start_new_session=True)\n"
        "subprocess.Popen(['/bin/sleep', '60']); print(1, flush=True); time.sleep(60)"
    )
    code = (
        "import sys, time; from pathlib import Path; from appliance.host.process.child import spawn\n"
        f"command = [sys.executable, '-I', '-c', {grandchildren!r}]\n"
        f"child = spawn(command, cwd=Path('/'), env={{}}, stdout=1, isolated={isolated})\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"1\n"
        below = descendants(parent.pid)
        assert len(below) >= 4
        parent.send_signal(signal.SIGKILL)
    assert [pid for pid in below if not ends(pid)] == []


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for text in children for found in (int(text), *descendants(int(text)))]


def test_killing_the_launcher_ends_the_program() -> None:
    child = python("print(1, flush=True); import time; time.sleep(60)")
    assert child.stdout is not None
    child.stdout.readline()
    program = child.program_pid
    assert program is not None
    assert is_running(program)
    child.process.kill()
    assert ends(program)
    assert child.wait(10) == 128 + signal.SIGKILL
    child.stdout.close()


def test_stop_reaches_a_program_with_and_without_a_handler_of_its_own() -> None:
    polite = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print(1, flush=True); time.sleep(60)"
    for code, status in ((polite, 7), ("print(1, flush=True); import time; time.sleep(60)", 128 + signal.SIGTERM)):
        child = python(code)
        assert child.stdout is not None
        with child.stdout as stream:
            stream.readline()
        assert child.stop() == status
        assert child.stop() == status


def test_stop_kills_a_program_that_ignores_sigterm() -> None:
    child = python("import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)")
    assert child.stdout is not None
    with child.stdout as stream:
        stream.readline()
    assert child.stop(grace_s=0.2) == 128 + signal.SIGKILL


def test_exit_statuses_and_signals_come_through() -> None:
    assert spawn(["/bin/sh", "-c", "exit 3"], cwd=Path("/"), env={}).wait(10) == 3
    ill = spawn(["/bin/sh", "-c", "kill -ILL $$"], cwd=Path("/"), env={}).wait(10)
    assert describe_exit(ill) == "exit status 132 (SIGILL)"


@pytest.mark.parametrize("isolated", [True, False])
def test_a_program_that_leaves_a_process_behind_has_ended_all_the_same(isolated: bool) -> None:
    argv = ["/bin/sh", "-c", "sleep 60 & exit 4"]
    child = spawn(argv, cwd=Path("/"), env={"PATH": "/usr/bin:/bin"}, isolated=isolated)
    assert child.wait(10) == 4


def test_a_program_that_does_not_exist_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError) as caught:
        spawn([tmp_path / "nothing"], cwd=tmp_path, env={})
    assert (caught.value.code, caught.value.subject) == ("process.not-started", str(tmp_path / "nothing"))
    assert caught.value.found == "No such file or directory"


def test_the_terminals_ctrl_c_does_not_reach_children() -> None:
    child = python("import os; print(os.getsid(0) != int(os.environ['SESSION']))", env={"SESSION": str(os.getsid(0))})
    assert output(child) == "True\n"


def test_the_log_is_private_and_holds_the_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert spawn(["/bin/sh", "-c", "echo out; echo err >&2"], cwd=tmp_path, env={}, log=log).wait(10) == 0
    assert log.read_text() == "out\nerr\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_files_that_a_child_makes_are_private_and_it_leaves_no_core(tmp_path: Path) -> None:
    assert spawn(["/bin/sh", "-c", "ulimit -c > made"], cwd=tmp_path, env={}).wait(10) == 0
    assert (tmp_path / "made").read_text() == "0\n"
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600


def test_where_the_machine_refuses_namespaces_the_child_runs_and_reports_it(tmp_path: Path) -> None:
    # Inside a chain of user namespaces whose limit is reached, no process can create another.
    if subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine has no user namespaces, so the refusal cannot be staged")
    code = (
        "import subprocess\nfrom pathlib import Path\nfrom appliance.host.process.child import spawn\n"
        "child = spawn(['/bin/echo', 'ran'], cwd=Path('/'), env={}, stdout=subprocess.PIPE)\n"
        "print(child.isolation, child.stdout.read().decode().strip()); child.wait()\n"
    )
    limits = "for name in user net pid; do echo 0 > /proc/sys/user/max_${name}_namespaces; done"
    shell = f'{limits}; exec setpriv --bounding-set=-all --no-new-privs "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-Ur", "/bin/sh", "-c", shell, sys.executable, code], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("none ran\n", "")


def test_kill_ends_a_child_that_stopped_itself() -> None:
    child = python("import os; print(1, flush=True); os.kill(os.getpid(), 19)")
    assert child.stdout is not None
    with child.stdout as stream:
        stream.readline()
        assert not select.select([stream], [], [], 0.1)[0]
        child.kill()
    assert child.wait(10) == 128 + signal.SIGKILL
