"""The step in which Ansible sets up the host: the order to its child process, the progress, and failures as errors.

Owns the order that `appliance.host.playbook.ansible_child` gets, the run folders, and the parsing of what it prints.

Rules (threats T32, T33, T34):
- the playbooks run from the release's verified copy, in the release's own environment, without any network;
- each run has a fresh private folder; the newest `KEPT_RUNS` are kept;
- the error names the failed task, with its message.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from appliance.entry_points import ANSIBLE_CHILD
from appliance.host.layout.places import place
from appliance.host.layout.prefix import PRIVATE, Prefix, make_folder
from appliance.host.layout.unit_files import GROUP, RENDERED, USERS, release_id
from appliance.host.playbook.ansible_child import ORDER
from appliance.host.process.programs import Programs, no_space, reports_full_disk
from appliance.host.site.config import ModelChoice, SiteConfig
from bundles.bundle import Bundle
from bundles.contents.contents import Contents, Model
from bundles.progress import OnProgress, Progress
from signing.errors import ApplyRestoredError

KEPT_RUNS = 5
TIMEOUT_S = 600.0
_TASK = "setting the host up with Ansible"


@dataclass(frozen=True, slots=True)
class PlaybookCounts:
    """The tasks that Ansible counted: those that succeeded, and how many of these changed something."""

    ok: int
    changed: int


def render(
    prefix: Prefix,
    release: Path,
    bundle: Bundle,
    site: SiteConfig,
    programs: Programs,
    now: datetime,
    on_progress: OnProgress,
) -> PlaybookCounts:
    """Run the release's playbook.

    Args:
        prefix, release: the host, and the release's folder, whose environment and files are verified.
        bundle: verified.
        site: the site's configuration.
        programs: starts the child.
        now: the clock, in UTC; names the run's folder.
        on_progress: called with the tasks done.

    Returns:
        The tasks that Ansible counted.

    Raises:
        ApplyRestoredError: a task failed, named with its message; or the run did not end in time.
    """
    run = _new_run(prefix, now)
    if prefix.is_system:
        make_folder(release / RENDERED)
    python, playbooks = release / "venv" / "bin" / "python", release / "playbooks"
    given = variables(prefix, release, bundle, site)
    # On a whole machine the playbook makes users, which takes capabilities; below a prefix it needs none.
    end, reason = run_child(
        ANSIBLE_CHILD, python, playbooks, given, run, programs, on_progress, keep_capabilities=prefix.is_system
    )
    if end is None or not end["ok"] or reason:
        raise _failed(end, reason, run)
    return PlaybookCounts(end["counts"]["ok"], end["counts"]["changed"])


def run_child(
    name: str,
    python: Path,
    playbooks: Path,
    given: Mapping[str, Any],
    run: Path,
    programs: Programs,
    on_progress: OnProgress,
    *,
    keep_capabilities: bool,
) -> tuple[dict[str, Any] | None, str]:
    """Run the child process that runs Ansible, to its end.

    Args:
        name: of the module that is started, from `appliance.entry_points`.
        python: of a release's environment.
        playbooks: the verified folder.
        given: the variables of the play.
        run: a fresh private folder.
        programs: starts the child.
        on_progress: called with the tasks done.
        keep_capabilities: whether it keeps root's capabilities.

    Returns:
        The child's last message, or None where there was none; and how it ended, empty for exit code 0.
    """
    (run / ORDER).write_text(json.dumps({"playbooks": str(playbooks), "variables": given}), "utf-8")
    command: list[str | Path] = [python, "-I", "-B", "-m", name, run]
    child = programs.start(
        command, "ansible", cwd=run, stdout=subprocess.PIPE, umask=0o077, keep_capabilities=keep_capabilities
    )
    # Reading the child's lines has no timeout: a playbook that hangs is killed from here.
    watch = threading.Timer(TIMEOUT_S, child.process.kill)
    watch.daemon = True
    watch.start()
    try:
        with child.stdout or nullcontext(()) as lines:
            end = _follow(lines, on_progress)
        done = programs.finish(child, "ansible", TIMEOUT_S)
    finally:
        watch.cancel()
        child.kill()
    return end, done.reason() if done.code != 0 else ""


def variables(prefix: Prefix, release: Path, bundle: Bundle, site: SiteConfig) -> dict[str, Any]:
    """The variables that the playbook gets; every name starts with `appliance_`.

    Args:
        prefix, release: the host, and the release's folder.
        bundle: verified.
        site: the site's configuration.

    Returns:
        JSON values by name. Playbooks of other versions get the same names: none may go.
    """
    contents = bundle.contents
    return {
        # Without its last slash, so that it is empty on a whole machine.
        "appliance_root": "" if prefix.is_system else str(prefix.root),
        "appliance_is_system": prefix.is_system,
        "appliance_users": list(USERS) if prefix.is_system else [],
        "appliance_group": GROUP,
        "appliance_release_id": release_id(bundle.manifest),
        "appliance_release": str(release),
        "appliance_bind": site.bind,
        "appliance_port": site.port,
        "appliance_egress": site.egress,
        "appliance_choices": {model.name: _choice(site, model.name) for model in contents.models},
        "appliance_limits": site.limits.to_json(),
        "appliance_tls": site.tls.to_json() if site.tls else {},
        "appliance_cors": list(site.cors),
        "appliance_reach": "host" if site.is_local else "network",
        "appliance_models": [_model(prefix, release, contents, model, site) for model in contents.models],
        "appliance_identity": {"name": contents.name, "version": contents.version, "manifest": bundle.manifest},
    }


def _model(prefix: Prefix, release: Path, contents: Contents, model: Model, site: SiteConfig) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.path,
        "store": str(place(prefix, release, contents.by_path[model.path])),
        # The bundle's context is at most what the model was trained for; a site may only lower it.
        "context": min(site.context or model.context, model.context),
        "slots": site.slots or contents.serve.slots,
    }


def _choice(site: SiteConfig, name: str) -> dict[str, Any]:
    """What the site has decided about a model; roles of older releases refuse other names in `appliance_models`."""
    return {"threads": site.threads or 0, **asdict(site.models.get(name, ModelChoice()))}


def _new_run(prefix: Prefix, now: datetime) -> Path:
    stamp = now.strftime("%Y%m%dT%H%M%S.%fZ")
    run, number = prefix.runs / stamp, 1
    while run.exists():
        run, number = prefix.runs / f"{stamp}-{number}", number + 1
    make_folder(run, PRIVATE)
    for old in sorted(prefix.runs.iterdir())[:-KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)
    return run


def _follow(lines: Iterable[bytes], on_progress: OnProgress) -> dict[str, Any] | None:
    total = done = 0
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if "end" in event:
            on_progress(Progress(_TASK, max(total, 1), max(total, 1), "steps"))
            return dict(event["end"])
        total = event.get("total", total)
        if "task" in event:
            on_progress(Progress(_TASK, done, total, "steps"))
            done += 1
    return None


def describe_failure(end: Mapping[str, Any] | None, reason: str) -> str:
    """Say why a run failed, by the child's last message and how it ended."""
    if end is None:
        return f"the run was interrupted: {reason}"
    if end["failures"]:
        return "; ".join(f"{failure['task']}: {failure['message']}" for failure in end["failures"])
    return f"{end['status']}: {end['said']}"


def _failed(end: dict[str, Any] | None, reason: str, run: Path) -> ApplyRestoredError:
    found = describe_failure(end, reason)
    if reports_full_disk(found):
        return no_space(run, "the playbook")
    subject = end["failures"][0]["task"] if end and end["failures"] else "the playbook"
    return ApplyRestoredError(
        "render.task-failed",
        subject,
        expected="every task of the playbook to succeed",
        found=found,
        hint=f"the release that served before still serves; the whole run is in {run}/artifacts",
    )
