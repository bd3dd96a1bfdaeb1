"""`appliance bench`: how many tokens users get from what serves, and how soon."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import Release, open_current
from appliance.host.release.rendered_configuration import read_configuration
from appliance.host.tls.local_connection import connect_locally
from appliance.host.verification.bench_report import KIND, bench_lines
from appliance.host.verification.verification_record import write_evidence
from appliance.keys.signers.host_key import host_key
from appliance.serve.observation.load import Connect, LoadClient
from appliance.serve.supervisor import run_dir
from signing.errors import UsageError
from signing.strictjson import Json

MAX_USERS, MAX_STEPS = 256, 16
_TIMEOUT_S = 600.0


def _parse_users(_context: click.Context, _option: click.Parameter, value: str) -> tuple[int, ...]:
    parts = value.split(",")
    counts = tuple(int(part) for part in parts if part.isdecimal() and part.isascii() and len(part) < 4)
    if len(counts) != len(parts) or len(counts) > MAX_STEPS or not all(0 < one <= MAX_USERS for one in counts):
        raise click.BadParameter(f"expected up to {MAX_STEPS} numbers from 1 to {MAX_USERS}, such as 1,4,8")
    return counts


@click.command("bench")
@prefix_option
@click.option(
    "--users",
    metavar="N,N…",
    callback=_parse_users,
    default="1,4,8",
    show_default=True,
    help="How many ask at once: each number for itself, one after the other.",
)
@click.option("--model", metavar="NAME", help="Which model; by default the first one that chats.")
@click.option(
    "--seconds",
    type=click.IntRange(1, 3600),
    default=10,
    show_default=True,
    help="How long each number of users asks; answers that have begun are waited for.",
)
@click.option(
    "--tokens", type=click.IntRange(1, 4096), default=64, show_default=True, help="The most tokens of each answer."
)
@click.option(
    "--key-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the key to ask with; by default that of the installation.",
)
@click.option(
    "--evidence",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a record of the figures, signed by this host's key.",
)
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    prefix: Path | None,
    users: tuple[int, ...],
    model: str | None,
    seconds: int,
    tokens: int,
    key_file: Path | None,
    evidence: Path | None,
    as_json: bool,
) -> None:
    """Measure tokens/s and time to first token.

    The running gateway is asked as its users ask it, by 1, 4 and 8 users at once. It serves others meanwhile, and they
    change the figures. The tokens count as usage of the key.

    \b
    Example:
      appliance bench
      appliance bench --users 1,16 --seconds 60 --evidence figures.json
    """
    host, now = Prefix.at(prefix or Path("/")), clock.utc_now()
    if evidence is not None and not evidence.absolute().parent.is_dir():
        raise UsageError(
            "evidence.no-folder",
            str(evidence),
            expected="a file in a folder that exists",
            found="no such folder",
            hint="make the folder, or name another file",
        )
    release = open_current(host, now)
    client = LoadClient(_find_gateway(release), _read_key(key_file or host.default_key), tokens)
    chosen = _choose(client.models(), model)
    rows: list[Json] = []
    for count in users:
        terminal.message(f"users at once: {count}, for {seconds} s")
        row = client.measure(str(chosen["id"]), count, seconds)
        rows.append({**asdict(row), "tokens_per_minute": row.tokens_per_minute})
    # A model that was not loaded has its level now.
    chosen = _choose(client.models(), str(chosen["id"]))
    report = {**_describe(release, chosen), "max_tokens": tokens, "rows": rows}
    if evidence is not None:
        _record(terminal, host, report, evidence)
    if as_json:
        terminal.answer_json({**report, "exit_code": 0, "errors": []})
        return
    for line in bench_lines(report):
        terminal.answer(line)


def _describe(release: Release, model: dict[str, Any]) -> dict[str, Json]:
    made_by = {name: str(value) for name, value in model["appliance"].items()}
    return {
        "kind": KIND,
        "name": release.contents.name,
        "version": release.contents.version,
        "manifest": release.bundle.value.manifest,
        "model": str(model["id"]),
        "level": made_by["level"],
        "isolation": made_by["isolation"],
        "made_by": {**made_by},
    }


def _record(terminal: Terminal, host: Prefix, report: dict[str, Json], path: Path) -> None:
    key = host_key(host.trust)
    record = write_evidence(report, key, clock.utc_now(), version("airgap-appliance"))
    write_file(path.absolute(), record)
    by = f"signed by the host key {key.public.fingerprint}" if key else "WITHOUT A SIGNATURE: there is no host key"
    terminal.message(f"wrote {path}, {by}")


def _find_gateway(release: Release) -> Connect:
    gateway = read_configuration(release).gateway
    port = gateway.port
    serving = run_dir.read_serving(release.prefix)
    if serving is not None:
        # `appliance serve` may have taken another port than the site's.
        port = urlsplit(str(serving.get("url", ""))).port or port
    return lambda: connect_locally(gateway.bind, port, gateway.tls, _TIMEOUT_S)


def _read_key(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise UsageError(
            "bench.no-key",
            str(file),
            expected="a file with a key that this user can read",
            found=str(error),
            hint="run it as root, or name a file with a key: --key-file FILE",
        ) from None


def _choose(models: list[dict[str, Any]], name: str | None) -> dict[str, Any]:
    found = [model for model in models if name in (None, model["id"])]
    if not found:
        raise UsageError(
            "bench.no-model",
            name or "models",
            expected=f"one of {', '.join(str(model['id']) for model in models)}" if models else "a model that chats",
            found="no such model that this key may chat with",
        )
    return found[0]
