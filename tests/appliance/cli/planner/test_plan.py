"""`appliance plan` and `appliance host probe` as a person runs them: what is printed, and the exit code."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.cli.console.terminal import Terminal
from appliance.cli.main import run
from appliance.host.machine.card import Memory, card_schema, card_value, parse_card
from tests.appliance.sim_card import CARD, GIB, check_card
from tests.appliance.sim_host import SimHost, new_host
from tests.appliance.web import write_recipe
from tests.sim.gguf_files import gguf
from tests.sim.gguf_models import Shape, write_model
from tests.sim.odd_models import EMBEDDER, REFUSED, RERANKER, servable

NAMED = (
    *("a pointer of Git LFS", "a web page", "an empty file", "a big-endian file", "text", "an adapter", "a vocabulary"),
    *("the first part of a split GGUF", "the second part of a split GGUF", "an unknown architecture", "a token twice"),
)
SHAPE = Shape("llama", layers=16, width=2048, heads=32, kv_heads=8, ff=8192, vocab=32000, context=16384)


@pytest.fixture(autouse=True)
def _nothing_is_built_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRGAP_APPLIANCE_CACHE", str(tmp_path / "no-cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "m.gguf", SHAPE)
    return tmp_path / "m.gguf"


def card(folder: Path, ram_gib: float) -> Path:
    path = folder / "card.json"
    path.write_text(json.dumps(card_value(replace(CARD, memory=Memory(int(ram_gib * GIB), GIB, 0, None)))))
    return path


def command(*words: object) -> tuple[int, str, str]:
    out, talk = io.StringIO(), io.StringIO()
    code = run([str(word) for word in words], Terminal(out, talk))
    return code, out.getvalue(), talk.getvalue()


def empty(tmp_path: Path) -> list[str]:
    """A host on which nothing is installed, whatever is on this one."""
    return ["--prefix", str(tmp_path / "nothing")]


def test_model_that_fits_shows_what_more_would_and_by_what(tmp_path: Path, model: Path) -> None:
    code, out, talk = command("plan", model, "--host", card(tmp_path, 16), *empty(tmp_path))
    assert code == 0
    assert "4 slots of 8192 tokens, f16" in out
    assert "by the formula" in out
    assert "would still fit: " in out
    assert "16 of 16 layers" in out
    assert "no runtime was found" in talk
    assert max(map(len, out.splitlines())) <= 80


def test_model_that_does_not_fit_exits_6_with_three_alternatives(tmp_path: Path, model: Path) -> None:
    code, out, talk = command("plan", model, "--host", card(tmp_path, 4), "--slots", 16, *empty(tmp_path))
    assert code == 6
    assert "does not fit" in out
    assert [line.split(".")[0] for line in out.splitlines() if line[2:4] in ("1.", "2.", "3.")] == ["  1", "  2", "  3"]
    assert "plan.does-not-fit" in talk
    assert "hint: ask for less: " in talk


def test_json_holds_every_number_and_the_exit_code_stays(tmp_path: Path, model: Path) -> None:
    host = card(tmp_path, 4)
    code, out, _ = command(
        "plan", model, "--host", host, "--slots", 16, "--kv-type", "q8_0", "--json", *empty(tmp_path)
    )
    value = json.loads(out)
    assert code == (0 if value["fits"] else 6)
    (one,) = value["models"]
    assert (one["slots"], one["context"], one["kv_type"], one["runtime"]) == (16, 8192, "q8_0", None)
    parts = ("weights", "repacked", "kv", "compute", "program")
    assert sum(one["formula"][part] for part in parts) == one["formula"]["total"] == value["total"]
    assert value["budget"] == 3 * GIB


def test_context_beyond_the_training_is_said(tmp_path: Path, model: Path) -> None:
    _, _, talk = command("plan", model, "--host", card(tmp_path, 64), "--context", 32768, *empty(tmp_path))
    assert "was trained for a context of 16384 tokens" in talk


def test_recipe_is_planned_without_a_lock_where_its_model_is_a_file(tmp_path: Path, model: Path) -> None:
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(
        "name: toy\nversion: 1.0.0\ntargets: [{os: debian-12, arch: x86_64, python: ['3.11']}]\n"
        "models: [{name: toy, source: 'file:m.gguf', licence: MIT, context: 1024}]\n"
        "runtime: {llama_cpp_python: 0.3.36}\nserve: {slots: 2}\n"
    )
    code, out, _ = command("plan", recipe, "--host", card(tmp_path, 16), *empty(tmp_path))
    assert code == 0
    assert "2 slots of 1024 tokens" in out


def test_recipe_whose_model_is_nowhere_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(
        "name: toy\nversion: 1.0.0\ntargets: [{os: debian-12, arch: x86_64, python: ['3.11']}]\n"
        "models: [{name: toy, source: 'pypi:p==1#m.gguf', licence: MIT, context: 1024}]\n"
        "runtime: {llama_cpp_python: 0.3.36}\n"
    )
    code, _, talk = command("plan", recipe, *empty(tmp_path))
    assert code == 2
    assert f"hint: fetch it first: appliance lock {recipe}" in talk


@pytest.mark.parametrize("name", NAMED)
def test_file_that_no_engine_could_serve_is_named(tmp_path: Path, name: str) -> None:
    data, words = REFUSED[name]
    (tmp_path / "m.gguf").write_bytes(data)
    cached = tmp_path / "no-cache" / "architectures" / "one.json"
    cached.parent.mkdir(parents=True)
    cached.write_text('["llama", "bert", "nomic-bert"]')
    code, out, talk = command("plan", tmp_path / "m.gguf", *empty(tmp_path))
    assert (code, out) == (4 if "gguf.refused" in talk else 2, "")
    assert words in talk


@pytest.mark.parametrize("name", ["a big-endian file", "a gzip file", "an empty file", "safetensors", "noise"])
def test_file_with_another_name_that_is_no_text_is_named_too(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").write_bytes(REFUSED[name][0])
    code, _, talk = command("plan", tmp_path / "model", *empty(tmp_path))
    assert code == 4
    assert REFUSED[name][1] in talk


def test_reranker_and_a_model_without_a_template_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(RERANKER)
    code, out, _ = command("plan", tmp_path / "m.gguf", *empty(tmp_path))
    assert code == 0
    assert "for rerank" in out
    (tmp_path / "m.gguf").write_bytes(servable(template=None))
    code, out, talk = command("plan", tmp_path / "m.gguf", *empty(tmp_path))
    assert code == 0
    assert "for chat" in out
    assert "m.gguf has no chat template" in talk


@pytest.mark.parametrize(
    ("data", "most"), [(servable(context=100), 100), (servable(context=300), 300), (EMBEDDER, 512), (RERANKER, 512)]
)
def test_plan_offers_no_more_context_than_the_model_has(tmp_path: Path, data: bytes, most: int) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    code, out, _ = command("plan", tmp_path / "m.gguf", "--json", *empty(tmp_path))
    value = json.loads(out)
    assert code == 0
    assert value["models"][0]["context"] == most
    assert 0 < value["longest_context"] <= most


def test_recipe_with_a_context_that_its_model_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(servable(context=63))
    code, _, talk = command("plan", write_recipe(tmp_path, "file:tiny.gguf"), *empty(tmp_path))
    assert code == 2
    assert "a context of at most 63 tokens" in talk


@pytest.mark.parametrize("name", ["none", "garbage.gguf"])
def test_source_that_is_none_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "garbage.gguf").write_bytes(gguf()[:60])
    code, out, talk = command("plan", tmp_path / name, *empty(tmp_path))
    assert code in (2, 4)
    assert out == ""
    assert "error: " in talk


def test_card_that_is_none_is_an_error(tmp_path: Path, model: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    for name in ("bad.json", "none.json"):
        code, _, talk = command("plan", model, "--host", tmp_path / name)
        assert code == 2
        assert "appliance host probe --json" in talk


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    return new_host(tmp_path_factory.mktemp("plan"))


def test_bundle_is_verified_before_its_models_are_looked_at(host: SimHost, tmp_path: Path) -> None:
    workspace = ("--workspace", host.workspace.path)
    code, out, talk = command("plan", host.source, "--host", card(tmp_path, 16), *workspace, *empty(tmp_path))
    # The stand-in of a runtime cannot be asked; that is said, and the formula stands.
    assert code == 0
    assert "toy: llama F32" in out
    assert "cannot open this model" in talk
    code, _, talk = command("plan", host.source, "--host", card(tmp_path, 16), *empty(tmp_path))
    assert code == 4


def test_host_probe_prints_a_card_that_its_own_schema_and_plan_take(tmp_path: Path, model: Path) -> None:
    code, out, talk = command("host", "probe", "--json", *empty(tmp_path))
    assert code == 0
    assert talk == ""
    parse_card(out.encode(), "card.json")
    code, schema, _ = command("host", "probe", "--schema")
    assert json.loads(schema) == card_schema()
    check_card(json.loads(out))
    (tmp_path / "card.json").write_text(out)
    assert command("plan", model, "--host", tmp_path / "card.json", "--slots", 1, *empty(tmp_path))[0] in (0, 6)


def test_host_probe_is_readable_in_80_columns_and_states_that_nothing_was_tried(tmp_path: Path) -> None:
    code, out, talk = command("host", "probe", *empty(tmp_path))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "by flags: " in out
    assert "tried" not in out
    assert "not tried" in talk


def test_host_probe_with_a_release_that_cannot_be_used_still_shows_the_card(tmp_path: Path) -> None:
    current = tmp_path / "prefix" / "opt" / "appliance" / "current"
    current.parent.mkdir(parents=True)
    os.symlink("releases/gone", current)
    code, out, talk = command("host", "probe", "--prefix", tmp_path / "prefix")
    assert code == 0
    assert "memory" in out
    assert "the installed release cannot be tried" in talk
