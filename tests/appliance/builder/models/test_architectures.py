"""The architectures that may be locked are those of the very runtime that is built, read from its sources."""

from __future__ import annotations

import re
import tarfile
from functools import cache
from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache
from appliance.builder.models.architectures import cached_architectures, runtime_architectures
from bundles.gguf.kind import DIFFUSION, ENCODERS, MAX_TENSOR_NAME, OTHERS
from signing.digest import sha256
from signing.errors import DamagedError
from tests.appliance.shipped import shipped_sdist
from tests.appliance.web import sdist

SOURCES = "/vendor/llama.cpp/"


@cache
def sources() -> dict[str, str]:
    """The files of the shipped sdist that this module reads, by their path in llama.cpp."""
    wanted = re.compile(r"(src/llama-(arch|model)\.cpp|src/models/[\w-]+\.cpp|ggml/include/ggml\.h)$")
    found = {}
    with tarfile.open(shipped_sdist(), "r|gz") as archive:
        for member in archive:
            path = member.name.partition(SOURCES)[2]
            stream = archive.extractfile(member) if wanted.match(path) else None
            if stream is not None:
                found[path] = stream.read().decode()
    return found


@cache
def names() -> dict[str, str]:
    """`general.architecture` by the name of its constant."""
    table = sources()["src/llama-arch.cpp"].partition("LLM_ARCH_NAMES")[2].partition("};")[0]
    return dict(re.findall(r'\{ (LLM_ARCH_\w+), +"([^"(]+)" ', table))


def listed_in(file: str, function: str) -> set[str]:
    """The architectures for which a function of llama.cpp returns true: those before its first `return`."""
    body = sources()[file].partition(f"bool {function}(")[2].partition("return true")[0]
    return {names()[constant] for constant in re.findall(r"case (LLM_ARCH_\w+):", body)}


def test_list_is_that_of_the_shipped_sources(tmp_path: Path) -> None:
    path, cache_ = shipped_sdist(), Cache(tmp_path)
    found = runtime_architectures(path, sha256(b"as the lock names it"), cache_)
    assert found == set(names().values())
    assert {"llama", "qwen3", "bert", "gpt-oss"} <= found
    assert cached_architectures(cache_) == found


def test_second_look_reads_no_sdist(tmp_path: Path) -> None:
    path, cache_ = tmp_path / "sdist.tar.gz", Cache(tmp_path / "cache")
    path.write_bytes(sdist("llama_cpp_python", "0.3.36"))
    digest = sha256(path.read_bytes())
    assert cached_architectures(cache_) is None
    assert runtime_architectures(path, digest, cache_) == {"llama", "bert"}
    path.unlink()
    assert runtime_architectures(path, digest, cache_) == {"llama", "bert"}


@pytest.mark.parametrize("kind", ["empty", "no archive", "cut off"])
def test_sdist_without_the_list_is_an_error(tmp_path: Path, kind: str) -> None:
    # Not as parameters: an archive holds the time, and the processes of one run must name the tests alike.
    whole = sdist("llama_cpp_python", "0.3.36")
    data = {"empty": b"", "no archive": b"no archive", "cut off": whole[:90]}[kind]
    path = tmp_path / "sdist.tar.gz"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="runtime.sdist-unreadable"):
        runtime_architectures(path, sha256(data), Cache(tmp_path / "cache"))


def test_what_is_no_chat_model_is_that_of_the_shipped_sources() -> None:
    known = set(names().values())
    assert ENCODERS | DIFFUSION | OTHERS.keys() <= known
    assert listed_in("src/llama-arch.cpp", "llm_arch_is_diffusion") == DIFFUSION
    assert listed_in("src/llama-model.cpp", "llama_model_has_encoder") <= ENCODERS | OTHERS.keys()
    # Encoders compute no logits. llama-embed shares the graph of llama.
    for name in ENCODERS - {"llama-embed"}:
        text = sources()[f"src/models/{name}.cpp"]
        assert "t_logits" not in text, name


def test_longest_name_of_a_tensor_is_that_of_the_shipped_sources() -> None:
    [limit] = re.findall(r"define GGML_MAX_NAME +(\d+)", sources()["ggml/include/ggml.h"])
    assert int(limit) == MAX_TENSOR_NAME + 1
