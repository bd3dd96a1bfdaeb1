"""A candidate must answer every golden prompt that the signed contents name for its model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from appliance.host.activation import candidate
from appliance.host.activation.candidate import DEFAULT, candidate_errors, check_model, golden_prompts
from appliance.host.engine.process import Engine, start_engine
from appliance.host.release.release import Release
from bundles.contents.contents import File, Model
from bundles.contents.golden_set import GoldenPrompt
from bundles.contents.lineage import Lineage
from signing.digest import sha256
from signing.errors import ApplyRestoredError, DamagedError
from tests.sim.engines import make_spec, notes

GOLDEN = "golden/toy/01.jsonl"
EMPTY = sha256(b"")
LINEAGE = Lineage("file:toy.gguf", EMPTY, 1)
MODEL = Model("toy", "models/toy/toy.gguf", "llama", 1, "F16", 64, EMPTY, None, "MIT", LINEAGE, golden=(GOLDEN,))


def golden_set(*prompts: tuple[str, str]) -> bytes:
    lines = [json.dumps({"prompt": prompt, "max_tokens": 9, "accept": accept}) for prompt, accept in prompts]
    return "".join(f"{one}\n" for one in lines).encode()


def release_with(folder: Path, data: bytes, signed: bytes | None = None) -> Release:
    """As much of a release as the reading of a golden set needs."""
    digest = sha256(data if signed is None else signed)
    path = folder / GOLDEN
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    contents = SimpleNamespace(by_path={GOLDEN: File(GOLDEN, "golden-set", 0o644, len(data), digest, ())})
    return cast("Release", SimpleNamespace(contents=contents, place=lambda file: folder / file.path))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="golden-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    # The stand-in answers a text with itself, backwards.
    with start_engine(make_spec(folder), folder, folder / "log") as engine:
        engine.wait_ready(20)
        yield engine


def asked(folder: Path) -> list[Any]:
    return [(one["body"]["messages"][-1]["content"], one["body"]["max_tokens"]) for one in notes(folder)[1:]]


def test_every_prompt_is_asked_and_the_last_answer_is_returned(tmp_path: Path, folder: Path, engine: Engine) -> None:
    prompts = golden_prompts(release_with(tmp_path, golden_set(("abc", "^cba$"), ("xyz", "zy"))), MODEL)
    before = len(asked(folder))
    assert check_model(engine, MODEL, prompts) == "zyx"
    assert asked(folder)[before:] == [("abc", 9), ("xyz", 9)]


def test_one_wrong_answer_refuses_the_release_with_exit_7(tmp_path: Path, engine: Engine) -> None:
    prompts = golden_prompts(release_with(tmp_path, golden_set(("abc", "cba"), ("xyz", "Paris"))), MODEL)
    with pytest.raises(ApplyRestoredError) as caught, candidate_errors("toy"):
        check_model(engine, MODEL, prompts)
    assert (caught.value.code, caught.value.exit_code) == ("candidate.wrong-answer", 7)
    assert "'xyz'" in caught.value.expected
    assert "'zyx'" in caught.value.found


def test_set_that_is_not_the_signed_one_is_damaged(tmp_path: Path) -> None:
    release = release_with(tmp_path, golden_set(("abc", ".*")), signed=golden_set(("abc", "^cba$")))
    with pytest.raises(DamagedError, match=r"golden\.damaged"):
        golden_prompts(release, MODEL)
    (tmp_path / GOLDEN).unlink()
    with pytest.raises(DamagedError, match=r"golden\.unreadable"):
        golden_prompts(release, MODEL)


def test_model_without_a_set_is_asked_one_short_prompt(tmp_path: Path) -> None:
    release = release_with(tmp_path, golden_set(("abc", ".*")))
    assert golden_prompts(release, replace(MODEL, golden=())) == (DEFAULT,)
    assert isinstance(DEFAULT, GoldenPrompt)


@pytest.mark.parametrize(("rendered", "level"), [({"min_level": "E4"}, "E4"), ({}, "")])
def test_candidate_is_tried_at_the_level_that_the_site_demands(
    tmp_path: Path, rendered: dict[str, str], level: str
) -> None:
    (tmp_path / "engine-toy.json").write_text(json.dumps({"context": 64, "slots": 1, **rendered}))
    found = (File(MODEL.path, "model", 0o444, 0, EMPTY, ()), tmp_path / "toy.gguf")
    release = SimpleNamespace(config=tmp_path, runtime=tmp_path, model_file=lambda _model: found)
    assert candidate._spec(cast("Release", release), MODEL).min_level == level
