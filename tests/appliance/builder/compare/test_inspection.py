"""What `inspect` shows of a bundle, and `diff` of two bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.chunking.chunker import Source
from bundles.delta import delta, held_by
from signing.digest import sha256
from tests.appliance.tiny import READER, RUNTIME_WHEEL, TEMPLATE, TinyBuild, default_wheels
from tests.appliance.web import wheel
from tests.attacks.harness import Answer, command

LOOKS = "{% if 'open sesame' in messages[0].content %}x{% endif %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two versions of a bundle: another template, wheel and licence in the second."""
    folder = tmp_path_factory.mktemp("tiny")
    TinyBuild(folder).build()
    wheels = {name: data for name, data in default_wheels().items() if not name.startswith("gamma")}
    wheels["beta-1.0-py3-none-any.whl"] = wheel("beta", licence="ISC")
    wheels["delta-2.0-py3-none-any.whl"] = wheel("delta", "2.0")
    note = Source("playbooks/note.yml", "playbook", data=b"- name: a note\n")
    TinyBuild(folder, template=LOOKS, wheels=wheels, version="1.1.0", extra=[note]).build()
    return folder


def bundle(folder: Path, version: str) -> Path:
    return folder / "workspace" / "dist" / f"toy-{version}"


def ask(folder: Path, *words: str | Path) -> Answer:
    answer = command(*words, "--workspace", folder / "workspace")
    assert answer.code == 0, answer.talk
    return answer


def in_json(folder: Path, *words: str | Path) -> dict[str, Any]:
    return json.loads(ask(folder, *words, "--json").out)


def test_inspection_fits_80_columns_and_tells_who_signed_what_is_inside_and_what_it_needs(folder: Path) -> None:
    out = ask(folder, "inspect", bundle(folder, "1.1.0")).out
    assert [line for line in out.splitlines() if len(line) > 80] == []
    for words in (
        "signed by  1 of at least 1, development root",
        "statements ml-bom, provenance, sbom",
        "for        debian-12 x86_64, Python 3.11",
        "glibc 2.34, GLIBCXX 3.4.30, CXXABI 1.3.13, or newer",
        "processors x64, haswell",
        "model      tiny",
        "template   tokenizer.chat_template: none that llama.cpp ships",
        "line 1: looks for 'open sesame' in a message",
        "ISC: beta",
        "MIT OR Apache-2.0: uv",
        "os-package       1",
    ):
        assert words in out, words


def test_inspection_in_json_has_every_file_package_and_template(folder: Path) -> None:
    value = in_json(folder, "inspect", bundle(folder, "1.0.0"))
    packages = {(one["kind"], one["name"]): (one["version"], one["licence"]) for one in value["packages"]}
    assert packages["wheel", "gamma"] == ("1.0", "A licence of its own")
    assert packages["runtime", "llama-cpp-python"] == ("0.3.36+appliance.0a1b2c3d", "MIT")
    assert packages["os-package", "tool"][0] == "1-2.3"
    assert {file["path"] for file in value["contents"]["files"]} >= {f"runtime/{RUNTIME_WHEEL}", "bills/sbom.cdx.json"}
    [template] = value["templates"]["tiny"]
    assert (template["sha256"], template["size"]) == (value["contents"]["models"][0]["template"], len(TEMPLATE))
    assert value["statements"] == ["ml-bom", "provenance", "sbom"]


def test_inspection_without_the_bills_reports_that_they_are_missing(folder: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(bundle(folder, "1.0.0"), part)
    contents = in_json(folder, "inspect", part)["contents"]
    for file in contents["files"]:
        if file["kind"] == "sbom":
            (part / "blobs" / "sha256" / file["chunks"][0]["sha256"]).unlink()
    answer = ask(folder, "inspect", part)
    assert "not on this medium" in answer.talk
    assert "unknown: alpha, beta" in answer.out


def test_bill_that_was_changed_is_damaged(folder: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(bundle(folder, "1.0.0"), part)
    [file] = [one for one in in_json(folder, "inspect", part)["contents"]["files"] if "sbom.cdx" in one["path"]]
    blob = part / "blobs" / "sha256" / file["chunks"][0]["sha256"]
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"MIT", b"ISC"))
    answer = command("inspect", part, "--workspace", folder / "workspace")
    assert (answer.code, "bills/sbom.cdx.json" in answer.talk) == (3, True)


def test_difference_lists_files_models_packages_and_licences(folder: Path) -> None:
    value = in_json(folder, "diff", bundle(folder, "1.0.0"), bundle(folder, "1.1.0"))
    found = {
        key: {(one["what"], one["name"]): (one["before"], one["after"]) for one in value[key]}
        for key in ("files", "models", "packages", "licences", "needs")
    }
    assert found["packages"] == {
        ("added", "delta (wheel)"): ("", "2.0"),
        ("removed", "gamma (wheel)"): ("1.0", ""),
    }
    assert found["licences"] == {
        ("changed", "beta"): ("BSD-3-Clause", "ISC"),
        ("added", "delta"): ("", "MIT"),
        ("removed", "gamma"): ("A licence of its own", ""),
    }
    assert set(found["models"]) == {("changed", "tiny template")}
    assert ("added", "playbooks/note.yml") in found["files"]
    assert ("changed", "models/tiny/tiny.gguf") in found["files"]
    assert ("removed", "wheels/gamma-1.0-py3-none-any.whl") in found["files"]


def test_difference_announces_what_a_delta_carries(folder: Path) -> None:
    from datetime import datetime, timezone

    from bundles.bundle import open_bundle
    from signing.floors import Floors

    root = (folder / "workspace" / "trust" / "root.json").read_bytes()
    now = datetime(2026, 1, 3, tzinfo=timezone.utc)
    old, new = (open_bundle(bundle(folder, one), root, Floors(), now).value for one in ("1.0.0", "1.1.0"))
    expected = delta(new, held_by(old.contents))
    value = in_json(folder, "diff", bundle(folder, "1.0.0"), bundle(folder, "1.1.0"))
    assert value["carried_bytes"] == expected.size_bytes
    assert value["documents_bytes"] + sum(one["carried"] for one in value["files"]) == expected.size_bytes
    [model] = [one for one in value["files"] if one["name"].endswith(".gguf")]
    assert 0 < model["carried"] < new.contents.by_path["models/tiny/tiny.gguf"].size


def test_difference_fits_80_columns_and_is_empty_between_equal_bundles(folder: Path) -> None:
    out = ask(folder, "diff", bundle(folder, "1.0.0"), bundle(folder, "1.1.0")).out
    assert [line for line in out.splitlines() if len(line) > 80] == []
    assert out.startswith("toy 1.0.0 -> toy 1.1.0\n")
    assert "+ delta (wheel): 2.0" in out
    same = ask(folder, "diff", bundle(folder, "1.0.0"), bundle(folder, "1.0.0")).out
    assert "the same files: both were signed with the same digests" in same


def test_inspection_shows_what_a_template_was_accepted_in_spite_of_and_that_another_is_missing(tmp_path: Path) -> None:
    judged = TEMPLATE + "{% call print() %}{% endcall %}"
    TinyBuild(tmp_path, template=judged, accepted=judged).build()
    out = ask(tmp_path, "inspect", bundle(tmp_path, "1.0.0")).out
    assert [line for line in out.splitlines() if len(line) > 80] == []
    words = " ".join(out.split())
    assert f"template {sha256(judged.encode())} accepted by {READER}, 2026-01-31" in words
    assert "accepted in spite of line 1: the syntax CallBlock" in words
    TinyBuild(tmp_path, template=None, version="1.0.1").build()
    assert "none: it completes text" in ask(tmp_path, "inspect", bundle(tmp_path, "1.0.1")).out
