"""What pointers and targets may state: every field and its limits."""

from __future__ import annotations

import pytest

from tests.signing.roles.changes import ENTRY, META, NAME, Change, drop, put, refused, targets, timestamp


@pytest.mark.parametrize(
    "change",
    [
        drop("meta"),
        put("meta", value=[]),
        put("meta", value=1),
        put("meta", value=["snapshot.json"]),
        put("meta", value={}),
        put("meta", "other.json", value={}),
        put(*META, value=[]),
        put(*META, value=1),
        put(*META, value=["version", "length", "hashes"]),
        put(*META, "x", value=1),
        drop(*META, "version"),
        drop(*META, "length"),
        drop(*META, "hashes"),
        put(*META, "version", value=0),
        put(*META, "version", value=True),
        put(*META, "length", value=-1),
        put(*META, "length", value="1"),
        put(*META, "length", value=None),
        put(*META, "hashes", value=[]),
        put(*META, "hashes", value=1),
        put(*META, "hashes", value=["sha256"]),
        put(*META, "hashes", value={}),
        put(*META, "hashes", "sha512", value="0" * 128),
        put(*META, "hashes", value={"sha512": "0" * 128}),
        lambda signed: signed["meta"].update({"targets.json": signed["meta"].pop("snapshot.json")}),
    ],
)
def test_pointer_names_one_file_by_version_length_and_sha256(change: Change) -> None:
    refused(lambda: timestamp(change))


def test_pointers_limits_are_taken() -> None:
    assert timestamp(put(*META, "version", value=1)).file.version == 1
    assert timestamp(put(*META, "length", value=0)).file.length == 0
    refused(lambda: timestamp(put(*META, "hashes", "sha256", value="A" * 64)), code="digest.malformed")


def test_pointers_own_version_and_its_files_are_not_confused() -> None:
    pointer = timestamp(lambda signed: (put("version", value=5)(signed), put(*META, "version", value=9)(signed)))
    assert (pointer.version, pointer.file.version) == (5, 9)


@pytest.mark.parametrize("value", [None, {}, {"keys": {}, "roles": []}, []])
def test_delegations_are_refused_even_empty_ones(value: object) -> None:
    refused(lambda: targets(put("delegations", value=value)))


@pytest.mark.parametrize("value", [[], None, "x", 1])
def test_targets_are_an_object(value: object) -> None:
    refused(lambda: targets(put("targets", value=value)))
    refused(lambda: targets(drop("targets")))


@pytest.mark.parametrize(
    "change",
    [
        put(*ENTRY, value=[]),
        put(*ENTRY, value=1),
        put(*ENTRY, value=["length", "hashes", "custom"]),
        put(*ENTRY, "x", value=1),
        drop(*ENTRY, "length"),
        drop(*ENTRY, "hashes"),
        drop(*ENTRY, "custom"),
        put(*ENTRY, "custom", value=[]),
        put(*ENTRY, "custom", value=1),
        put(*ENTRY, "custom", value=["status", "statements"]),
        put(*ENTRY, "custom", "x", value=1),
        drop(*ENTRY, "custom", "status"),
        drop(*ENTRY, "custom", "statements"),
        put(*ENTRY, "custom", "status", value="revokedx"),
        put(*ENTRY, "custom", "status", value=""),
        put(*ENTRY, "custom", "status", value=None),
        put(*ENTRY, "custom", "status", value=["current"]),
        put(*ENTRY, "custom", "status", value={}),
        put(*ENTRY, "custom", "statements", value={}),
        put(*ENTRY, "custom", "statements", value="sbom"),
        put(*ENTRY, "custom", "statements", value=1),
        put(*ENTRY, "custom", "statements", value=["sbom", 1]),
        put(*ENTRY, "custom", "statements", value=[None]),
        put(*ENTRY, "length", value=-1),
        put(*ENTRY, "length", value=(4 << 20) + 1),
        put(*ENTRY, "length", value=True),
        put(*ENTRY, "length", value="1"),
        put(*ENTRY, "hashes", value={}),
        put(*ENTRY, "hashes", value=[]),
        put(*ENTRY, "hashes", "md5", value="0" * 32),
    ],
)
def test_entry_of_another_form_is_refused_and_its_target_named(change: Change) -> None:
    refused(lambda: targets(change), f"file {NAME}")


def test_entrys_limits_are_taken() -> None:
    for length in (0, 4 << 20):
        assert targets(put(*ENTRY, "length", value=length)).entries[NAME].length == length
    for status in ("current", "allowed", "revoked"):
        assert targets(put(*ENTRY, "custom", "status", value=status)).entries[NAME].status == status
    made = targets(put(*ENTRY, "custom", "statements", value=["b", "a"]))
    assert made.entries[NAME].statements == ("b", "a")
    refused(lambda: targets(put(*ENTRY, "hashes", "sha256", value="0")), f"file {NAME}", "digest.malformed")
    assert targets(put("targets", value={})).entries == {}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "smollm2 1.0.0",
        "a\nb",
        "a\tb",
        "a\x7fb",
        "a\u200bb",
        "a\u202eb",
        "a\u00adb",
        "\u0430",
        "a//b",
        "/a",
        "a/",
        "a/../b",
        ".a",
        "a" * 241,
        "bundles",
        "bundles/",
        "bundles/a",
        "bundles/a/1/manifest.json\n",
        "bundles/a/1/b/manifest.json",
        "bundles/a/1.0.0\u200b/manifest.json",
        "bundles/A/1/manifest.json",
        "bundles/a./1/manifest.json",
        "bundles/a/v1/manifest.json",
        "bundles/a/1-/manifest.json",
        f"bundles/{'a' * 63}/1/manifest.json",
        f"bundles/a/{'1' * 63}/manifest.json",
    ],
)
def test_target_whose_name_could_read_like_another_is_refused(name: str) -> None:
    refused(lambda: targets(lambda signed: signed["targets"].update({name: signed["targets"].pop(NAME)})))


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/b_c+d@e=f-g",
        "a" * 240,
        "Bundles/a/1/manifest.json",
        "bundles.txt",
        "bundles/a/1/manifest.json",
        f"bundles/{'a' * 62}/{'1' * 62}/manifest.json",
        "bundles/a.b_c-d/1.0.0-rc.1/manifest.json",
    ],
)
def test_target_of_the_grammar_is_read(name: str) -> None:
    found = targets(lambda signed: signed["targets"].update({name: signed["targets"].pop(NAME)}))
    assert set(found.entries) == {name}


@pytest.mark.parametrize(
    "names",
    [
        ["ml-bom, provenance, sbom"],
        ["a b"],
        ["A"],
        ["-a"],
        ["a\n"],
        ["a\u200b"],
        [""],
        ["a" * 41],
        ["a", "a"],
        [1],
        "a",
    ],
)
def test_statement_that_could_read_like_several_is_refused(names: object) -> None:
    refused(lambda: targets(put(*ENTRY, "custom", "statements", value=names)), f"file {NAME}")
