"""`appliance evidence`: check the records that `appliance verify --evidence` writes."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.console.options import json_option, pass_terminal
from appliance.cli.console.terminal import Terminal
from appliance.host.trust.root_pin import parse_fingerprint
from appliance.host.verification.bench_report import bench_lines, is_bench
from appliance.host.verification.verification_record import MAX_EVIDENCE_BYTES, check_report, read_evidence
from bundles.report import lines


@click.group("evidence", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Check a record that `appliance verify --evidence` wrote.

    So does `appliance bench --evidence`, for its figures.

    \b
    Example:
      appliance evidence check today.json --fingerprint 3f…e1
    """


@command.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--fingerprint",
    metavar="SHA256",
    required=True,
    help="Of the key of the host that should have written it: `appliance trust show` on that host.",
)
@json_option
@pass_terminal
def check(terminal: Terminal, file: Path, fingerprint: str, as_json: bool) -> None:
    """Check that the host with this key wrote the record FILE, and show what it found.

    Exit 0: that host wrote it; the record itself may be of a failure. 4: unsigned, from another host, or changed since.

    \b
    Example:
      appliance evidence check today.json --fingerprint 3f…e1
    """
    with file.open("rb") as stream:
        data = stream.read(MAX_EVIDENCE_BYTES + 1)
    record = read_evidence(data, parse_fingerprint(fingerprint), str(file))
    if as_json:
        terminal.answer_json({"host": record.host.fingerprint, **record.payload})
        return
    report = check_report(record.payload["report"], str(file))
    terminal.answer(f"by host    {record.host.fingerprint}")
    terminal.answer(f"its clock  {record.payload['stated_time']}, program {record.payload['tool']}")
    if is_bench(report):
        for line in bench_lines(report):
            terminal.answer(line)
        return
    if report["verified"]:
        for line in lines(report):
            terminal.answer(line)
        return
    terminal.answer(f"FAILED     {report['path']}, exit code {report['exit_code']}")
    for error in report["errors"]:
        terminal.answer(f"           {error['subject']}: {error['code']}")
    if left_out := report.get("errors_left_out"):
        terminal.answer(f"           and {left_out} more")
