"""Nothing is signed that the bundle's own engine does not load: it answers with every model once, in the empty tree."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache
from appliance.builder.debian.rootfs import DEBIAN_12, FOLDER
from appliance.builder.proof import model_trial
from appliance.builder.proof.model_trial import TrialModel, try_models
from appliance.builder.proof.sandbox import SandboxResult
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.recipe.recipe import Recipe
from appliance.builder.runtime.build_types import BuiltRuntime
from signing.digest import sha256
from signing.errors import ApplianceError, HostUnfitError, NotTrustedError
from tests.appliance.builder.proof.test_closure_proof import NOBODY, in_own_mounts, open_folder
from tests.appliance.web import write_recipe
from tests.bed.fixtures import tree_folder
from tests.sim.engines import stand_in_for
from tests.sim.gguf_files import gguf
from tests.sim.gguf_models import number_key

__all__ = ["open_folder"]  # a fixture
VARIANTS = ("x64", "haswell")
RANKER = [number_key("llama.pooling_type", 4)]
EMBEDDER = [number_key("llama.pooling_type", 1), number_key("llama.embedding_length", 8)]


class Trial:
    """A recipe, a runtime whose engine is the stand-in, and a cache that holds nothing but the tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = Cache(folder / "cache")
        (self.cache.folder(FOLDER) / DEBIAN_12.key()).symlink_to(tree_folder(DEBIAN_12))
        wheel = folder / "llama_cpp_python-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("llama_cpp/lib/llama-server", stand_in_for("/usr/bin/python3"))
            for name in VARIANTS:
                archive.writestr(f"llama_cpp/lib/libggml-cpu-{name}.so", name)
        digest = sha256(wheel.read_bytes())
        self.runtime = BuiltRuntime(wheel, digest, 1, 1, "1.0", VARIANTS, "2.34", "3.4.30", "1.3.13", {}, ())

    def recipe(self, arch: str = "x86_64") -> Recipe:
        targets = f'targets: [{{os: debian-12, arch: {arch}, python: ["3.11"]}}]'
        return load_recipe(write_recipe(self.folder, "file:tiny.gguf", targets=targets))

    def model(self, data: bytes, context: int = 64) -> TrialModel:
        path = self.folder / "model.gguf"
        path.write_bytes(data)
        return TrialModel("tiny", "models/tiny/tiny.gguf", path, sha256(data), context)

    def run(self, model: TrialModel, runtime: BuiltRuntime | None = None, arch: str = "x86_64") -> int:
        return try_models(self.recipe(arch), [model], runtime or self.runtime, [], self.cache)

    def refused(self, model: TrialModel) -> ApplianceError:
        """Assert that a model is refused, and that a second build would try it again."""
        with pytest.raises(ApplianceError) as caught:
            self.run(model)
        assert not list(self.cache.folder("proof").iterdir())
        return caught.value


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_model_is_tried_once_for_its_bytes_the_runtime_and_the_context(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trial.model(gguf())
    assert trial.run(model) == 1

    def again(*_: object) -> None:
        raise AssertionError("tried again")

    monkeypatch.setattr(model_trial, "_try", again)
    assert trial.run(replace(model, name="another")) == 0
    other = replace(trial.runtime, sha256=sha256(b"another wheel"))
    for changed, runtime in ((replace(model, context=65), trial.runtime), (model, other)):
        with pytest.raises(AssertionError, match="tried again"):
            trial.run(changed, runtime)
    with pytest.raises(AssertionError, match="tried again"):
        trial.run(trial.model(gguf(tail=b"other bytes")))


def test_model_that_the_engine_does_not_load_is_named_with_the_engines_reason(trial: Trial) -> None:
    error = trial.refused(trial.model(gguf(tail=b"BAD HEAD")))
    assert (error.code, error.subject, error.exit_code) == ("model.not-loaded", "model tiny", 1)
    assert error.found == "invalid magic"


def test_model_that_our_parser_refuses_reaches_no_engine(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_trial, "run_in", None)
    with pytest.raises(NotTrustedError, match=r"gguf\.refused"):
        trial.run(trial.model(b"<!DOCTYPE html>"))


def test_model_with_which_the_engine_does_not_answer_is_named(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_trial, "SENTENCE", "fail")
    error = trial.refused(trial.model(gguf()))
    assert (error.code, error.exit_code, error.found) == ("model.no-answer", 1, "status 400: too long")


def test_engine_that_dies_at_the_question_is_no_answer(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_trial, "SENTENCE", "die")
    error = trial.refused(trial.model(gguf()))
    assert (error.code, error.exit_code) == ("model.not-loaded", 1)
    assert "exit status 134" in error.found


def test_embedder_embeds_the_sentence(trial: Trial) -> None:
    assert trial.run(trial.model(gguf(EMBEDDER))) == 1


@pytest.mark.parametrize("sentence", ["short", "zero", "nan"])
def test_embedding_that_is_none_fails_the_build(trial: Trial, monkeypatch: pytest.MonkeyPatch, sentence: str) -> None:
    monkeypatch.setattr(model_trial, "SENTENCE", sentence)
    error = trial.refused(trial.model(gguf(EMBEDDER)))
    assert (error.code, error.expected) == ("model.no-answer", "an embedding of one sentence")


def test_reranker_ranks_two_sentences(trial: Trial) -> None:
    assert trial.run(trial.model(gguf(RANKER))) == 1


@pytest.mark.parametrize("sentence", [model_trial.SENTENCE, "nan"])
def test_reranker_without_two_scores_that_differ_fails_the_build(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, sentence: str
) -> None:
    monkeypatch.setattr(model_trial, "OTHER_SENTENCE", sentence)
    error = trial.refused(trial.model(gguf(RANKER)))
    assert (error.code, error.expected) == ("model.no-answer", "two scores of two sentences")


def test_machine_with_too_little_memory_is_unfit_before_the_engine_starts(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:       1 kB\n")
    monkeypatch.setattr(model_trial, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(model_trial, "run_in", None)
    error = trial.refused(trial.model(gguf()))
    assert (error.code, error.exit_code, error.found) == ("model.memory", 6, "1024 bytes")
    assert "more memory" in error.hint


def test_engine_that_the_system_ends_for_memory_makes_the_machine_unfit(trial: Trial) -> None:
    error = trial.refused(trial.model(gguf(tail=b"KILL ME!")))
    assert (error.code, error.exit_code) == ("model.memory", 6)
    assert "SIGKILL" in error.found


def test_target_of_another_architecture_is_refused_with_the_remedy(trial: Trial) -> None:
    with pytest.raises(HostUnfitError) as caught:
        trial.run(trial.model(gguf()), arch="aarch64")
    assert (caught.value.code, caught.value.hint) == ("closure.unproven", "build on a machine of aarch64")


def test_next_cpu_variant_is_tried_after_an_illegal_instruction_and_none_is_no_fault_of_the_model(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = frozenset({"sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"})
    monkeypatch.setattr(model_trial, "read_cpu_flags", lambda: flags)
    error = trial.refused(trial.model(gguf(tail=b"NEW CPU!")))
    assert (error.code, error.exit_code) == ("model.untried", 6)
    assert trial.run(trial.model(gguf(tail=b"OLD CPU!"))) == 1


def test_engine_cannot_write_to_the_model(trial: Trial) -> None:
    data = gguf(tail=b"WRITE ME")
    model = trial.model(data)
    assert trial.run(model) == 1
    assert model.file.read_bytes() == data


@pytest.mark.ci
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests here are by an ordinary user already")
def test_ordinary_user_tries_it_too_and_the_engine_cannot_write_to_the_users_own_file(
    trial: Trial, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trial.run(trial.model(gguf())) == 1  # loads what an ordinary user cannot read here
    tree, where = tree_folder(DEBIAN_12), open_folder / "tree"
    where.mkdir()
    monkeypatch.setattr(f"{__name__}.tree_folder", lambda _: where)
    theirs, data = Trial(open_folder), gguf(tail=b"WRITE ME")
    model, recipe = theirs.model(data), theirs.recipe()
    for path in open_folder.rglob("*"):
        if path != where and not path.is_symlink():
            path.chmod(0o777 if path.is_dir() else 0o644)
    os.chown(model.file, NOBODY, NOBODY)

    def act() -> None:
        subprocess.run(["mount", "--bind", tree, where], check=True)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        assert try_models(recipe, [model], theirs.runtime, [], theirs.cache) == 1

    assert in_own_mounts(act) == 0
    assert model.file.read_bytes() == data


def test_bytes_that_differ_from_the_lock_are_not_on_record(trial: Trial) -> None:
    model = trial.model(gguf())
    model.file.write_bytes(gguf(tail=b"changed since"))
    assert trial.run(model) == 0
    assert not list(trial.cache.folder("proof").iterdir())


@pytest.mark.parametrize("output", ["", "[" * 100_000, "{}", json.dumps({"code": None, "log": "", "status": "x"})])
def test_trial_without_a_result_is_none(trial: Trial, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    result = SandboxResult(3, output, "some\ncomplaint")
    monkeypatch.setattr(model_trial, "run_in", lambda *_, **__: result)
    error = trial.refused(trial.model(gguf()))
    assert (error.code, error.found) == ("model.not-loaded", "some / complaint")
