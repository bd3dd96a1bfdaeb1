"""The courier's stick is damaged, or is somebody else's: refused, named, and nothing is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundles.contents.contents import Contents
from bundles.contents.contents_json import parse_contents
from bundles.oci.manifest import parse_manifest
from tests.journeys.conftest import Demo, appliance, flip
from tests.toy import build_toy

KINDS = ("config", "licence", "model", "playbook", "provenance", "runtime", "sbom", "tool", "wheel")

pytestmark = pytest.mark.ci


def parse_stick(stick: Path) -> Contents:
    index = json.loads((stick / "index.json").read_bytes())
    blobs = stick / "blobs/sha256"
    manifest = parse_manifest((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_bytes())
    return parse_contents((blobs / manifest.contents).read_bytes())


def test_bundle_has_files_of_these_kinds(demo: Demo) -> None:
    contents = parse_stick(demo.stick)
    assert tuple(sorted({file.kind for file in contents.files})) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_byte_in_a_file_of_every_kind_is_refused_with_3_and_named(
    demo: Demo, stick: Path, kind: str
) -> None:
    file = parse_stick(stick).of_kind(kind)[0]
    flip(stick / "blobs/sha256" / file.chunks[0].sha256)
    done = appliance("verify", stick, "--workspace", demo.workspace)
    assert (done.code, done.out) == (3, "")
    assert file.path in done.err


def test_bundle_of_another_workspace_is_refused_with_4_everywhere(demo: Demo, tmp_path: Path) -> None:
    _, foreign = build_toy(tmp_path / "foreign")
    for arguments in (
        ("verify", foreign, "--workspace", demo.workspace),
        ("inspect", foreign, "--workspace", demo.workspace),
        ("stick", "write", foreign, tmp_path / "stick", "--workspace", demo.workspace),
        ("install", foreign, "--prefix", demo.host),
    ):
        done = appliance(*arguments)
        assert (done.code, done.out) == (4, ""), arguments
        assert "hint:" in done.err
    assert not (tmp_path / "stick").exists()


@pytest.mark.parametrize("words", [("verify", "."), ("inspect", "."), ("install", ".", "--prefix", "../host")])
def test_root_that_came_with_the_stick_is_not_accepted(
    stick: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    (stick / "trust").mkdir()
    (stick / "trust/root.json").write_bytes((demo.workspace / "trust/root.json").read_bytes())
    monkeypatch.chdir(stick)
    done = appliance(*words)
    assert done.code == 4
    assert "appliance trust pin" in done.err
    assert not (stick.parent / "host").exists()


def test_damaged_stick_installs_nothing(demo: Demo, stick: Path, tmp_path: Path) -> None:
    file = parse_stick(stick).of_kind("runtime")[0]
    flip(stick / "blobs/sha256" / file.chunks[0].sha256)
    done = appliance("install", stick, "--prefix", tmp_path / "host", "--workspace", demo.workspace)
    assert done.code == 3
    assert file.path in done.err
    assert not (tmp_path / "host/opt/appliance/current").exists()


def test_planted_file_is_refused_with_4(demo: Demo, stick: Path) -> None:
    (stick / "blobs/sha256" / ("0" * 64)).write_bytes(b"planted")
    done = appliance("verify", stick, "--workspace", demo.workspace)
    assert done.code == 4
    assert "0" * 64 in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("build", "absent.yaml"), 2, "absent.yaml"),
        (("verify", "absent"), 2, "absent"),
        (("verify", "--no-such-option"), 2, "no such option"),
        (("verfy",), 2, "verify"),
        (("status", "--prefix", "absent"), 2, "install"),
        (("serve", "--prefix", "absent"), 2, "install"),
        (("init", "/proc/nowhere"), 1, "/proc/nowhere"),
    ],
)
def test_wrong_input_gets_its_exit_code_and_a_word_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo: Demo, arguments: tuple[str, ...], code: int, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = appliance(*arguments, env={"APPLIANCE_WORKSPACE": str(demo.workspace)})
    assert done.code == code, done.err
    assert word.lower() in done.err.lower()
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []
