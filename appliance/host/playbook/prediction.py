"""What the playbooks of a bundle would change on this host, by Ansible's check mode: for a plan.

Owns the verified copy of the playbooks and the run, both in a temporary folder that is removed at the end. Nothing else
is written. The environment of an installed release runs it; where no release is, `effects` has what the roles declare.

Rules:
- the copy is made by signed digests, and lies where only this user can write;
- check mode is started by a name of its own, which a release without check mode does not have.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.entry_points import ANSIBLE_CHECK
from appliance.host.layout.prefix import PRIVATE, Prefix
from appliance.host.playbook.ansible_run import describe_failure, run_child, variables
from appliance.host.process.programs import Programs
from appliance.host.site.config import SiteConfig
from bundles.bundle import Bundle
from bundles.chunks.copy import copy_files
from bundles.chunks.source import ChunkSource
from bundles.chunks.work_file import CopyJob
from bundles.contents.contents import Contents
from bundles.progress import ignore

_TOP = "playbooks/"


@dataclass(frozen=True, slots=True)
class PredictedChange:
    """One thing that a role would make or change.

    Args:
        role: its name.
        kind: `file`, `folder`, `group` or `user`.
        name: an absolute path, or the name of the user or group.
        is_new: whether nothing is there yet.
        before, after: the texts for a diff, or modes; each at most 16384 characters.
    """

    role: str
    kind: str
    name: str
    is_new: bool
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What Ansible would change.

    Args:
        changes: in the order in which they would be made; empty where nothing would change.
        problem: why Ansible could not predict, and `changes` is empty; else empty.
    """

    changes: tuple[PredictedChange, ...]
    problem: str = ""


def predict_changes(
    prefix: Prefix, release: Path, bundle: Bundle, site: SiteConfig, source: ChunkSource, python: Path
) -> Prediction:
    """Run the playbooks of a bundle in check mode.

    Args:
        prefix: the host.
        release: the folder that the bundle would be installed to; it need not exist.
        bundle: verified.
        site: the configuration of the site.
        source: the media, untrusted.
        python: of the environment of an installed release.

    Returns:
        The changes, or the problem, such as an installed release without check mode.

    Raises:
        DamagedError, NotTrustedError: a file of the playbooks is not what was signed.
    """
    with tempfile.TemporaryDirectory(prefix="appliance-plan-") as name:
        folder = Path(name)
        playbooks = copy_playbooks(bundle.contents, source, folder)
        return run_check(python, playbooks, variables(prefix, release, bundle, site), folder)


def copy_playbooks(contents: Contents, source: ChunkSource, folder: Path) -> Path:
    """Copy the playbooks of a bundle by their signed digests; returns the folder `playbooks` below the given one."""
    files = [file for file in contents.of_kind("playbook") if file.path.startswith(_TOP)]
    copy_files([CopyJob(file, folder / file.path) for file in files], source, {})
    return folder / _TOP.rstrip("/")


def run_check(python: Path, playbooks: Path, given: Mapping[str, Any], folder: Path) -> Prediction:
    """Run playbooks in check mode.

    Args:
        python: of the environment of an installed release.
        playbooks: the verified folder.
        given: the variables of the play.
        folder: private and temporary; the run lies there.
    """
    run, scratch = folder / "run", folder / "scratch"
    for one in (run, scratch):
        one.mkdir(PRIVATE)
    # A plan takes no lock: it changes nothing.
    lock = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        programs = Programs(scratch, lock)
        end, reason = run_child(ANSIBLE_CHECK, python, playbooks, given, run, programs, ignore, keep_capabilities=False)
    finally:
        os.close(lock)
    if end is None or not end["ok"] or reason:
        return Prediction((), describe_failure(end, reason))
    return Prediction(tuple(PredictedChange(**change) for change in end.get("changes", ())))
