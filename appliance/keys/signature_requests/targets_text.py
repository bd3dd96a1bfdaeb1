"""The targets that a request proposes as text, beside those that are published now.

Owns the words for every target: what does not change comes first, so that the changes stand last on a screen. Each line
holds every field of its target, so that two different targets files never give the same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from signing.roles import BUNDLE_TARGET, TargetEntry, Targets

Entries = Mapping[str, TargetEntry]


def explain_targets(old: Targets | None, new: Targets) -> Iterator[str]:
    """Every target, line by line.

    Args:
        old: what is published now; None where nothing is.
        new: what is proposed.
    """
    before: Entries = old.entries if old else {}
    yield f"targets version {new.version}, issued {new.issued}, expires {new.expires}"
    if same := [name for name in sorted(new.entries) if before.get(name) == new.entries[name]]:
        yield f"  as before: {len(same)}"
        for name in same:
            yield from _fields(f"{_title(name)} {new.entries[name].status}", name, new.entries[name])
    changed = sorted(name for name in {*before, *new.entries} if before.get(name) != new.entries.get(name))
    yield f"  changes: {len(changed) or 'none'}"
    for name in changed:
        yield from _change(name, before.get(name), new.entries.get(name))
    if not new.entries:
        yield "  no bundles"


def _title(name: str) -> str:
    match = BUNDLE_TARGET.match(name)
    # No name of a target has a space, so nothing else reads like a bundle.
    return f"{match[1]} {match[2]}" if match else f"{name}, which is NO BUNDLE,"


def _change(name: str, old: TargetEntry | None, new: TargetEntry | None) -> Iterator[str]:
    if new is None:
        assert old is not None
        yield from _fields(f"{_title(name)} is REMOVED, was {old.status}", name, old)
        return
    status = new.status.upper() if new.status == "revoked" else new.status
    if old is None:
        word = f"becomes {status}"
    elif old.sha256 != new.sha256:
        word = f"is REPLACED, {status}{_was(old.status, new.status)}"
    else:
        word = f"{'stays' if old.status == new.status else 'becomes'} {status}{_was(old.status, new.status)}"
    yield from _fields(f"{_title(name)} {word}", name, new, old)


def _fields(words: str, name: str, entry: TargetEntry, old: TargetEntry | None = None) -> Iterator[str]:
    old = old or entry
    yield f"    {words}, {'manifest' if BUNDLE_TARGET.match(name) else 'file'}"
    yield f"      sha256:{entry.sha256}"  # on its own line: 77 columns, so that no terminal breaks it
    if old.sha256 != entry.sha256:
        yield f"      was sha256:{old.sha256}"
    length = f"{entry.length} bytes{_was(f'{old.length} bytes', f'{entry.length} bytes')}"
    yield f"      {length}, must state {_list(entry.statements)}{_was(_list(old.statements), _list(entry.statements))}"


def _was(old: str, new: str) -> str:
    return f", was {old}" if old != new else ""


def _list(statements: tuple[str, ...]) -> str:
    # No name of a statement has a comma or a space.
    return ", ".join(statements) or "NOTHING"
