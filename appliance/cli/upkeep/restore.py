"""`appliance restore`: what a backup has is put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from appliance import clock
from appliance.cli.console.agreement import ask_person
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.install_lock import give_back_inherited, hold
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.restore import restore
from appliance.host.maintenance.restore_stage import StagedRestore, put_away, stage, staged_again
from appliance.host.site.key_merge import MergedKeys
from appliance.host.trust.root_choice import none_pinned
from appliance.host.trust.root_pin import parse_fingerprint
from appliance.host.trust.trust_store import read_root
from signing.digest import Digest
from signing.errors import UsageError


@click.command("restore")
@click.argument("backup", metavar="BACKUP", required=False, type=click.Path(path_type=Path))
@prefix_option
@click.option(
    "--from-host",
    "from_host",
    metavar="SHA256",
    multiple=True,
    help="Accept a backup of the host with this key: `appliance trust show` printed it there. Never from the backup.",
)
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
@click.option("--resume", is_flag=True, help="Finish one that was cut off, without a question.")
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    backup: Path | None,
    prefix: Path | None,
    from_host: tuple[str, ...],
    yes: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Put back what BACKUP has; floors only rise.

    BACKUP is a folder that `appliance backup` wrote. It must be of this host, or of a host that is named by the
    fingerprint of its key. The root must be pinned here, and the host should have its release from the newest stick.

    Floors and the number of the last receipt are never lowered. A key that this host has stays as it is here: a revoked
    one stays revoked. Keys that only the backup has are added. The site's configuration is replaced, and takes effect
    with `appliance config apply`. It shows all this and asks once. After a power cut the next boot finishes it.

    \b
    Example:
      appliance restore /media/stick/backup-3f09aa17c2d4-20260102T030405Z
      appliance restore /media/stick/backup-3f09aa17c2d4-20260102T030405Z --from-host 3f…e1 --yes
    """
    host = Prefix.at(prefix or Path("/"))
    if read_root(host) is None:
        raise none_pinned(host)
    if resume:
        give_back_inherited(host)
        with hold(host):
            staged = staged_again(host, clock.utc_now())
            _report(terminal, staged, restore(staged, clock.utc_now), as_json=as_json)
        return
    if backup is None:
        raise click.UsageError("name the folder of the backup")
    known = [parse_fingerprint(text, "--from-host") for text in from_host]
    with _staged(host, backup, known) as staged:
        for line in _lines(staged):
            terminal.message(line)
        done = restore(staged, clock.utc_now) if yes else None
    if done is None:
        _ask(host)
        # While somebody thought, the lock was free: what is restored is compared with the host of this moment.
        with _staged(host, backup, known) as again:
            _check_shown(staged, again)
            done = restore(again, clock.utc_now)
    _report(terminal, staged, done, as_json=as_json)


@contextmanager
def _staged(host: Prefix, backup: Path, known: Sequence[Digest]) -> Iterator[StagedRestore]:
    with hold(host):
        try:
            yield stage(host, backup, known, clock.utc_now())
        finally:
            put_away(host)


def _check_shown(shown: StagedRestore, again: StagedRestore) -> None:
    if again != shown:
        raise UsageError(
            "restore.changed",
            str(shown.prefix.root),
            expected="the backup and the host as they were shown",
            found="another backup, or a host that was changed meanwhile",
            hint="run it again, and look at what it shows",
        )


def _ask(host: Prefix) -> None:
    ask_person(
        "restore.unasked", str(host.root), "somebody at a terminal who agrees to this, or --yes", "restore this?"
    )


def _lines(staged: StagedRestore) -> list[str]:
    manifest, floors = staged.manifest, staged.floors
    whose = "this host" if staged.is_own else f"the host with key {manifest.host.fingerprint}"
    lines = [f"backup     of {whose}, by its clock {manifest.time}"]
    lines.append(
        f"floors     then root {floors.root}, targets {floors.targets}, snapshot {floors.snapshot}, "
        f"timestamp {floors.timestamp}; proved at {floors.time}"
    )
    lines += [f"key        {name} is added" for name in staged.keys.added]
    lines += [f"key        {name} is revoked" for name in staged.keys.revoked]
    if staged.keys.added:
        lines.append(f"           a key that was revoked after {manifest.time} and is not known here is valid again")
    lines.append("site.yaml  " + ("is replaced by that of the backup" if staged.has_site else "stays as it is"))
    return lines


def _report(terminal: Terminal, staged: StagedRestore, done: MergedKeys, *, as_json: bool) -> None:
    if as_json:
        terminal.answer_json(_answer(staged, done))
        return
    terminal.answer(f"restored; {len(done.added)} keys added, {len(done.revoked)} revoked")
    if staged.has_site:
        terminal.message(f"next       appliance config apply{staged.prefix.option}")


def _answer(staged: StagedRestore, done: MergedKeys) -> dict[str, Any]:
    return {
        "host": staged.manifest.host.fingerprint,
        "own": staged.is_own,
        "time": staged.manifest.time,
        "floors": asdict(staged.floors),
        "keys": {"added": list(done.added), "revoked": list(done.revoked)},
        "site": staged.has_site,
    }
