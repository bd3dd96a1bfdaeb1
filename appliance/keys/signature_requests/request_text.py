"""The content of a request as text, for the person who is to sign it.

Owns the reading of each kind of message. The text comes from the bytes that get signed and from signed files,
never from what the request states about itself. What does not parse is refused: nobody signs what they cannot read.

Rules:
- names and times have a grammar without spaces; other text is quoted as JSON, in visible ASCII, on one line;
- metadata is shown whole, so two requests whose metadata differ never give the same text;
- of a statement, type and subjects are shown, and the sha256 of the whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

from appliance.keys.signature_requests.request import BOOT, METADATA, OVERRIDE, STATEMENT, Item, Request
from appliance.keys.signature_requests.request_refusal import HINT
from appliance.keys.signature_requests.targets_text import explain_targets
from bundles.attestation.expiry_override import PAYLOAD_TYPE as OVERRIDE_TYPE
from bundles.attestation.expiry_override import ExpiryOverride, parse_override
from signing.digest import sha256
from signing.errors import NotTrustedError
from signing.roles import DEVELOPMENT, Role, Root
from signing.strictjson import Json, load

IN_TOTO = "application/vnd.in-toto+json"
_MAX_SUBJECTS = 10
_PLAIN = re.compile(r"[A-Za-z0-9:/._+@-]{1,200}\Z")
_BOOT_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]{1,100})\Z")


def explain(request: Request) -> tuple[str, ...]:
    """Everything that gets signed, line by line.

    Raises:
        NotTrustedError: a message does not have the form of its kind.
    """
    lines: list[str] = []
    for item in request.items:
        lines += EXPLAIN[item.kind](request, item)
    if request.install_by:
        lines.append(f"meant to be installed until {request.install_by}")
    return tuple(lines)


def progress(request: Request) -> tuple[str, ...]:
    """How many have signed and who may still, line by line: `targets: 1 of 2 signatures, waiting for 1 of …`."""
    lines: dict[str, str] = {}
    for item in request.items:
        for need in request.needs(item):
            count = f"{need.role}: {min(len(need.signers), need.threshold)} of {need.threshold} signatures"
            if not need.is_met:
                waiting = ", ".join(key.fingerprint for key in need.waiting)
                count += f", waiting for {need.threshold - len(need.signers)} of {waiting}"
            # The item with the fewest signatures stands for its role.
            if need.role not in lines or not need.is_met:
                lines[need.role] = count
    return tuple(lines.values())


def _explain_metadata(request: Request, item: Item) -> Iterator[str]:
    if item.role == "root":
        yield from _explain_root(request)
    elif (targets := request.new_targets()) is not None:
        yield from explain_targets(request.old_targets(), targets)


def _explain_root(request: Request) -> Iterator[str]:
    new, old = request.new_root(), request.old_root()
    kind = "DEVELOPMENT trust root" if new.profile == DEVELOPMENT else "trust root"
    yield f"{kind} version {new.version}, issued {new.issued}, expires {new.expires}"
    for name, role in new.roles.items():
        before = old.roles[name] if old else None
        change = f" (was {before.threshold})" if before and before.threshold != role.threshold else ""
        yield f"  {name}: {role.threshold} of {len(role.keys)} must sign{change}"
        yield from _explain_keys(role, before, new)
    yield from (f"  revoked for ever: the key with key id {key_id}" for key_id in new.revoked)


def _explain_keys(role: Role, before: Role | None, root: Root) -> Iterator[str]:
    new = {key.fingerprint for key in role.keys.values()}
    old = {key.fingerprint for key in before.keys.values()} if before else set()
    revoked = {key.fingerprint for key in (before.keys.values() if before else ()) if key.key_id in root.revoked}
    gone = {one: " REVOKED" if one in revoked else " REMOVED" for one in old}
    for fingerprint in sorted(new | old):
        word = "" if before is None or fingerprint in new & old else gone.get(fingerprint, " ADDED")
        yield f"    {fingerprint}{word}"


def _explain_boot(_request: Request, item: Item) -> Iterator[str]:
    try:
        text = item.message.decode("ascii")
    except UnicodeDecodeError:
        raise _unreadable(item, "a list of digests and names") from None
    lines = [_BOOT_LINE.match(line) for line in text.removesuffix("\n").split("\n")]
    if not text.endswith("\n") or not all(lines):
        raise _unreadable(item, "a list of digests and names")
    yield "what a bare host checks first: its verifier, and these files"
    for line in lines:
        assert line is not None
        yield f"  {line[1]}  {line[2]}"


def _explain_statement(_request: Request, item: Item) -> Iterator[str]:
    payload = open_pae(item)
    statement = load(payload, item.path, 4 << 20)
    subjects = statement.get("subject") if isinstance(statement, dict) else None
    if not isinstance(subjects, list) or not isinstance(statement.get("predicateType"), str):
        raise _unreadable(item, "an in-toto statement")
    yield f"statement {quote(statement['predicateType'])}"
    yield f"  sha256:{sha256(payload)}"
    for subject in subjects[:_MAX_SUBJECTS]:
        if not isinstance(subject, dict) or not isinstance(subject.get("digest"), dict):
            raise _unreadable(item, "subjects with digests")
        yield f"  about {quote(subject.get('name', ''))}"
        yield f"    {_digest(subject['digest'])}"
    if len(subjects) > _MAX_SUBJECTS:
        yield f"  and {len(subjects) - _MAX_SUBJECTS} more"


def _digest(value: Mapping[str, Json]) -> str:
    is_ours = set(value) == {"sha256"} and re.match(r"[0-9a-f]{64}\Z", str(value["sha256"]))
    return f"sha256:{value['sha256']}" if is_ours else quote(value)


def quote(value: Json) -> str:
    """A value from outside on one line of visible ASCII: a plain word as it is, anything else as JSON."""
    if isinstance(value, str) and _PLAIN.match(value):
        return value
    return json.dumps(value, sort_keys=True).replace("\x7f", "\\u007f")


def _explain_override(_request: Request, item: Item) -> Iterator[str]:
    override = parse_asked_override(item)
    yield "EXPIRY OVERRIDE: one bundle may be installed although its metadata have expired; nothing else is lifted"
    yield f"  bundle {override.name} {override.version}, manifest sha256:{override.manifest}"
    yield f"  for {override.place} and for no other"
    yield f"  last day {override.last_day}, by the time that has been proved there"


def parse_asked_override(item: Item) -> ExpiryOverride:
    """The expiry override that an item asks for.

    Raises:
        NotTrustedError: the message is no such statement.
    """
    return parse_override(open_pae(item, OVERRIDE_TYPE), item.path)


def open_pae(item: Item, payload_type: str = IN_TOTO) -> bytes:
    """The payload inside the bytes that DSSE signs.

    Source: DSSE v1.0.0, pre-authentication encoding.

    Raises:
        NotTrustedError: another encoding, or another payload type than the expected one.
    """
    head = b"DSSEv1 %d %s " % (len(payload_type), payload_type.encode())
    rest = item.message.removeprefix(head)
    length, space, payload = rest.partition(b" ")
    if rest == item.message or not space or not length.isdigit() or length != str(len(payload)).encode():
        raise _unreadable(item, f"a statement of type {payload_type}")
    return payload


EXPLAIN: dict[str, Callable[[Request, Item], Iterator[str]]] = {
    METADATA: _explain_metadata,
    BOOT: _explain_boot,
    STATEMENT: _explain_statement,
    OVERRIDE: _explain_override,
}


def _unreadable(item: Item, expected: str) -> NotTrustedError:
    return NotTrustedError(
        "request.unreadable",
        item.path,
        expected=expected,
        found="something else",
        hint=HINT,
    )
