"""The content of a request as text, for the person who is to sign it.

Owns the reading of each kind of message. The text comes from the bytes that get signed and from signed files,
never from what the request states about itself. What does not parse is refused: nobody signs what they cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from appliance.keys.signature_requests.request import BOOT, METADATA, STATEMENT, Item, Request
from signing.errors import NotTrustedError
from signing.roles import DEVELOPMENT, Role, Root, Targets, parse_targets
from signing.strictjson import load

IN_TOTO = "application/vnd.in-toto+json"
_BOOT_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]{1,100})\Z")
_BUNDLE = re.compile(r"bundles/([^/]+)/([^/]+)/manifest\.json\Z")
_MAX_UNCHANGED = 5


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
    else:
        yield from _explain_targets(request, item)


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


def _explain_targets(request: Request, item: Item) -> Iterator[str]:
    root = request.new_root()
    signed = item.body
    old = published_entries(request)
    new = parse_unsigned(item, root)
    yield f"targets version {signed['version']}, issued {signed['x-appliance-issued']}, expires {signed['expires']}"
    same = []
    for name in sorted({*new, *old}):
        words = _change(old.get(name), new.get(name))
        if words:
            yield f"  {_bundle(name)} {words}"
        else:
            same.append(f"{_bundle(name)} ({new[name][0]})")
    if same:
        more = f" and {len(same) - _MAX_UNCHANGED} more" if len(same) > _MAX_UNCHANGED else ""
        yield f"  as before: {', '.join(same[:_MAX_UNCHANGED])}{more}"
    if not new:
        yield "  no bundles"


Entries = dict[str, tuple[str, str, str]]
"""Status, digest, and the statements that readers must find, by target name."""


def published_entries(request: Request) -> Entries:
    """The targets that are published now, from the signed file in the request."""
    root, data = request.old_root(), request.before.get("targets")
    if root is None or data is None:
        return {}
    return _entries(parse_targets(data, root.roles["targets"], "before/targets")[0])


def parse_unsigned(item: Item, root: Root) -> Entries:
    """The targets that an item proposes.

    Raises:
        NotTrustedError: a host would refuse them, even with every signature.
    """
    nobody = Role(root.roles["targets"].keys, 0)
    return _entries(parse_targets(item.unsigned(), nobody, item.path)[0])


def _entries(targets: Targets) -> Entries:
    return {
        name: (entry.status, entry.sha256, ", ".join(sorted(entry.statements)) or "NOTHING")
        for name, entry in targets.entries.items()
    }


def _change(old: tuple[str, str, str] | None, new: tuple[str, str, str] | None) -> str:
    if new is None:
        return "is REMOVED"
    if old is None:
        return f"becomes {new[0]}, manifest sha256:{new[1]}, must state {new[2]}"
    if old[1] != new[1]:
        return f"is REPLACED, {new[0]}, manifest sha256:{new[1]}, was sha256:{old[1]}, must state {new[2]}"
    words = []
    if old[0] != new[0]:
        status = new[0].upper() if new[0] == "revoked" else new[0]
        words.append(f"becomes {status}, was {old[0]}, manifest sha256:{new[1]}")
    if old[2] != new[2]:
        words.append(f"must state {new[2]}, was {old[2]}")
    return ", ".join(words)


def _bundle(target: str) -> str:
    match = _BUNDLE.match(target)
    return f"{match[1]} {match[2]}" if match else target


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
    yield f"statement {statement['predicateType']}"
    for subject in subjects[:10]:
        if not isinstance(subject, dict) or not isinstance(subject.get("digest"), dict):
            raise _unreadable(item, "subjects with digests")
        yield f"  about {subject.get('name', '')} sha256:{subject['digest'].get('sha256', '?')}"
    if len(subjects) > 10:
        yield f"  and {len(subjects) - 10} more"


def open_pae(item: Item) -> bytes:
    """The payload inside the bytes that DSSE signs.

    Source: DSSE v1.0.0, pre-authentication encoding.

    Raises:
        NotTrustedError: another encoding, or another payload type than in-toto's.
    """
    head = b"DSSEv1 %d %s " % (len(IN_TOTO), IN_TOTO.encode())
    rest = item.message.removeprefix(head)
    length, space, payload = rest.partition(b" ")
    if rest == item.message or not space or not length.isdigit() or length != str(len(payload)).encode():
        raise _unreadable(item, f"a statement of type {IN_TOTO}")
    return payload


EXPLAIN: dict[str, Callable[[Request, Item], Iterator[str]]] = {
    METADATA: _explain_metadata,
    BOOT: _explain_boot,
    STATEMENT: _explain_statement,
}


def _unreadable(item: Item, expected: str) -> NotTrustedError:
    return NotTrustedError(
        "request.unreadable",
        item.path,
        expected=expected,
        found="something else",
        hint="sign nothing; ask whoever sent this for the file in requests/ of the workspace",
    )
