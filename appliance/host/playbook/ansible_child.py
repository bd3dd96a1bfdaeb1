"""The child process that runs Ansible, in the environment of the release itself.

Command line: `python -I -m appliance.host.playbook.ansible_child RUN`.

Owns the call of ansible-runner. It reads `RUN/order.json`, and runs the playbook from the verified copy. It prints one
JSON object a line: `{"total": n}`, `{"task": name}`, and at the end `{"end": {…}}`. Nothing else is printed. `end` has
`changes`, one for each thing that was changed: `role`, `kind`, `name`, `is_new`, and in check mode a diff's texts.

An installer of another version may start it: `tests/released/test_protocols.py` holds the messages.

Rules:
- the run folder is fresh: files that ansible-runner left there would change the next run;
- success is exit code 0 *and* a recap that names the host: an interrupted or empty play is no success;
- the environment that ansible-runner writes to a file, and the variables, are deleted at the end.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IDENT = "run"
ORDER = "order.json"
PROGRAM = "ansible-playbook"
CHECK = "--check --diff"
MAX_DIFF = 16 << 10
"""Characters of a text that a diff shows."""
ANSIBLE = "appliance.host.playbook.ansible_program"


def main(arguments: list[str]) -> int:
    """Run one playbook.

    Args:
        arguments: the path of the run folder, which holds `order.json`.

    Returns:
        The exit code: 0 where every task succeeded, else 1.
    """
    return run_playbook(arguments, is_check=False)


def run_playbook(arguments: list[str], *, is_check: bool) -> int:
    """Run one playbook, or only let it name what it would change.

    Args:
        arguments: as of `main`.
        is_check: whether Ansible runs in check mode, with diffs.

    Returns:
        The exit code, as of `main`.
    """
    os.umask(0o077)  # only the owner may read the files of a run
    run = Path(arguments[0])
    order = json.loads((run / ORDER).read_text("utf-8"))
    playbooks = Path(order["playbooks"])
    try:
        _write_program(run)
        _print_json({"total": count_tasks(playbooks)})
        end = _play(run, playbooks, order["variables"], is_check=is_check)
    finally:
        _wipe(run)
    _print_json({"end": end})
    return 0 if end["ok"] else 1


def _play(run: Path, playbooks: Path, variables: dict[str, Any], *, is_check: bool) -> dict[str, Any]:
    gc.disable()  # as in `ansible_program`
    # Imported here, since the parent imports this module for its constants, and needs no Ansible.
    import ansible_runner

    gc.freeze()
    gc.enable()

    failures: list[dict[str, str]] = []
    changes: list[dict[str, Any]] = []

    def on_event(event: dict[str, Any]) -> bool:
        data = event.get("event_data") or {}
        if event.get("event") == "playbook_on_task_start":
            _print_json({"task": str(data.get("task", ""))})
        elif event.get("event") in ("runner_on_failed", "runner_on_unreachable") and not data.get("ignore_errors"):
            failures.append({"task": str(data.get("task", "")), "message": _message(data.get("res"))})
        elif event.get("event") == "runner_on_ok":
            changes.extend(_changes(data, with_texts=is_check))
        return True  # else ansible-runner drops the event, and with it the recap

    runner = ansible_runner.run(
        private_data_dir=str(run),
        playbook=str(playbooks / "site.yml"),
        inventory=str(playbooks / "inventory.yml"),
        extravars=variables,
        envvars=_environment(run, playbooks),
        # ansible-runner keeps this in the run's folder, where it would hold for the next run, too: each has its own.
        cmdline=CHECK if is_check else None,
        settings={"pexpect_timeout": 1},
        ident=IDENT,
        quiet=True,
        event_handler=on_event,
    )
    stats = runner.stats or {}
    counts = {name: sum((stats.get(name) or {}).values()) for name in ("ok", "changed", "failures", "dark")}
    return {
        "ok": runner.rc == 0 and runner.status == "successful" and counts["ok"] > 0,
        "status": f"{runner.status}, exit code {runner.rc}",
        "counts": counts,
        "failures": failures,
        # Absent where no module names changes: programs of version 0.1.0 know no such field.
        **({"changes": changes} if changes else {}),
        "said": "" if failures else _last_output_lines(run),  # the end of Ansible's output
    }


def _environment(run: Path, playbooks: Path) -> dict[str, str]:
    return {
        "PATH": f"{run}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(run),
        "TMPDIR": str(run / "tmp"),
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ANSIBLE_CONFIG": str(playbooks / "ansible.cfg"),
        "ANSIBLE_HOME": str(run / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(run / "tmp"),
        "ANSIBLE_REMOTE_TMP": str(run / "tmp"),
    }


def _write_program(run: Path) -> None:
    # A release's environment has no scripts; ansible-runner searches PATH for this name.
    for name in ("bin", "tmp"):
        (run / name).mkdir(mode=0o700)
    program = run / "bin" / PROGRAM
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -B -m {ANSIBLE} "$@"\n', "utf-8")
    program.chmod(0o700)


def count_tasks(playbooks: Path) -> int:
    """Count the tasks that the playbook will report; the check of a role's arguments is one of them.

    The files are read for this, since Ansible would have to be started a second time to list them.

    Args:
        playbooks: the verified folder with `site.yml` and `roles/`.

    Returns:
        The number of tasks.
    """
    import yaml  # as above: not for the parent

    total = 0
    for play in yaml.safe_load((playbooks / "site.yml").read_text("utf-8")):
        for role in play["roles"]:
            folder = playbooks / "roles" / role["role"]
            total += len(yaml.safe_load((folder / "tasks" / "main.yml").read_text("utf-8")))
            total += (folder / "meta" / "argument_specs.yml").exists()
    return total


def _changes(event: dict[str, Any], *, with_texts: bool) -> list[dict[str, Any]]:
    """What a task has changed, or would change, by the answer of the module `appliance_files`."""
    result = event.get("res")
    if not isinstance(result, Mapping) or not isinstance(result.get("changes"), list):
        return []
    changes = [{"role": str(event.get("role", "")), **change} for change in result["changes"]]
    for change, diff in zip(changes, result["diff"] if with_texts else (), strict=False):
        change.update({name: diff[name][:MAX_DIFF] for name in ("before", "after")})
    return changes


def _message(result: object) -> str:
    if not isinstance(result, Mapping):
        return str(result)
    items = [item for item in result.get("results") or [] if isinstance(item, Mapping) and item.get("failed")]
    parts = [str(part.get(name) or "").strip() for part in (items[:1] or [result]) for name in ("msg", "stderr")]
    # The last line of a traceback names the error.
    texts = [part.splitlines()[-1] if "Traceback (" in part else part for part in parts if part]
    return " / ".join(" ".join(text.split()) for text in texts)[:600]


def _last_output_lines(run: Path) -> str:
    try:
        text = (run / "artifacts" / IDENT / "stdout").read_text("utf-8", "replace")
    except OSError:
        return ""
    return " / ".join(line.strip() for line in text.splitlines()[-12:] if line.strip())[-800:]


def _wipe(run: Path) -> None:
    for name in ("env", "ansible", "tmp", "bin", f"artifacts/{IDENT}/fact_cache"):
        shutil.rmtree(run / name, ignore_errors=True)
    for path in (run / ORDER, run / "artifacts" / IDENT / "command"):
        path.unlink(missing_ok=True)


def _print_json(value: dict[str, Any]) -> None:
    os.write(1, (json.dumps(value) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
