"""A recipe's mistakes are reported all at once, each with its place, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.recipe.choices import OS_GLIBC
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.recipe.recipe import Recipe
from appliance.builder.sources import parse_source
from appliance.resources import recipes_path
from signing.errors import UsageError

GOOD = """\
name: toy
version: 1.0.0
targets: [{os: debian-12, arch: x86_64, python: ["3.11"]}]
models:
  - name: tiny
    source: file:tiny.gguf
    licence: Apache-2.0
    context: 64
runtime: {llama_cpp_python: 0.3.36, cpu: all, cuda: false}
serve: {slots: 4}
"""


def _load(folder: Path, text: str | bytes) -> Recipe:
    path = folder / "toy.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_recipe(path)


def _refused(folder: Path, text: str | bytes) -> list[UsageError]:
    with pytest.raises(UsageError) as caught:
        _load(folder, text)
    errors = [caught.value, *caught.value.others]
    assert all(error.exit_code == 2 and error.expected and error.found for error in errors)
    return [error for error in errors if isinstance(error, UsageError)]


def _one(folder: Path, old: str, new: str) -> UsageError:
    assert old in GOOD
    (error,) = _refused(folder, GOOD.replace(old, new))
    return error


def _place(error: UsageError) -> str:
    return error.subject.rpartition("toy.yaml:")[2]


def test_shipped_recipe_is_read_as_written() -> None:
    recipe = load_recipe(recipes_path() / "smollm2.yaml")
    assert (recipe.name, recipe.version, recipe.serve.slots) == ("smollm2", "1.0.0", 4)
    assert [(target.os, target.arch, target.python) for target in recipe.targets] == [
        ("debian-12", "x86_64", ("3.11",))
    ]
    (model,) = recipe.models
    assert (model.name, model.licence, model.context) == ("smollm2-135m", "Apache-2.0", 8192)
    assert parse_source(model.source_text).file == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (recipe.runtime.llama_cpp_python, recipe.runtime.cpu, recipe.runtime.cuda) == ("0.3.36", "all", ())


def test_left_out_parts_have_the_documented_defaults(tmp_path: Path) -> None:
    recipe = _load(tmp_path, GOOD.replace(", cpu: all, cuda: false", "").replace("serve: {slots: 4}\n", ""))
    assert (recipe.runtime.cpu, recipe.runtime.cuda, recipe.serve.slots) == ("all", (), 4)


def test_several_systems_are_built_for_the_oldest_library_of_each_python(tmp_path: Path) -> None:
    newer = '{os: debian-13, arch: x86_64, python: ["3.13", "3.9"]}'
    targets = f'targets: [{newer}, {{os: debian-12, arch: x86_64, python: ["3.9"]}}]'
    recipe = _load(tmp_path, GOOD.replace('targets: [{os: debian-12, arch: x86_64, python: ["3.11"]}]', targets))
    assert recipe.pythons == ("3.9", "3.13")
    assert recipe.glibc_for("3.13") == OS_GLIBC["debian-13"]
    assert recipe.glibc_for("3.9") == OS_GLIBC["debian-12"]


def test_misspelled_field_is_named_with_its_place_and_the_field_that_was_meant(tmp_path: Path) -> None:
    errors = _refused(tmp_path, GOOD.replace("    licence:", "    license:"))
    assert [_place(error) for error in errors] == ["5:5 models[0].licence", "7:5 models[0].license"]
    assert errors[1].expected == (
        "one of the fields name, source, licence, context, convert, quantize, allow_requantize, accepted, "
        "task, template, golden"
    )
    assert errors[1].found == "the unknown field license"
    assert errors[1].hint == "did you mean licence?"
    assert errors[0].found == "nothing"


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("toy", "Toy Model").replace("debian-12", "debian-11").replace("context: 64", "context: 0")
    errors = _refused(tmp_path, text.replace("slots: 4", "slots: many"))
    assert [_place(error) for error in errors] == [
        "1:7 name",
        "3:16 targets[0].os",
        "8:14 models[0].context",
        "10:16 serve.slots",
    ]
    assert errors[1].expected == "one of " + ", ".join(OS_GLIBC)
    assert errors[2].found == "'0' (a number)"
    assert errors[3].found == "'many' (text)"


def test_python_version_without_quotes_is_refused_because_yaml_would_make_it_3_1(tmp_path: Path) -> None:
    error = _one(tmp_path, '["3.11"]', "[3.10]")
    assert _place(error) == "3:50 targets[0].python[0]"
    assert error.found == "'3.10' (a number)"
    assert error.hint == 'write it in quotes: "3.10"'


def test_field_that_stands_twice_is_refused(tmp_path: Path) -> None:
    error = _one(tmp_path, "version: 1.0.0\n", "version: 1.0.0\nversion: 2.0.0\n")
    assert (_place(error), error.found) == ("3:1 version", "a second one")


@pytest.mark.parametrize("value", ["!!bool x", "!!timestamp x", "!!int ''", "!!int 1:x", "!!float x"])
def test_tag_before_another_value_is_refused(tmp_path: Path, value: str) -> None:
    error = _one(tmp_path, "slots: 4", f"slots: {value}")
    assert (error.code, error.expected) == ("recipe.invalid", "YAML")


def test_merge_of_mappings_is_refused_before_it_takes_all_memory(tmp_path: Path) -> None:
    layers = "".join(f"a{at}: &a{at} {{<<: [{', '.join([f'*a{at - 1}'] * 10)}]}}\n" for at in range(1, 30))
    errors = _refused(tmp_path, GOOD + "a0: &a0 {k: 1}\n" + layers)
    assert {error.found for error in errors} == {"a merge (<<)"}


def test_graphics_processors_are_a_list_of_known_generations(tmp_path: Path) -> None:
    assert _load(tmp_path, GOOD.replace("cuda: false", "cuda: [90, 80]")).runtime.cuda == (80, 90)


def test_what_this_version_cannot_build_is_refused_and_not_left_out(tmp_path: Path) -> None:
    for value in ("true", "[]", "[80, 80]", "[52]", "['80']", "0"):
        error = _one(tmp_path, "cuda: false", f"cuda: {value}")
        assert error.subject.startswith(str(tmp_path))
        assert "9:" in _place(error)
        assert "runtime.cuda" in _place(error)
        assert "75, 80, 86, 89, 90, 100, 120" in error.expected


@pytest.mark.parametrize(
    ("text", "cpu"), [("native", "native"), ("[haswell]", ("haswell",)), ("[zen4, x64]", ("zen4", "x64"))]
)
def test_recipe_may_ask_for_the_processors_that_it_names(tmp_path: Path, text: str, cpu: str | tuple[str, ...]) -> None:
    assert _load(tmp_path, GOOD.replace("cpu: all", f"cpu: {text}")).runtime.cpu == cpu


@pytest.mark.parametrize("text", ["[]", "[haswell, z80]", "[haswell, haswell]", "[[haswell]]", "[{a: b}]", "1", "null"])
def test_unknown_processor_is_refused_beside_those_that_exist(tmp_path: Path, text: str) -> None:
    error = _one(tmp_path, "cpu: all", f"cpu: {text}")
    assert _place(error) == "9:42 runtime.cpu"
    assert error.expected.startswith("all, native, or a list of: x64, sse42,")


def test_quantisation_that_nobody_knows_is_refused_beside_those_that_exist(tmp_path: Path) -> None:
    context = "    context: 64\n"
    assert _load(tmp_path, GOOD.replace(context, f"{context}    quantize: Q4_K_M\n")).models[0].quantize == "Q4_K_M"
    error = _one(tmp_path, context, f"{context}    quantize: Q4_K_XXL\n")
    assert _place(error) == "9:15 models[0].quantize"
    assert "Q4_K_M" in error.expected


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("licence: Apache-2.0", "licence: Apache 2", "7:14 models[0].licence"),
        ("name: tiny", "name: aux", "5:11 models[0].name"),
        ("name: tiny", "name: ../tiny", "5:11 models[0].name"),
        ("file:tiny.gguf", "hf:owner/repo@main#tiny.gguf", "6:13 models[0].source"),
        ("version: 1.0.0", "version: 1.0", "2:10 version"),
        ("arch: x86_64", "arch: riscv64", "3:33 targets[0].arch"),
        ("cpu: all", "cpu: haswell", "9:42 runtime.cpu"),
        ('[{os: debian-12, arch: x86_64, python: ["3.11"]}]', "[]", "3:10 targets"),
        ("context: 64", 'context: "64"', "8:14 models[0].context"),
        ("serve: {slots: 4}", "serve: 4", "10:8 serve"),
    ],
)
def test_wrong_value_is_refused_at_its_place(tmp_path: Path, old: str, new: str, place: str) -> None:
    assert _place(_one(tmp_path, old, new)) == place


def test_advice_that_would_not_help_is_not_given(tmp_path: Path) -> None:
    assert _one(tmp_path, "version: 1.0.0", "version: 1.0").hint == ""
    [error] = _refused(tmp_path, "name: toy\n\tversion: 1.0.0\n")
    assert error.found == "character '\\t' that cannot start any token"


def test_two_models_of_one_name_and_two_architectures_are_refused(tmp_path: Path) -> None:
    model = "  - {name: tiny, source: 'file:b.gguf', licence: MIT, context: 64}\nruntime"
    assert _place(_one(tmp_path, "runtime", model)) == "5:3 models"
    second = '"]}, {os: debian-13, arch: aarch64, python: ["3.13"]}]'
    assert _one(tmp_path, '"]}]', second).expected.startswith("targets of one architecture")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: b: c",
        "name: &x [*x]",
        "name: 2020-13-45",
        "? [a]\n: 1",
        "!!python/object:os.system {}",
        b"\xff\xfe",
        "a: \x00",
    ],
)
def test_text_that_is_no_recipe_is_refused_and_never_a_crash(tmp_path: Path, text: str | bytes) -> None:
    assert _refused(tmp_path, text)


def test_missing_recipe_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path / "nowhere" / "toy.yaml")
    assert caught.value.code == "recipe.missing"
    assert caught.value.exit_code == 2
    assert "smollm2.yaml" in caught.value.hint
    (tmp_path / "mine.yaml").write_text(GOOD)
    with pytest.raises(UsageError) as beside:
        load_recipe(tmp_path / "toy.yaml")
    assert beside.value.hint == f"recipes that are there: {tmp_path / 'mine.yaml'}"


def test_folder_in_place_of_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path)
    assert caught.value.found == "is a directory"


LATER = {
    "adapters": (
        "serve: {slots: 4}",
        "adapters: [{name: plant, base: tiny, source: file:lora.gguf, licence: Apache-2.0}]",
    ),
    "servers": ("serve: {slots: 4}", "servers: [{name: erp, source: file:erp.py, licence: Apache-2.0}]"),
    "advisories": ("serve: {slots: 4}", "advisories: [file:osv.jsonl]"),
}


@pytest.mark.parametrize("field", LATER)
def test_what_no_build_packs_yet_is_refused_by_name_and_not_ignored(tmp_path: Path, field: str) -> None:
    old, new = LATER[field]
    (error,) = _refused(tmp_path, GOOD.replace(old, new))
    assert f" {field}" in f" {error.subject}".replace(".", " ")
    assert error.expected == f"no {field}: a later version of this program packs them, this one does not"


def test_golden_sets_get_numbered_paths_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    one = GOOD.replace("context: 64", "context: 64\n    golden: file:must.jsonl")
    assert [file.path for file in _load(tmp_path, one).further_files][-1:] == ["golden/tiny/01.jsonl"]
    two = GOOD.replace("context: 64", "context: 64\n    golden: [file:b.jsonl, file:a.jsonl]")
    files = _load(tmp_path, two).models[0].golden_files
    assert [(file.source, file.path) for file in files] == [
        ("file:b.jsonl", "golden/tiny/01.jsonl"),
        ("file:a.jsonl", "golden/tiny/02.jsonl"),
    ]


@pytest.mark.parametrize("value", ["[]", "7", "[7]", "nowhere", "[file:a.jsonl, file:a.jsonl]"])
def test_golden_that_names_no_sources_is_refused(tmp_path: Path, value: str) -> None:
    (error,) = _refused(tmp_path, GOOD.replace("context: 64", f"context: 64\n    golden: {value}"))
    assert error.subject.endswith("models[0].golden")


def test_what_is_misspelled_in_a_part_of_later_is_named_all_the_same(tmp_path: Path) -> None:
    text = GOOD + "servers: [{name: erp, source: nowhere, licence: Apache-2.0}]\n"
    assert "source" in _refused(tmp_path, text)[0].subject


def test_site_and_accepted_template_are_read(tmp_path: Path) -> None:
    accepted = f'template: {{accepted: {{by: Anna Berg, date: "2026-01-31", sha256: "{"a" * 64}"}}}}'
    text = GOOD.replace("context: 64", f"context: 64\n    {accepted}") + "site: {kinds: [golden-set, adapter]}\n"
    recipe = _load(tmp_path, text)
    assert recipe.site is not None
    assert recipe.site.kinds == ("golden-set", "adapter")
    assert recipe.models[0].template is not None
    assert recipe.models[0].template.accepted.by == "Anna Berg"
    (error,) = _refused(tmp_path, text.replace("golden-set", "runtime"))
    assert "site.kinds[0]" in error.subject
