"""T6: files that are longer than they may be, have no end, or are JSON that ties a reader up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from unittest import mock

import pytest

from bundles.oci.layout import INDEX_FILE
from bundles.oci.manifest import MAX_MANIFEST_BYTES, write_index
from signing.chain import ReadMetadata
from signing.digest import sha256
from tests.attacks.harness import Stick, guard_off, refused, row

ROW = row(6)
GIANT_BYTES = 5 << 30
AT_ONCE_S = 20.0
"""Far more than a refusal takes on a busy machine, far less than reading a giant or trying every quote."""


def lengthen(stick: Stick) -> None:
    """By a field that nobody asked for, signed by the builder."""
    stick.repository.edit("timestamp.json", lambda value: value.update({"x-padding": "x" * (17 << 10)}))
    stick.save()


def make_giant(stick: Stick) -> None:
    os.truncate(stick.path / "metadata" / "timestamp.json", GIANT_BYTES)


def test_unattacked_files_of_the_right_length_verify(stick: Stick) -> None:
    assert stick.command().code == 0


@pytest.mark.parametrize("attack", [lengthen, make_giant])
def test_attacked_with_metadata_longer_than_its_cap(stick: Stick, attack: Callable[[Stick], None]) -> None:
    attack(stick)
    began = time.process_time()
    refused(ROW, stick.verify, "metadata.too-long", "timestamp.json")
    assert time.process_time() - began < AT_ONCE_S


def test_attacked_with_a_target_longer_than_signed(stick: Stick) -> None:
    [target] = (stick.path / "targets").rglob("*.manifest.json")
    os.truncate(target, GIANT_BYTES)
    subject = str(target.relative_to(stick.path / "targets"))
    refused(ROW, stick.verify, "target.too-long", subject)


def test_attacked_with_a_blob_longer_than_signed(stick: Stick) -> None:
    file = stick.open().value.contents.of_kind("playbook")[0]
    os.truncate(stick.blob(file.chunks[0].sha256), GIANT_BYTES)
    refused(ROW, stick.verify, "blob.too-long", file.path)
    assert stick.command().code == 4


@pytest.mark.parametrize("more", [1, GIANT_BYTES])
@pytest.mark.parametrize("which", ["manifest", "contents"])
def test_attacked_with_a_document_longer_than_signed(stick: Stick, which: str, more: int) -> None:
    blob = stick.blob(stick.manifest if which == "manifest" else stick.open().value.config.sha256)
    os.truncate(blob, blob.stat().st_size + more)
    refused(ROW, stick.verify, "blob.too-long", str(blob.relative_to(stick.path)))


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
def test_attacked_with_json_of_endless_depth(stick: Stick, bracket: bytes) -> None:
    (stick.path / INDEX_FILE).write_bytes(bracket * (60_000 // len(bracket)))
    refused(ROW, stick.verify, "json.refused", INDEX_FILE)


@pytest.mark.parametrize("piece", [b'\\"', *(pytest.param(one, marks=pytest.mark.ci) for one in (b"\\", b'"', b'"\\'))])
def test_attacked_with_json_that_never_closes_its_text(stick: Stick, piece: bytes) -> None:
    manifest = b'"' + piece * ((MAX_MANIFEST_BYTES - 1) // len(piece))
    stick.blob(sha256(manifest)).write_bytes(manifest)
    (stick.path / INDEX_FILE).write_bytes(write_index(manifest))
    began = time.process_time()
    refused(ROW, stick.verify, "json.refused", "manifest")
    assert time.process_time() - began < AT_ONCE_S


def test_unguarded_the_parser_still_refuses_it_and_without_its_cap_it_is_read(stick: Stick) -> None:
    def read_any(read: ReadMetadata, name: str, _most: int) -> bytes:
        return read(name, 1 << 20) or b""

    lengthen(stick)
    with guard_off(ROW.guard, read_any):
        error = refused(ROW, stick.verify, "json.refused", "timestamp.json")
    assert error.expected == "at most 16384 bytes"  # signing.strictjson.load
    with guard_off(ROW.guard, read_any), mock.patch.dict("signing.roles.MAX_BYTES", timestamp=1 << 20):
        stick.verify()
