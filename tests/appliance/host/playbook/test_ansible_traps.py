"""What ansible-runner and Ansible do unasked, and what holds against it here: each case was found by trying.

- options of a run stay in its folder, so that the run after a check run changes nothing and reports success;
- a play that matches no host reports success;
- a run that is ended leaves its play running;
- the whole environment and all variables stay on the disk;
- tasks with `no_log` lack `changed`; the defaults of `argument_specs` define no variables, and unknown ones pass.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.entry_points import ANSIBLE_CHECK, ANSIBLE_CHILD
from appliance.host.layout.prefix import Prefix
from appliance.host.playbook import ansible_run
from appliance.host.playbook.ansible_run import run_child
from appliance.host.process.programs import Programs
from appliance.resources import playbooks_path
from bundles.progress import OnProgress, Progress, ignore
from tests.toy import NOW

PYTHON = Path(sys.executable)
ROLES = sorted(path.name for path in (playbooks_path() / "roles").iterdir())
WRITE = "- {name: Write, appliance_files: {files: [{path: '{{ appliance_path }}', mode: '0644', content: text}]}}\n"
SECRET = "- {name: Count, ansible.builtin.command: {cmd: 'true'}, no_log: true, changed_when: true}\n"


def write_playbooks(folder: Path, tasks: str, hosts: str = "appliance") -> Path:
    """Playbooks with one role, and the module and the configuration of ours."""
    made, role = folder / "playbooks", folder / "playbooks" / "roles" / "one" / "tasks"
    role.mkdir(parents=True)
    (made / "site.yml").write_text(
        f"- {{hosts: {hosts}, connection: local, gather_facts: false, roles: [{{role: one}}]}}\n"
    )
    (role / "main.yml").write_text(tasks)
    for name in ("inventory.yml", "ansible.cfg", "library", "action_plugins"):
        (made / name).symlink_to(playbooks_path() / name)
    return made


def run(
    name: str, folder: Path, playbooks: Path, given: Mapping[str, Any], on_progress: OnProgress = ignore
) -> dict[str, Any] | None:
    for one in ("run", "scratch"):
        (folder / one).mkdir(mode=0o700, exist_ok=True)
    lock = os.open(os.devnull, os.O_RDONLY)
    try:
        programs = Programs(folder / "scratch", lock)
        return run_child(
            name, PYTHON, playbooks, given, folder / "run", programs, on_progress, keep_capabilities=False
        )[0]
    finally:
        os.close(lock)


@pytest.mark.ci
def test_run_after_a_check_run_changes_what_was_predicted(tmp_path: Path) -> None:
    path = tmp_path / "written"
    playbooks = write_playbooks(tmp_path, WRITE + SECRET)
    checked = run(ANSIBLE_CHECK, tmp_path, playbooks, {"appliance_path": str(path)})
    assert checked is not None
    assert not path.exists()
    # Even in the same folder, where ansible-runner keeps the options of a run.
    done = run(ANSIBLE_CHILD, tmp_path, playbooks, {"appliance_path": str(path)})
    assert done is not None
    assert path.read_text() == "text"
    assert [change["name"] for change in checked["changes"]] == [change["name"] for change in done["changes"]]
    # The task with `no_log` counts, though its event does not say that it changed anything.
    assert (done["ok"], done["counts"]["changed"]) == (True, 2)
    left = {str(one.relative_to(tmp_path / "run")) for one in (tmp_path / "run").rglob("*") if one.is_file()}
    assert not [name for name in left if name.startswith(("env/", "tmp/")) or name.endswith(("command", "order.json"))]


@pytest.mark.ci
def test_play_without_a_host_is_no_success(tmp_path: Path) -> None:
    done = run(ANSIBLE_CHILD, tmp_path, write_playbooks(tmp_path, WRITE, hosts="nobody"), {})
    assert done is not None
    assert (done["ok"], done["counts"]["ok"]) == (False, 0)
    assert "exit code 0" in done["status"]


@pytest.mark.ci
def test_play_ends_with_the_run_that_started_it(tmp_path: Path) -> None:
    mark = f"{900000 + os.getpid()}"
    playbooks = write_playbooks(tmp_path, f"- {{name: Sleep, ansible.builtin.command: {{cmd: sleep {mark}}}}}\n")

    def end(progress: Progress) -> None:
        until = time.monotonic() + 60
        while not processes(mark) and time.monotonic() < until:
            time.sleep(0.05)
        assert processes(mark)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(ANSIBLE_CHILD, tmp_path, playbooks, {}, end)
    assert processes(mark) == []


def processes(mark: str) -> list[str]:
    """The processes that have the mark among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in arguments:
            found.append(path.parent.name)
    return found


def test_each_run_has_a_fresh_private_folder(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path)
    prefix.create()
    made = [ansible_run._new_run(prefix, NOW) for _ in range(3)]
    assert len(set(made)) == 3
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}
    assert not any(list(path.iterdir()) for path in made)


def test_killed_run_is_named_an_interruption(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"total": 3}\'\necho \'{"task": "one"}\'\nkill -9 $$\n')
    python.chmod(0o755)
    (tmp_path / "run").mkdir()
    (tmp_path / "scratch").mkdir()
    lock = os.open(os.devnull, os.O_RDONLY)
    programs = Programs(tmp_path / "scratch", lock)
    end, reason = run_child(
        ANSIBLE_CHILD, python, tmp_path, {}, tmp_path / "run", programs, ignore, keep_capabilities=False
    )
    os.close(lock)
    assert end is None
    assert "interrupted" in ansible_run.describe_failure(end, reason)


def test_full_disk_is_named_as_such(tmp_path: Path) -> None:
    message = "[Errno 28] No space left on device: '/opt/appliance/x'"
    end = {"ok": False, "status": "failed", "said": "", "failures": [{"task": "Write", "message": message}]}
    error = ansible_run._failed(end, "", tmp_path)
    assert (error.code, error.exit_code) == ("disk.full", 7)


@pytest.mark.parametrize("role", ROLES)
def test_defaults_define_what_the_argument_specs_only_describe(role: str) -> None:
    folder = playbooks_path() / "roles" / role
    options = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    described = {name: option["default"] for name, option in options.items() if "default" in option}
    assert yaml.safe_load((folder / "defaults" / "main.yml").read_text()) == described
    assert all(option.get("required") or "default" in option for option in options.values())


def test_play_passes_each_required_variable_and_no_unknown_one() -> None:
    (play,) = yaml.safe_load((playbooks_path() / "site.yml").read_text())
    assert [role["role"] for role in play["roles"]] == ["base_os", "engine", "gateway", "egress"]
    for role in play["roles"]:
        spec = yaml.safe_load((playbooks_path() / "roles" / role["role"] / "meta" / "argument_specs.yml").read_text())
        options = spec["argument_specs"]["main"]["options"]
        required = {name for name, option in options.items() if option.get("required")}
        assert required <= set(role["vars"]) <= set(options)


@pytest.mark.parametrize("role", ROLES)
def test_role_has_its_pages_its_tags_and_one_call(role: str) -> None:
    folder = playbooks_path() / "roles" / role
    names = {"meta/main.yml", "meta/argument_specs.yml", "meta/effects.yml", "defaults/main.yml", "tasks/main.yml"}
    assert names <= {str(path.relative_to(folder)) for path in folder.rglob("*.yml")}
    (task,) = yaml.safe_load((folder / "tasks" / "main.yml").read_text())
    assert role in task["tags"]
    assert "appliance_files" in task
    # A text without its reader's check could be one that the reader passes over.
    text = (folder / "tasks" / "main.yml").read_text() + "".join(
        path.read_text() for path in folder.glob("templates/files.json.j2")
    )
    assert len(re.findall(r"\bcontent\b", text)) == len(re.findall(r"\bvalidate\b", text))


def test_module_documents_the_options_that_it_takes() -> None:
    from appliance.host.playbook.files_module import OPTIONS

    source = (playbooks_path() / "library" / "appliance_files.py").read_text()
    page = yaml.safe_load(source.split('DOCUMENTATION = r"""')[1].split('"""')[0])
    assert _plain(page["options"], "suboptions") == _plain(OPTIONS, "options")


def _plain(options: Mapping[str, Any], inner: str) -> dict[str, Any]:
    return {
        name: {
            **{key: value for key, value in option.items() if key not in ("description", inner)},
            **({"inner": _plain(option[inner], inner)} if inner in option else {}),
        }
        for name, option in options.items()
    }


@pytest.mark.ci
def test_module_works_without_the_action_too(tmp_path: Path) -> None:
    path = tmp_path / "written"
    options = json.dumps({"files": [{"path": str(path), "mode": "0640", "content": "{}", "validate": "json"}]})
    program = "import sys; from ansible.cli.adhoc import main; main(sys.argv)"
    command = [
        sys.executable,
        "-I",
        "-B",
        "-c",
        program,
        "localhost",
        "-c",
        "local",
        "-m",
        "appliance_files",
        "-a",
        options,
    ]
    command += ["-e", f"ansible_python_interpreter={PYTHON}"]
    environment = {
        "ANSIBLE_LIBRARY": str(playbooks_path() / "library"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CHANGED" in done.stdout
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("{}", 0o640)
