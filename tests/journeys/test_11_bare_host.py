"""A machine that has nothing gets everything from the stick: the sheet, one command, a yes, and the first answer."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path

import pytest

from tests.bed.bare_host import QUESTION, Operator, printed_command, remove_python
from tests.bed.fixtures import quiet_nspawn_host
from tests.bed.host import FolderStick, Host
from tests.bed.trees import DEBIAN_12, DEBIAN_13, Tree
from tests.journeys.conftest import TwoSystems
from tests.journeys.test_05_services import ASK

pytestmark = [pytest.mark.bed, pytest.mark.ci, pytest.mark.network, pytest.mark.timeout(600)]

USER = 1000
FOLDER = "/srv/operator"
SERVE = """
import json, subprocess, sys, urllib.request
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
try:
    ready = json.loads(child.stdout.readline())
    key = open(ready["key_file"]).read().strip()
    body = {"model": "smollm2-135m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(ready["url"] + "/v1/chat/completions", json.dumps(body).encode())
    request.add_header("Authorization", "Bearer " + key)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=100) as reply:
        print(json.dumps({"status": reply.status, "headers": dict(reply.headers), "body": json.load(reply)}))
finally:
    child.terminate()
    child.wait()
"""

CASES = [
    pytest.param(DEBIAN_12, "3.11", True, id="debian-12"),
    pytest.param(DEBIAN_13, "3.13", False, id="debian-13-without-python"),
]
IS_LONG = os.environ.get("BARE_HOSTS") == "all"
"""Of `make soak`."""
if IS_LONG:
    CASES += [
        pytest.param(DEBIAN_12, "3.11", False, id="debian-12-without-python"),
        pytest.param(DEBIAN_13, "3.13", True, id="debian-13"),
    ]


def plug(host: Host, made: TwoSystems) -> str:
    return host.plug(FolderStick("stick", made.bundle, is_read_only=True))


def check_answer(reply: dict[str, object], made: TwoSystems) -> None:
    """The first answer names the bundle that was built."""
    assert reply["status"] == 200
    headers = reply["headers"]
    assert isinstance(headers, dict)
    assert headers["appliance-release"] == made.manifest


def show_times(operator: Operator, since: float) -> None:
    """Print what was typed, with its times: from the stick to the first answer."""
    for typed in operator.typed:
        print(typed)
    print(f"from the stick to the first answer: {time.monotonic() - since:.1f} s")


def check_hand_over(host: Host, stick: str) -> None:
    """An installed program that is not the bundle's own verifies the stick, and the bundle's own one installs."""
    changed = "/opt/appliance/current/venv/lib/python3*/site-packages/appliance/cli/bug_report.py"
    host.run(["sh", "-c", f"for f in {changed}; do echo '# another program' >>\"$f\"; done"])
    done = host.run(["appliance", "install", stick], check=False, timeout_s=280)
    assert done.code == 0, done.err
    assert "was verified and brings another program: that one installs it" in done.err
    assert "not as it was installed, made right now" in done.err
    assert host.run(["appliance", "status"], check=False).code == 0


@pytest.mark.parametrize(("tree", "python", "has_python"), CASES)
def test_root_types_the_sheet_one_command_and_a_yes(
    two_systems: TwoSystems, tree: Tree, python: str, *, has_python: bool
) -> None:
    with quiet_nspawn_host(tree) as host:
        if not has_python:
            remove_python(host)
        operator = Operator(host)
        operator.write_sheet(two_systems.sheet)
        stick, since = plug(host, two_systems), time.monotonic()
        checked = operator.check(stick)
        assert checked.finished.code == 0, checked.finished.err
        installed = operator.agree(printed_command(checked))
        assert installed.finished.code == 0, installed.finished.out
        assert QUESTION in installed.finished.out
        check_answer(json.loads(host.run(["python3", "-c", ASK, "8443"]).out), two_systems)
        show_times(operator, since)
        status = json.loads(host.run(["appliance", "status", "--json"]).out)
        assert (status["name"], status["manifest"]) == ("two-pythons", two_systems.manifest)
        folders = host.run(["sh", "-c", "ls -d /opt/appliance/current/venv/lib/python3*"]).out.split()
        assert [Path(path).name for path in folders] == [f"python{python}"]
        kept = host.run(["ls", "/opt/appliance/bootstrap"]).out.split()
        assert kept == [two_systems.manifest[:12]]
        if IS_LONG:
            check_hand_over(host, stick)


def test_ordinary_user_types_the_same_with_a_prefix(two_systems: TwoSystems) -> None:
    with quiet_nspawn_host(DEBIAN_12) as host:
        host.run(["install", "-d", "-o", str(USER), "-g", str(USER), FOLDER])
        operator = Operator(host, USER)
        operator.write_sheet(two_systems.sheet)
        stick, since = plug(host, two_systems), time.monotonic()
        refused = operator.check(stick)
        assert (refused.finished.code, "add --prefix DIR" in refused.finished.err) == (2, True)
        checked = operator.check(stick, "--prefix", f"{FOLDER}/host")
        assert checked.finished.code == 0, checked.finished.err
        installed = operator.agree(printed_command(checked))
        assert installed.finished.code == 0, installed.finished.out
        lines = installed.finished.out.replace("\r", "").splitlines()
        [serve] = [line.removeprefix("to serve   ") for line in lines if line.startswith("to serve   ")]
        reply = operator.type(["python3", "-I", "-c", SERVE, *shlex.split(serve), "--port", "0"], shown=serve)
        assert reply.finished.code == 0, reply.finished.err
        check_answer(json.loads(reply.finished.out), two_systems)
        show_times(operator, since)
        assert not host.run(
            ["sh", "-c", f"find / -xdev -uid {USER} -not -path '{FOLDER}*' 2>/dev/null"], check=False
        ).out


def test_ordinary_user_cannot_install_python(two_systems: TwoSystems) -> None:
    with quiet_nspawn_host(DEBIAN_12) as host:
        remove_python(host)
        operator = Operator(host, USER)
        operator.write_sheet(two_systems.sheet)
        checked = operator.check(plug(host, two_systems), "--prefix", "/tmp/host")
        assert checked.finished.code == 6
        assert "REFUSED: no python3; root has to run this" in checked.finished.err
