"""T14: a weaker hash beside ours, instead of ours, or one that nobody knows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from bundles.contents.wheel_record import parse_record
from bundles.oci.layout import INDEX_FILE
from signing.digest import Digest
from signing.strictjson import load, to_file
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import Signed

ROW = row(14)
SUBJECT = "2.targets.json bundles/toy/1.0.0/manifest.json"
MD5 = hashlib.md5(b"").hexdigest()


def with_hashes(stick: Stick, change: Callable[[dict[str, str]], object]) -> None:
    """Change the hashes that targets give for the bundle."""

    def edit(targets: Signed) -> None:
        for entry in targets["targets"].values():
            change(entry["hashes"])

    stick.repository.edit(stick.repository.targets_name, edit)
    stick.save()


def add_md5(hashes: dict[str, str]) -> None:
    hashes["md5"] = MD5


def only_sha1(hashes: dict[str, str]) -> None:
    hashes.clear()
    hashes["sha1"] = "0" * 40


def none_at_all(hashes: dict[str, str]) -> None:
    hashes.clear()


def test_unattacked_sha256_alone_verifies(stick: Stick) -> None:
    with_hashes(stick, lambda _: None)
    stick.verify()


@pytest.mark.parametrize("change", [add_md5, only_sha1, none_at_all])
def test_attacked_by_other_hashes_in_targets(stick: Stick, change: Callable[[dict[str, str]], None]) -> None:
    with_hashes(stick, change)
    refused(ROW, stick.verify, "metadata.refused", SUBJECT)


@pytest.mark.parametrize("text", ["a" * 63, "A" * 64, "0x" + "a" * 62, ""])
def test_attacked_by_a_digest_of_another_form(stick: Stick, text: str) -> None:
    with_hashes(stick, lambda hashes: hashes.update(sha256=text))
    refused(ROW, stick.verify, "digest.malformed", SUBJECT)


@pytest.mark.parametrize("digest", ["sha512:" + "0" * 128, "md5:" + MD5, "0" * 64])
def test_attacked_by_an_index_with_another_algorithm(stick: Stick, digest: str) -> None:
    index = load((stick.path / INDEX_FILE).read_bytes(), INDEX_FILE)
    index["manifests"][0]["digest"] = digest
    (stick.path / INDEX_FILE).write_bytes(to_file(index))
    refused(ROW, stick.verify, "digest.algorithm", INDEX_FILE)


def test_attacked_by_a_wheel_whose_record_uses_md5() -> None:
    data = b"evil.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,0\n"
    refused(ROW, lambda: parse_record(data, "evil-1.dist-info/RECORD", "evil.whl"), "wheel.record-refused", "evil.whl")


def test_unguarded_the_weak_hash_stands_beside_ours(stick: Stick) -> None:
    with_hashes(stick, add_md5)
    with guard_off(ROW.guard, lambda value, _subject: Digest(value["hashes"]["sha256"])):
        stick.verify()
