"""`appliance sign`: add one person's signature, and collect the signatures of all."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, passphrase_option, workspace_option
from appliance.cli.console.passphrase import passphrase_source
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.atomic_file import write_file
from appliance.host.trust.root_choice import choose_root
from appliance.keys.ceremony import collect, sign
from appliance.keys.signature_requests.request import MAX_REQUEST_BYTES, Request, read_request, write_request
from appliance.keys.signature_requests.request_rules import check_rules, check_trust
from appliance.keys.signature_requests.request_text import explain, progress
from appliance.keys.signers.key_name import open_signer
from appliance.keys.signers.pem import load_public
from appliance.keys.workspace import Workspace

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("sign")
@click.argument(
    "requests",
    metavar="REQUEST...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--key", "key_name", metavar="KEY", help="Sign with this: FILE.pem, pkcs11:URI or exec:PROGRAM#KEYID.")
@click.option("--public", metavar="FILE", type=_FILE, help="The public half, for a key behind exec:.")
@click.option("--trust", metavar="FILE", type=_FILE, help="Refuse a request of another trust root than this file's.")
@click.option("--yes", is_flag=True, help="Do not ask before signing: for programs.")
@click.option("--add", is_flag=True, help="Add the signatures in these files to the workspace; publish when enough.")
@passphrase_option
@workspace_option
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    requests: tuple[Path, ...],
    key_name: str | None,
    public: Path | None,
    trust: Path | None,
    yes: bool,
    add: bool,
    passphrase_fd: int | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Show what REQUEST asks to sign; with --key, sign it.

    REQUEST is a small file from requests/ of the builder's workspace; it can travel on any medium. Signing adds your
    signature to that file, which you send back. It needs the key and the request, and no workspace. The builder adds
    the signatures of all files that came back with --add.

    \b
    Example:
      appliance sign targets-2.json --key alice.pem
      appliance sign from-alice.json from-bob.json --add --workspace ~/appliance-workspace
    """
    if add and key_name:
        raise click.UsageError("--key is the signer's, --add is the builder's: use one of them")
    if add:
        _collect(terminal, requests, workspace, as_json)
        return
    if len(requests) != 1:
        raise click.UsageError("one REQUEST at a time is shown and signed")
    with requests[0].open("rb") as file:
        request = read_request(file.read(MAX_REQUEST_BYTES + 1), str(requests[0]))
    _show(terminal, request, trust)
    if key_name is not None:
        request = _sign(terminal, request, requests[0], key_name, public, passphrase_fd, yes)
    _report(terminal, request, as_json)


def _show(terminal: Terminal, request: Request, trust: Path | None) -> None:
    root = request.new_root()
    if trust is not None:
        check_trust(request, choose_root(trust, None, None))
    if root.profile:
        terminal.development()
    for line in explain(request):
        terminal.message(line)
    old = request.old_root()
    if old is not None and trust is None:
        terminal.message("the request is for the trust root with the keys")
        for fingerprint in sorted(key.fingerprint for key in old.roles["root"].keys.values()):
            terminal.message(f"  {fingerprint}")
    check_rules(request)


def _sign(
    terminal: Terminal,
    request: Request,
    path: Path,
    key_name: str,
    public: Path | None,
    passphrase_fd: int | None,
    yes: bool,
) -> Request:
    if not yes:
        click.confirm("sign this?", abort=True, err=True)
    half = load_public(public) if public else None
    signer = open_signer(key_name, passphrase_source(passphrase_fd), request.people(), half)
    signed = sign(request, signer)
    write_file(path.absolute(), write_request(signed))
    terminal.message(f"signed by {signer.public.fingerprint}, in {path}")
    return signed


def _collect(terminal: Terminal, paths: tuple[Path, ...], workspace: Path, as_json: bool) -> None:
    # Only the builder collects: who signs needs nothing of the builder's part of the program.
    from appliance.builder.assembly.signature_refresh import refresh_signatures

    opened = Workspace(workspace)
    with opened.locked():
        request = collect(opened, paths, clock.utc_now())
        refreshed = refresh_signatures(opened, request, clock.utc_now())
    if request.is_complete:
        terminal.message(finished(opened, request))
    report_removed(terminal, refreshed.removed)
    _report(terminal, request, as_json, refreshed.bundles)


def _report(terminal: Terminal, request: Request, as_json: bool, bundles: tuple[Path, ...] = ()) -> None:
    if as_json:
        terminal.answer_json(describe(request, bundles))
        return
    for line in progress(request):
        terminal.answer(line)
    for bundle in bundles:
        terminal.answer(f"{'ready' if request.is_complete else 'waiting'}  {bundle}")


def finished(workspace: Workspace, request: Request) -> str:
    """What became of a request that enough people have signed, in one line."""
    if not request.is_override:
        return f"published {request.label}"
    path = workspace.path / "overrides" / f"{request.label}.json"
    return f"wrote {path}; hand it to the operator, for: appliance install SOURCE --override FILE"


def report_removed(terminal: Terminal, removed: tuple[Path, ...]) -> None:
    """Name the attestations that a refresh has removed from bundles."""
    for path in removed:
        terminal.message(f"removed {path}: its key was revoked, or nobody signed it in this workspace")


def describe(request: Request, bundles: tuple[Path, ...] = ()) -> dict[str, object]:
    """What a request asks, who has signed it and who has not, as one JSON object."""
    return {
        "request": request.label,
        "complete": request.is_complete,
        "asks": list(explain(request)),
        "items": [
            {
                "path": item.path,
                "kind": item.kind,
                "needs": [
                    {
                        "role": need.role,
                        "threshold": need.threshold,
                        "signed": [key.fingerprint for key in need.signers],
                        "waiting": [key.fingerprint for key in need.waiting],
                    }
                    for need in request.needs(item)
                ],
            }
            for item in request.items
        ],
        "bundles": [str(bundle) for bundle in bundles],
    }
