"""A repository whose files are changed and signed again, and how each is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from appliance.keys.tuf_metadata import sign
from signing.errors import NotTrustedError
from signing.roles import (
    Pointer,
    Root,
    Targets,
    parse_pointer,
    parse_root,
    parse_targets,
)
from tests.sim.tuf import Signed, TufRepository, entry

MADE = TufRepository()
MADE.publish({"bundles/a/1/manifest.json": entry(b"1")})
ROOT, ENVELOPE = parse_root(MADE.pinned, "root")
Change = Callable[[Signed], object]


def put(*path: str | int, value: Any) -> Change:
    """A change that puts a value at a place."""

    def change(signed: Any) -> None:
        for part in path[:-1]:
            signed = signed[part]
        signed[path[-1]] = value

    return change


def drop(*path: str) -> Change:
    """A change that takes a field away."""

    def change(signed: Any) -> None:
        for part in path[:-1]:
            signed = signed[part]
        del signed[path[-1]]

    return change


def changed(name: str, change: Change) -> bytes:
    """A file of the repository, changed and signed again by its own people."""
    value = MADE.signed(name)
    change(value)
    return sign(value, MADE.signers(name.removesuffix(".json").rpartition(".")[2]))


def root(change: Change) -> Root:
    return parse_root(changed("1.root.json", change), "file")[0]


def timestamp(change: Change) -> Pointer:
    return parse_pointer(
        changed("timestamp.json", change), ROOT.roles["timestamp"], "timestamp", "snapshot.json", "file"
    )


def targets(change: Change) -> Targets:
    return parse_targets(changed("2.targets.json", change), ROOT.roles["targets"], "file")[0]


READERS: dict[str, Callable[[Change], Any]] = {"root": root, "timestamp": timestamp, "targets": targets}
NAME = "bundles/a/1/manifest.json"
META = ("meta", "snapshot.json")
ENTRY = ("targets", NAME)


def refused(act: Callable[[], object], subject: str = "file", code: str = "metadata.refused") -> NotTrustedError:
    with pytest.raises(NotTrustedError) as caught:
        act()
    assert (caught.value.code, caught.value.subject) == (code, subject)
    return caught.value
