"""What is wrong with this machine, its workspace, its sticks, its host and its clock, and the command that mends it.

Owns what `appliance doctor` finds. It works on any machine, whatever is there, and changes nothing.

Rules:
- no byte of a model or a program is compared: `appliance status` and `appliance verify` do that. So it takes a second;
- each finding that is wrong names one command;
- a part that cannot be looked at is a finding, never the end of the examination.
"""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.activation.service_check import read_services, service_problems
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Card
from appliance.host.maintenance.host_life import GOOD, describe_change_record, read_life
from appliance.host.maintenance.site_state import site_drift
from appliance.host.process.systemctl import UnitState
from appliance.host.release.release import Release, current_target, open_current
from appliance.host.release.rendered_configuration import read_configuration
from appliance.host.site.config import read_site
from appliance.host.tls.expiry import certificate_problems, read_served
from appliance.host.trust.metadata_store import judge
from appliance.host.trust.root_choice import choose_root
from appliance.host.trust.trust_store import read_floors, read_root
from appliance.keys.tuf_repository import published
from appliance.keys.workspace import Workspace, open_workspace
from bundles.oci.layout import INDEX_FILE
from bundles.report import shell_word
from bundles.stick.mounts import MEDIUM_TYPES, Mount
from signing.errors import ApplianceError

OK, NOTE, WRONG = "ok", "note", "wrong"
MIN_TEMPORARY_BYTES, MIN_STATE_BYTES = 64 << 20, 256 << 20
EngineProblems = Callable[[Release, tuple[UnitState, ...]], Sequence[ApplianceError]]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at.

    Args:
        area: `machine`, `clock`, `workspace`, `stick` or `host`.
        state: `ok`; `note`: worth knowing; `wrong`: something does not work, or soon will not.
        found: what is there, for people.
        command: what mends it, or the next step.
    """

    area: str
    state: str
    found: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined.

    Args:
        prefix: where a host may be installed.
        card: of the machine.
        now: its clock, in UTC.
        workspace: a publisher's workspace, or None.
        media: folders to examine as bundles or sticks, beside those that are mounted.
        mounts: what is mounted.
    """

    prefix: Prefix
    card: Card
    now: datetime
    workspace: Path | None
    media: tuple[Path, ...]
    mounts: tuple[Mount, ...]


def examine(patient: Patient, engines: EngineProblems) -> tuple[Diagnosis, ...]:
    """Look at everything.

    Args:
        patient: what is examined.
        engines: finds the engines of a release that nothing starts again.
    """
    found = [*_machine(patient), *_clock(patient)]
    for area, look in (("workspace", _workspace), ("stick", _sticks)):
        found += _guarded(area, look(patient))
    found += _guarded("host", _host(patient, engines))
    return tuple(found)


def next_step(patient: Patient, found: Iterable[Diagnosis]) -> str:
    """The one command to type now: what mends the first thing that is wrong, else how to go on."""
    found = tuple(found)
    for one in found:
        if one.state == WRONG and one.command:
            return one.command.partition("; ")[0]
    option = patient.prefix.option
    if _is_installed(patient.prefix):
        return f"appliance status{option}"
    if staged := read_life(patient.prefix).staged:
        return f"appliance switch {staged[0]}{option}"
    for one in found:
        if one.area in ("stick", "workspace") and one.state == OK and one.command:
            return one.command
    return f"appliance install STICK{option}" if _is_pinned(patient.prefix) else "appliance demo"


def _guarded(area: str, found: Iterator[Diagnosis]) -> Iterator[Diagnosis]:
    try:
        yield from found
    except ApplianceError as error:
        yield from (_wrong(area, one) for one in (error, *error.others))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        yield Diagnosis(area, NOTE, f"this user cannot look at it: {error.strerror}{where}", "run it again with sudo")


def _wrong(area: str, error: ApplianceError) -> Diagnosis:
    parts = [error.subject, f"found {error.found}" if error.found else "", f"({error.code})"]
    return Diagnosis(area, WRONG, " ".join(part for part in parts if part), error.hint)


def _machine(patient: Patient) -> Iterator[Diagnosis]:
    card = patient.card
    memory = card.memory.available_bytes / 1e9
    yield Diagnosis(
        "machine",
        OK if card.system.arch == "x86_64" else NOTE,
        f"{card.system.os} {card.system.arch}, {card.cpu.allowed_cores} cores, {memory:.1f} GB of memory available"
        + ("" if card.system.arch == "x86_64" else "; bundles are built and served on x86_64 alone"),
    )
    rooms = [(Path(tempfile.gettempdir()), MIN_TEMPORARY_BYTES, "df -h")]
    if patient.prefix.state.is_dir():
        rooms.append((patient.prefix.state, MIN_STATE_BYTES, f"appliance gc{patient.prefix.option}"))
    for folder, needed, command in rooms:
        room = os.statvfs(folder)
        free = room.f_bavail * room.f_frsize
        if free < needed:
            found = f"{free >> 20} MiB free at {folder}, and {needed >> 20} MiB are needed"
            yield Diagnosis("machine", WRONG, found, f"{command} {folder}" if command == "df -h" else command)
        if room.f_flag & os.ST_RDONLY:
            yield Diagnosis("machine", WRONG, f"{folder} is mounted read-only", f"findmnt --target {folder}")


def _clock(patient: Patient) -> Iterator[Diagnosis]:
    shown = patient.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        proved = read_floors(patient.prefix).time
    except (ApplianceError, OSError):
        proved = ""  # the host's own findings name the file
    if shown < proved:
        found = f"the clock shows {shown}, but signed files prove that it is at least {proved}"
        yield Diagnosis("clock", WRONG, found, "sudo date --utc --set 'YYYY-MM-DD hh:mm'")
    else:
        yield Diagnosis("clock", OK, f"{shown}; no signed file here is newer")


def _workspace(patient: Patient) -> Iterator[Diagnosis]:
    if patient.workspace is None:
        return
    path = patient.workspace
    workspace = open_workspace(path)
    published(workspace)
    yield from _keys(workspace)
    waiting = sorted(one.name for one in workspace.requests.glob("*.json")) if workspace.requests.is_dir() else []
    if waiting:
        request = shlex.quote(str(workspace.requests / waiting[0]))
        found = f"{len(waiting)} requests wait for signatures: {', '.join(waiting)}"
        yield Diagnosis("workspace", NOTE, found, f"appliance sign {request}")
    yield Diagnosis("workspace", OK, f"{path.absolute()}", "appliance build RECIPE")


def _keys(workspace: Workspace) -> Iterator[Diagnosis]:
    for path in sorted((workspace.path / "keys").glob("*.pem")):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            found = f"other users can read or replace the key {path.name} (mode {mode:o})"
            yield Diagnosis("workspace", WRONG, found, f"chmod 600 {shlex.quote(str(path))}")


def _sticks(patient: Patient) -> Iterator[Diagnosis]:
    for mount in patient.mounts:
        if mount.type in MEDIUM_TYPES and mount.is_gone:
            found = f"{mount.point} was pulled out while it was mounted"
            yield Diagnosis("stick", WRONG, found, f"sudo umount {shell_word(str(mount.point), 'FOLDER')}")
    places = [mount.point for mount in patient.mounts if mount.type in MEDIUM_TYPES and not mount.is_gone]
    for path in dict.fromkeys((*patient.media, *places)):
        # A mounted file system is a stick where it has the index and the metadata of a bundle.
        if path in patient.media or ((path / INDEX_FILE).is_file() and (path / "metadata").is_dir()):
            yield from _guarded("stick", _stick(patient, path))


def _stick(patient: Patient, path: Path) -> Iterator[Diagnosis]:
    judgement = judge(path, choose_root(None, patient.prefix, patient.workspace), patient.now, patient.prefix)
    bundle, evidence = judgement.bundle.value, judgement.bundle.evidence
    name, word = bundle.label, shell_word(str(path), "STICK")
    if evidence.is_expired:
        found = f"{path}: {name} has expired ({evidence.expires[1]}, {evidence.expires[0]})"
        yield Diagnosis("stick", NOTE, f"{found}: a new install needs a newer stick", f"appliance verify {word}")
        return
    yield Diagnosis(
        "stick",
        OK,
        f"{path}: {name}, {evidence.status}, signed; its bytes were not compared",
        f"appliance install {word}{patient.prefix.option}",
    )


def _is_installed(prefix: Prefix) -> bool:
    try:
        return current_target(prefix) is not None
    except ApplianceError:
        return True


def _is_pinned(prefix: Prefix) -> bool:
    try:
        return read_root(prefix) is not None
    except (ApplianceError, OSError):
        return False


def _host(patient: Patient, engines: EngineProblems) -> Iterator[Diagnosis]:
    prefix = patient.prefix
    life = read_life(prefix)
    for error in life.problems:
        yield _wrong("host", error)
    if life.problems and not _is_installed(prefix):
        return
    if not _is_installed(prefix):
        pinned = "a trust root is pinned" if read_root(prefix) is not None else "no trust root is pinned"
        yield Diagnosis("host", NOTE, f"nothing is installed at {prefix.root}; {pinned}", "appliance install STICK")
        return
    if life.state != GOOD and life.change is not None and not life.problems:
        yield Diagnosis("host", NOTE, f"{life.state}: {describe_change_record(life.change)}")
    if life.cut_off is not None:
        found = f"an install was cut off in step {life.cut_off.step}; what served goes on serving"
        yield Diagnosis("host", NOTE, found, life.next_command)
    release = open_current(prefix, patient.now)
    services = read_services(release)
    problems = [*service_problems(release, services), *engines(release, services)]
    try:
        problems += site_drift(release, read_site(prefix.site_file))
    except ApplianceError as refused:
        problems += [refused, *refused.others]
    tls = read_configuration(release).gateway.tls
    if tls is not None:
        problems += certificate_problems(tls, patient.now, prefix.option)
    for problem in problems:
        yield _wrong("host", problem)
    if tls is not None and (served := read_served(tls, patient.now)).is_near_end and served.days_left >= 0:
        found = f"the certificate of the gateway ends in {served.days_left} days"
        yield Diagnosis("host", NOTE, found, f"appliance tls renew{prefix.option}")
    if not problems:
        found = f"{release.bundle.value.label}, {release.bundle.evidence.status}; its bytes were not compared"
        yield Diagnosis("host", OK, found, f"appliance status{prefix.option}")
