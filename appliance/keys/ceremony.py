"""The ceremony: k of n people sign a request, and it is published when enough have signed.

Owns the requests of a workspace: `requests/<label>.json` waits, `requests/done/<label>.json` was signed. The file
itself is what travels: a signer's machine adds a signature to a copy, and `collect` brings copies together.

Rules:
- a development workspace signs with its own keys at once; any other signs nothing but snapshot and timestamp itself;
- what waits was asked by this workspace: a file that comes back can add signatures to it and change nothing in it;
- a request that was made for an older state of the repository is refused when it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from appliance.keys.override_request import write_signed_override
from appliance.keys.signature_requests.request import (
    MAX_REQUEST_BYTES,
    METADATA,
    Item,
    Request,
    read_request,
    write_request,
)
from appliance.keys.signature_requests.request_rules import check_rules
from appliance.keys.signature_requests.request_text import explain
from appliance.keys.signers.pem import load_key
from appliance.keys.signers.signer import Signer, sign_checked
from appliance.keys.tuf_metadata import root_body, targets_body
from appliance.keys.tuf_repository import filed, finish_publication, published, write_signed
from appliance.keys.workspace import Workspace, making_ceremony, refuse_occupied
from bundles.medium import Medium
from signing.errors import ApplianceError, UsageError
from signing.keys import PublicKey
from signing.roles import DEVELOPMENT


def begin(
    path: Path, root: tuple[Sequence[PublicKey], int], targets: tuple[Sequence[PublicKey], int], now: datetime
) -> tuple[Workspace, Request]:
    """Make a workspace whose trust root waits for its people's signatures.

    Args:
        path: where; holds no workspace yet, or one whose creation was killed: that continues.
        root: the keys of those who may change who signs, and how many must.
        targets: the keys of those who stand for content, and how many must.
        now: the time that is stated, in UTC.

    Raises:
        UsageError: something lies there, a key stands twice, or there are fewer keys than must sign.
    """
    for name, (keys, threshold) in (("root", root), ("targets", targets)):
        if len(set(keys)) != len(keys) or not 1 <= threshold <= len(keys):
            raise UsageError(
                "ceremony.keys",
                f"--{name}-key",
                expected=f"at least {threshold} different keys",
                found=f"{len(set(keys))} of {len(keys)}",
                hint=f"give --{name}-key once for each person",
            )
    workspace = Workspace(path)
    with making_ceremony(path) as builder:
        roles = {"root": root, "targets": targets, "snapshot": ([builder], 1), "timestamp": ([builder], 1)}
        request = Request((Item.of_metadata(root_body(1, roles, now)), Item.of_metadata(targets_body(1, {}, now))))
        asked = waiting(workspace, request.label)
        if asked is None:
            return workspace, request_signatures(workspace, request, now)
        # Somebody may have signed the request before the creation was killed: it can be kept, and not be replaced.
        if asked.items[0].body["roles"] != request.items[0].body["roles"]:
            refuse_occupied(path)
        return workspace, asked


def request_signatures(workspace: Workspace, request: Request, now: datetime) -> Request:
    """Ask for signatures. In a development workspace they are made and published at once.

    Args:
        workspace: locked by the caller, or new.
        request: without signatures.
        now: the time that the builder states.

    Returns:
        The request with the signatures that it has; complete means that it is published.
    """
    check_rules(request)
    explain(request)
    request = _sign_own(workspace, request)
    if request.is_complete:
        _finish(workspace, request, now)
    else:
        Medium(workspace.path).write(f"requests/{request.label}.json", write_request(request))
    return request


def waiting(workspace: Workspace, label: str) -> Request | None:
    """A request that waits for signatures, or None."""
    data = _read(workspace.requests / f"{label}.json")
    return None if data is None else read_request(data, f"requests/{label}.json")


def collect(workspace: Workspace, paths: Iterable[Path], now: datetime) -> Request:
    """Add the signatures of files that came back, and publish when there are enough.

    Args:
        workspace: locked by the caller.
        paths: copies of one waiting request, untrusted; or of one that was published with their signatures.
        now: the time that the builder states.

    Raises:
        NotTrustedError: a file is not a copy of what was asked, or holds a wrong signature.
        ApplianceError: it was asked for an older state of the repository (code `repository.stale`).
        UsageError: nothing of that name waits.
    """
    finish_publication(workspace)
    request: Request | None = None
    for path in paths:
        data = _read(path)
        if data is None:
            raise UsageError("request.missing", str(path), expected="a request", found="no file")
        copy = read_request(data, str(path))
        own = waiting(workspace, copy.label) if request is None else request
        done = None if own else _done(workspace, copy.label)
        if done and done.is_same(filed(copy)) and copy.signatures.items() <= done.signatures.items():
            return done  # this very file was published: by a run that did not get to say so
        if own is None:
            raise UsageError(
                "request.none-waits",
                copy.label,
                expected=f"{workspace.requests / copy.label}.json",
                found="published already" if done else "no such request",
                hint=f"look what waits: ls {workspace.requests}",
            )
        request = own.merged(copy)
    if request is None:
        raise UsageError("request.missing", "appliance sign --add", expected="a file", found="none")
    _check_current(workspace, request)
    Medium(workspace.path).write(f"requests/{request.label}.json", write_request(request))
    if request.is_complete:
        _finish(workspace, request, now)
    return request


def _finish(workspace: Workspace, request: Request, now: datetime) -> None:
    if request.is_override:
        write_signed_override(workspace, request)
    else:
        write_signed(workspace, request, now)


def sign(request: Request, signer: Signer) -> Request:
    """Add a person's signatures: to every item that they may sign.

    Args:
        request: which the person has read, as `appliance.keys.signature_requests.request_text` shows it.
        signer: their key.

    Raises:
        UsageError: this key is not asked.
        ApplianceError: a rule is broken, or the signer failed.
    """
    check_rules(request)
    explain(request)
    mine = [item for item in request.items if signer.public.key_id in request.keys(item)]
    if not mine:
        raise UsageError(
            "request.not-asked",
            request.label,
            expected="one of the keys " + ", ".join(key.fingerprint for key in request.people()),
            found=signer.public.fingerprint,
            hint="choose another --key, or another request",
        )
    for item in mine:
        request = request.with_signature(item.path, signer.public, sign_checked(signer, item.message, item.path))
    return request


def signatures_made(workspace: Workspace) -> dict[bytes, dict[PublicKey, bytes]]:
    """What was signed in this workspace beside metadata: for each message the DER signatures over it, by key."""
    made: dict[bytes, dict[PublicKey, bytes]] = {}
    for path in sorted((workspace.requests / "done").glob("*.json")):
        request = read_request(path.read_bytes(), path.name)
        for item in request.items:
            if item.kind != METADATA:
                keys, signatures = request.keys(item), made.setdefault(item.message, {})
                signatures |= {keys[by]: found for (at, by), found in request.signatures.items() if at == item.path}
    return made


def _sign_own(workspace: Workspace, request: Request) -> Request:
    if request.new_root().profile != DEVELOPMENT:
        return request
    for role in ("root", "targets"):
        path = workspace.path / "keys" / f"{role}.pem"
        if path.is_file():
            key = load_key(path)
            if key.public in request.people():
                request = sign(request, key)
    return request


def _check_current(workspace: Workspace, request: Request) -> None:
    if not request.before:
        return
    current = published(workspace)
    asked = request.label.rpartition("-")[2]
    now = current.walked.root.version if request.label.startswith("root-") else current.walked.targets.version
    if dict(request.before) != current.before:
        raise ApplianceError(
            "repository.stale",
            request.label,
            expected=f"version {now + 1}, after what is published now",
            found=f"{'an override' if request.is_override else f'version {asked}'}, asked before that",
            hint="make the request again: appliance build, or appliance trust",
        )


def _done(workspace: Workspace, label: str) -> Request | None:
    data = _read(workspace.requests / "done" / f"{label}.json")
    return None if data is None else read_request(data, f"requests/done/{label}.json")


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_REQUEST_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
