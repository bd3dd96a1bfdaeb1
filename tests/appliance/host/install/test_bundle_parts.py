"""A part of format 2 that would have no effect on this host is refused by name; one that changes nothing is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.host.install.bundle_parts import check_parts
from bundles.bundle import open_bundle
from bundles.contents.contents import Contents, File
from bundles.contents.format_2 import (
    Adapter,
    AdapterBase,
    AdapterLineage,
    SitePermission,
    StateFormats,
    TemplateAcceptance,
)
from signing.digest import sha256
from signing.errors import ApplianceError
from signing.floors import Floors
from tests.toy import NOW, build_toy

DIGEST = sha256(b"x")
ADAPTER = Adapter(
    "plant",
    "adapters/plant/a.gguf",
    AdapterBase(DIGEST, DIGEST),
    8,
    "16",
    DIGEST,
    (),
    "MIT",
    AdapterLineage(DIGEST, None),
)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    workspace, path = build_toy(tmp_path_factory.mktemp("workspace"))
    return open_bundle(path, workspace.root_file.read_bytes(), Floors(), NOW).value.contents


def with_file(contents: Contents, path: str, kind: str) -> Contents:
    return replace(contents, files=(*contents.files, File(path, kind, 0o644, 0, sha256(b""), ())))


def test_bundle_of_format_1_and_parts_that_change_nothing_are_allowed(contents: Contents) -> None:
    check_parts(contents)
    check_parts(replace(contents, site=SitePermission(("adapter",)), state=StateFormats((1,), 1)))
    accepted = TemplateAcceptance("Anna Berg", "2026-01-31", DIGEST)
    check_parts(replace(contents, models=(replace(contents.models[0], template_accepted=accepted, task="chat"),)))
    check_parts(with_file(with_file(contents, "docs/a.txt", "doc"), "advisories/osv.jsonl", "advisory"))


def test_model_that_ranks_is_allowed(contents: Contents) -> None:
    check_parts(replace(contents, models=(replace(contents.models[0], task="rerank"),)))


def test_golden_sets_of_a_model_that_chats_are_applied(contents: Contents) -> None:
    golden = with_file(contents, "golden/a.jsonl", "golden-set")
    check_parts(golden)
    check_parts(replace(golden, models=(replace(contents.models[0], golden=("golden/a.jsonl",)),)))


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (lambda one: replace(one, adapters=(ADAPTER,)), "adapters plant"),
        (lambda one: with_file(one, "servers/files/tool.json", "tool-server"), "tool servers"),
        (lambda one: replace(one, models=(replace(one.models[0], embedding=8, golden=("golden/a.jsonl",)),)),
         "golden sets of toy, which does not chat"),
        (lambda one: replace(one, models=(replace(one.models[0], task="rerank", golden=("golden/a.jsonl",)),)),
         "golden sets of toy, which does not chat"),
        (lambda one: replace(one, state=StateFormats((1, 2), 2)), "stored state of format 2"),
        (lambda one: replace(one, files=tuple(file for file in one.files if file.kind != "runtime")), "no runtime"),
        (lambda one: replace(one, models=()), "no models"),
    ],
)  # fmt: skip
def test_part_without_effect_is_refused_by_name(contents: Contents, part: object, named: str) -> None:
    assert callable(part)
    with pytest.raises(ApplianceError) as caught:
        check_parts(part(contents))
    assert caught.value.code == "install.unknown-parts"
    assert caught.value.found.startswith(named)
    assert "update the appliance" in caught.value.hint
