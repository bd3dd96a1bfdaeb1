"""Format 2: every field alone, what each refuses, and that a bundle without any of them stays format 1."""

from __future__ import annotations

import copy
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.builder.chunking.chunker import Source
from bundles.bundle import open_bundle
from bundles.contents.contents import FOLDERS, FORMAT_1_KINDS, KINDS, Contents
from bundles.contents.contents_json import parse_contents, write_contents
from bundles.oci.layout import blob_path
from signing.digest import sha256
from signing.errors import NotTrustedError
from signing.floors import Floors
from signing.strictjson import Json, load, to_file
from tests.toy import NOW, build_toy

RELEASED = Path(__file__).parents[2] / "released" / "toy-0.1.0.tar.xz"
A, B, C = "a" * 64, "b" * 64, "c" * 64
PLAIN = {"chunks": [[A, 5]], "mode": 0o644, "sha256": A, "size": 5}
ADAPTER = {
    "name": "plant",
    "path": "adapters/plant/plant.gguf",
    "base": {"sha256": A, "tensors": B},
    "rank": 8,
    "alpha": "16",
    "tensors": C,
    "licence": "Apache-2.0",
    "lineage": {"dataset": A, "parent": None},
}
ACCEPTED = {"by": "Anna Berg", "date": "2026-01-31", "sha256": A}
SOURCE = {"source": "file:lora.gguf", "sha256": A, "size": 5, "steps": []}

Change = Callable[[Json], None]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    workspace, path = build_toy(tmp_path_factory.mktemp("workspace"))
    bundle = open_bundle(path, workspace.root_file.read_bytes(), Floors(), NOW).value
    return (path / blob_path(bundle.config.sha256)).read_bytes()


def add(value: Json, path: str, kind: str, **more: Json) -> None:
    value["files"] = sorted(
        [*value["files"], {**PLAIN, "path": path, "kind": kind, **more}], key=lambda one: one["path"]
    )


def with_golden(value: Json) -> None:
    add(value, "golden/must.jsonl", "golden-set")
    value["models"][0]["golden"] = ["golden/must.jsonl"]


def with_adapter(value: Json, **more: Json) -> None:
    add(value, "adapters/plant/plant.gguf", "adapter", fsverity=B)
    value["adapters"] = [{**copy.deepcopy(ADAPTER), **more}]


def without_runtime(value: Json) -> None:
    value["files"] = [file for file in value["files"] if file["kind"] != "runtime"]
    value["needs"] = {"disk_bytes": 5, "ram_bytes": 0}
    del value["serve"]


def light(value: Json) -> None:
    without_runtime(value)
    value["files"] = [file for file in value["files"] if file["kind"] != "model"]
    value["models"] = []


def light_for_one_system(value: Json) -> None:
    light(value)
    value["needs"] |= {"glibc": "2.34", "glibcxx": "3.4.30", "cxxabi": "1.3.13"}


def light_site_bundle(value: Json) -> None:
    light(value)
    value["targets"] = []
    with_adapter(value)


def model(**fields: Json) -> Change:
    return lambda value: value["models"][0].update(copy.deepcopy(fields))


def top(**fields: Json) -> Change:
    return lambda value: value.update(copy.deepcopy(fields))


def file(path: str, kind: str) -> Change:
    return lambda value: add(value, path, kind)


def adapter(**fields: Json) -> Change:
    return lambda value: with_adapter(value, **copy.deepcopy(fields))


def both(first: Change, second: Change) -> Change:
    def change(value: Json) -> None:
        first(value)
        second(value)

    return change


FIELDS: dict[str, Change] = {
    "task chat": model(task="chat"),
    "task embed": model(task="embed", embedding=384),
    "task rerank": model(task="rerank"),
    "template_accepted": model(template_accepted=ACCEPTED),
    "golden": with_golden,
    "state": top(state={"reads": [1, 2], "writes": 2}),
    "site": top(site={"kinds": ["adapter", "golden-set"]}),
    "adapters": with_adapter,
    "an adapter with labels": adapter(labels=["lab", "plant"]),
    "an adapter of a fraction": adapter(alpha="0.5", rank=256),
    "an adapter made elsewhere": adapter(lineage={"dataset": None, "parent": None, "source": SOURCE}),
    "tool-server": file("servers/files/tool.json", "tool-server"),
    "advisory": file("advisories/osv.jsonl", "advisory"),
    "golden-set": file("golden/must.jsonl", "golden-set"),
    "doc": file("docs/manual.txt", "doc"),
    "no runtime": light,
    "no runtime, for one system": light_for_one_system,
    "no runtime, of a site": light_site_bundle,
}

REFUSED: dict[str, Change] = {
    "an unknown task": model(task="draw"),
    "a task that is null": model(task=None),
    "a task that is no text": model(task=1),
    "embed without an embedding": model(task="embed"),
    "an embedding that chats": model(task="chat", embedding=384),
    "an embedding that reranks": model(task="rerank", embedding=384),
    "an acceptance without a name": model(template_accepted={**ACCEPTED, "by": ""}),
    "an acceptance on no day": model(template_accepted={**ACCEPTED, "date": "2026-02-30"}),
    "an acceptance on another kind of day": model(template_accepted={**ACCEPTED, "date": "20260131"}),
    "an acceptance of no text": model(template_accepted={"by": "Anna", "date": "2026-01-31"}),
    "an acceptance with more": model(template_accepted={**ACCEPTED, "why": "it is ours"}),
    "an acceptance without a template": model(template_accepted=ACCEPTED, template=None),
    "a golden set that is not listed": model(golden=["golden/must.jsonl"]),
    "a golden set of another kind": model(golden=["wheels/wheel.txt"]),
    "no golden set in the list": model(golden=[]),
    "a golden set that is a text": model(golden="golden/must.jsonl"),
    "a state that reads nothing": top(state={"reads": [], "writes": 1}),
    "a state that does not read what it writes": top(state={"reads": [1], "writes": 2}),
    "a state of falling numbers": top(state={"reads": [2, 1], "writes": 2}),
    "a state of format 0": top(state={"reads": [0, 1], "writes": 1}),
    "a state of true": top(state={"reads": [True], "writes": 1}),
    "a state with more": top(state={"reads": [1], "writes": 1, "x": 1}),
    "a state that is null": top(state=None),
    "a site that may add a runtime": top(site={"kinds": ["runtime"]}),
    "a site that may add nothing": top(site={"kinds": []}),
    "a site with kinds twice": top(site={"kinds": ["adapter", "adapter"]}),
    "a site with more": top(site={"kinds": ["adapter"], "x": 1}),
    "no adapter in the list": top(adapters=[]),
    "an adapter whose file is not listed": top(adapters=[ADAPTER]),
    "an adapter of rank 0": adapter(rank=0),
    "an adapter of rank 257": adapter(rank=257),
    "an adapter of rank true": adapter(rank=True),
    "an adapter of alpha 0": adapter(alpha="0"),
    "an adapter of alpha 16.0": adapter(alpha="16.0"),
    "an adapter of alpha 1e3": adapter(alpha="1e3"),
    "an adapter of a number as alpha": adapter(alpha=16),
    "an adapter with a slash in its name": adapter(name="a/b"),
    "an adapter with an @ in its name": adapter(name="a@b"),
    "an adapter in another's folder": adapter(name="other"),
    "an adapter with a label of other letters": adapter(labels=["Lab"]),
    "an adapter with a label that is no text": adapter(labels=[1]),
    "an adapter with unsorted labels": adapter(labels=["b", "a"]),
    "an adapter with no labels in the list": adapter(labels=[]),
    "an adapter without a base": adapter(base=None),
    "an adapter without lineage": adapter(lineage={}),
    "an adapter with more": adapter(scale=1),
    "a tool server outside its folder": file("files/tool.json", "tool-server"),
    "a tool server without a name": file("servers/tool.json", "tool-server"),
    "an advisory outside its folder": file("files/osv.jsonl", "advisory"),
    "a golden set outside its folder": file("files/must.jsonl", "golden-set"),
    "a doc outside its folder": file("files/manual.md", "doc"),
    "another kind beside docs": both(file("docs/a.txt", "doc"), file("docs/b.txt", "config")),
    "a light bundle with a model": without_runtime,
    "a light bundle that serves": both(light, top(serve={"slots": 2})),
    "a light bundle with an empty version": both(light, lambda value: value["needs"].update(glibc="")),
    "a light bundle with no variants in the list": both(light, lambda value: value["needs"].update(cpu_variants=[])),
    "a whole bundle without its glibc": both(model(task="chat"), lambda value: value["needs"].pop("glibc")),
    "nothing of format 2": lambda value: None,
}


def stated(data: bytes, change: Change, number: int = 2, reader: int | None = None) -> bytes:
    value = load(data, "x")
    change(value)
    return to_file({**value, "format": number, "min_reader": number if reader is None else reader})


@pytest.mark.parametrize("change", FIELDS.values(), ids=FIELDS)
def test_each_field_alone_reads_back_equal(data: bytes, change: Change) -> None:
    document = stated(data, change)
    found = parse_contents(document)
    assert (found.format, found.min_reader) == (2, 2)
    assert write_contents(found) == document


@pytest.mark.parametrize("change", FIELDS.values(), ids=FIELDS)
def test_each_field_is_refused_in_format_1(data: bytes, change: Change) -> None:
    for number, reader in ((1, 1), (1, 2), (2, 1)):
        with pytest.raises(NotTrustedError):
            parse_contents(stated(data, change, number, reader))


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_broken_rule_is_refused(data: bytes, change: Change) -> None:
    with pytest.raises(NotTrustedError):
        parse_contents(stated(data, change))


def test_every_new_kind_has_a_folder_and_every_field_a_case() -> None:
    assert set(KINDS) - set(FORMAT_1_KINDS) == set(FOLDERS)
    assert set(FOLDERS) <= set(FIELDS)


def test_bundle_that_uses_nothing_new_is_format_1_with_the_bytes_of_before(data: bytes, tmp_path: Path) -> None:
    value = load(data, "x")
    assert (value["format"], value["min_reader"]) == (1, 1)
    with tarfile.open(RELEASED) as archive:
        blobs = [one for one in archive if one.isfile() and "/blobs/" in one.name and one.size > 1000]
        documents = [archive.extractfile(one).read() for one in blobs]  # type: ignore[union-attr]
    released = next(one for one in documents if one.startswith(b'{"files":'))
    assert write_contents(parse_contents(released)) == released
    assert (
        sha256(write_contents(parse_contents(released)))
        == "3809e9811f9f6b2d59b8541e8101c321a3648580673e66c73ee4e648913ce438"
    )


def test_what_a_model_is_for_follows_from_the_header_where_it_is_not_stated(data: bytes) -> None:
    def purpose(change: Change, number: int = 2) -> str:
        return parse_contents(stated(data, change, number)).models[0].purpose

    assert purpose(lambda value: None, 1) == "chat"
    assert purpose(model(embedding=384), 1) == "embed"
    assert purpose(model(task="rerank")) == "rerank"


def test_verifier_of_the_release_before_refuses_format_2_with_the_step_to_take(tmp_path: Path) -> None:
    with tarfile.open(RELEASED) as archive:
        old = next(one for one in archive if one.name.endswith("BOOT/verify.pyz"))
        verifier = tmp_path / "verify.pyz"
        verifier.write_bytes(archive.extractfile(old).read())  # type: ignore[union-attr]

    def verify(workspace: Path, bundle: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-B", verifier, bundle, "--trust", workspace / "trust/root.json"]
        return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)

    plain = build_toy(tmp_path / "one")[1]
    assert verify(tmp_path / "one", plain).returncode == 0
    newer = build_toy(tmp_path / "two", extra=[Source("docs/manual.txt", "doc", data=b"read me")])[1]
    answer = verify(tmp_path / "two", newer)
    assert answer.returncode == 1
    assert "format 2" in answer.stderr
    assert "update" in answer.stderr


def test_parts_of_format_2_are_named(data: bytes) -> None:
    found: Contents = parse_contents(stated(data, with_golden))
    assert found.format_2_parts == ("model toy", "golden-set")
