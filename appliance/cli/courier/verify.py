"""`appliance verify`: verify signatures and every byte of a bundle, a stick, a release, or one model's file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from appliance.cli.console.waiting import wait_option, waiting_of
from appliance.host.layout.prefix import Prefix
from appliance.host.verification.subject import Subject, Trust, open_subject
from bundles.report import clock_warning, describe, escape, fault_fields, lines
from bundles.stick.media_set import Waiting
from signing.errors import ApplianceError, UsageError

Report = dict[str, object]


@click.command("verify")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@trust_option
@prefix_option
@named_workspace_option
@click.option(
    "--bundle",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="For a model's file: the bundle or stick that it should be from, instead of the installed release.",
)
@click.option(
    "--evidence",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a record of what was found, signed by this host's key, whatever the outcome.",
)
@wait_option
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    paths: tuple[Path, ...],
    trust: Path | None,
    prefix: Path | None,
    workspace: Path | None,
    bundle: Path | None,
    evidence: Path | None,
    wait: bool | None,
    as_json: bool,
) -> None:
    """Verify the signatures and every byte of PATH.

    PATH is a bundle, a stick, an installed release, or one model's file; without PATH it is the installed release.
    Several paths are sticks that together hold one or several bundles, in any order. The answer shows who signed, how
    many had to, how fresh that is, and how much was compared. All differences are listed at once.

    Exit 0: everything is what was signed. 3: damaged, copy it again. 4: not trusted, stop and ask a key holder. 5: what
    is here is right, and blobs are on a stick that is not; the answer names them by numbers for the telephone.

    \b
    Example:
      appliance verify /media/stick --workspace ~/appliance-workspace
      appliance verify /media/stick --prefix /srv/appliance
      appliance verify /media/stick-1 /media/stick-2
      appliance verify /srv/spool --wait
      appliance verify --prefix /srv/appliance --evidence today.json
    """
    now, host = clock.utc_now(), Prefix.at(prefix or Path("/"))
    # Refused before minutes of hashing, not after them.
    if evidence is not None and not evidence.absolute().parent.is_dir():
        raise UsageError(
            "evidence.no-folder",
            str(evidence),
            expected="a file in a folder that exists",
            found="no such folder",
            hint="make the folder, or name another file",
        )
    report, failure = _verify(terminal, paths, Trust(host, trust, workspace), now, bundle, waiting_of(terminal, wait))
    if evidence is not None:
        _record(terminal, host, report, evidence, now)
    if as_json:
        terminal.answer_json(report)
    if failure is not None:
        raise failure
    if not as_json:
        for line in lines(report):
            terminal.answer(line)


def _verify(
    terminal: Terminal,
    paths: tuple[Path, ...],
    trust: Trust,
    now: datetime,
    bundle: Path | None,
    waiting: Waiting | None,
) -> tuple[Report, ApplianceError | None]:
    report: Report = {"verified": False, "path": escape(", ".join(map(str, paths)) or str(trust.host.current))}
    try:
        subject = open_subject(paths, trust, now, bundle, waiting)
        report = _expected(subject)
        if subject.bundle.evidence.is_development:
            terminal.development()
        if warning := clock_warning(subject.bundle):
            terminal.message(warning)
        for notice in subject.notices:
            terminal.message(f"notice: {notice}")
        with terminal.progress() as on_progress:
            report |= subject.check(on_progress)
    except ApplianceError as error:
        report["exit_code"] = error.exit_code
        report["errors"] = [fault_fields(one) for one in (error, *error.others)]
        return report, error
    return {**report, "verified": True, "exit_code": 0, "errors": []}, None


def _expected(subject: Subject) -> Report:
    bundles = [subject.bundle, *subject.more]
    return {
        **describe(subject.bundle),
        "verified": False,
        "kind": subject.kind,
        "path": escape(str(subject.path)),
        "files": subject.files,
        "bytes": subject.size_bytes,
        **({"blobs": subject.blobs} if subject.blobs is not None else {}),
        **({"file": subject.file} if subject.file else {}),
        "judged_alone": subject.is_alone,
        **({"bundles": [describe(found) for found in bundles]} if subject.more else {}),
    }


def _record(terminal: Terminal, host: Prefix, report: Report, path: Path, now: datetime) -> None:
    # Loaded with the first record: most checks write none, and the start of a check is to be short.
    from importlib.metadata import version

    from appliance.host.layout.atomic_file import write_file
    from appliance.host.maintenance.egress import recorded_egress
    from appliance.host.verification.verification_record import write_evidence
    from appliance.keys.signers.host_key import host_key

    key = host_key(host.trust)
    report = {**report, **recorded_egress(host, now)}
    write_file(path.absolute(), write_evidence(report, key, now, version("airgap-appliance")))
    if key is None:
        terminal.message(
            f"wrote {path} WITHOUT A SIGNATURE: this machine has no host key; one is made by appliance install"
        )
    else:
        terminal.message(f"wrote {path}, signed by the host key {key.public.fingerprint}")
