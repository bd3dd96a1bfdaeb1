"""`convert:` in a recipe: what llama.cpp's converter is given, what is pinned, and how its failures are reported."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.builder.assembly.inputs import _FetchContext, _gguf
from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Lock, Locked, read_lock, write_lock
from appliance.builder.models.conversion import NEEDS, ConversionRequest, check_pinned, convert
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.resolve.coverage import check_covers
from appliance.builder.resolve.resolver import lock_recipe
from appliance.builder.sources import download, source_beside
from bundles.progress import ignore
from signing.digest import sha256
from signing.errors import ApplianceError, UsageError
from tests.appliance.web import PackageIndex, Site, serve, wheel, write_recipe
from tests.sim.gguf_files import U32, gguf, text

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
VERSIONS = "numpy 2.0, torch 2.0+cpu, transformers 5.0"
NAMES = ("config.json", "1_Pooling/config.json")
FILES = {"model.safetensors": b"weights", "config.json": b"{}", "1_Pooling/config.json": b'{"mean": true}'}

# Records what it sees, and writes the GGUF that it was given.
CONVERTER = """
import json, os, pathlib, socket, sys
print("INFO: Loading model")
exec(os.environ.get("NEVER_SET", ""))
folder = pathlib.Path(sys.argv[-1])
names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
seen = {"argv": sys.argv[1:], "env": dict(os.environ), "files": names, "folder": folder.name}
seen["network"] = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
pathlib.Path(NOTES).write_text(json.dumps(seen))
DO
out = sys.argv[sys.argv.index("--outfile") + 1]
pathlib.Path(out).write_bytes(bytes.fromhex(RESULT))
"""


def result(file_type: int = 1, more: str = "") -> bytes:
    return gguf(
        [text("general.file_type") + struct.pack("<II", U32, file_type), *([text(more) + bytes(5)] if more else [])]
    )


@dataclass
class Stand:
    """An sdist with a stand-in converter, a Python that seems to have its imports, and the model's files."""

    folder: Path
    made: bytes = result()
    do: str = ""

    def __post_init__(self) -> None:
        for name, data in FILES.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)

    @property
    def sdist(self) -> bytes:
        script = CONVERTER.replace("NOTES", repr(str(self.notes))).replace("RESULT", repr(self.made.hex()))
        members = {
            "PKG-INFO": b"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 0.3.36\nLicense: MIT\n",
            "vendor/llama.cpp/convert_hf_to_gguf.py": script.replace("DO", self.do).encode(),
        }
        out = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w") as archive,
        ):
            for name, data in members.items():
                info = tarfile.TarInfo(f"llama_cpp_python-0.3.36/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    @property
    def notes(self) -> Path:
        return self.folder / "notes.json"

    @property
    def seen(self) -> dict:
        return json.loads(self.notes.read_text())

    def python(self, said: str = VERSIONS.replace(" ", "==").replace(",==", ", ")) -> Path:
        path = self.folder / "python"
        path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && {{ echo "{said}"; exit; }}\nexec {sys.executable} "$@"\n')
        path.chmod(0o755)
        return path

    def request(self, to: str = "F16") -> ConversionRequest:
        return ConversionRequest("tiny", to, sha256(self.sdist), {name: sha256(data) for name, data in FILES.items()})

    def convert(self, request: ConversionRequest | None = None, python: Path | None = None) -> tuple:
        sdist = self.folder / "llama.tar.gz"
        sdist.write_bytes(self.sdist)
        files = {name: self.folder / name for name in FILES}
        found = python or self.python()
        return convert(request or self.request(), sdist, "0.3.36", files, found, self.cache, ignore)

    @property
    def cache(self) -> Cache:
        return Cache(self.folder / "cache")


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_model_is_converted_by_the_sdists_own_converter_and_cached_under_its_digest(stand: Stand) -> None:
    pin, versions = stand.convert()

    assert (pin.file, pin.sha256, pin.size) == ("tiny.F16.gguf", sha256(result()), len(result()))
    assert stand.cache.path(pin.sha256).read_bytes() == result()
    assert versions == VERSIONS
    assert stand.seen["argv"][:4] == ["--outtype", "f16", "--model-name", "tiny"]


def test_converter_sees_the_models_files_no_network_and_nothing_of_this_machines_environment(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "PYTHONPATH", "HTTPS_PROXY", "NEVER_SET"):
        monkeypatch.setenv(name, "raise SystemExit(9)")
    (stand.folder / "evil.py").write_text("raise SystemExit(9)")
    stand.convert()

    assert (stand.seen["folder"], stand.seen["files"]) == ("tiny", sorted(FILES))
    assert stand.seen["network"] == ["lo"]
    names = {"PATH", "LC_ALL", "HOME", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE"}
    assert set(stand.seen["env"]) - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        *names,
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
    }


def test_lineage_names_the_converter_its_arguments_and_a_digest_that_any_shell_can_make(stand: Stand) -> None:
    listed = "".join(f"{sha256(FILES[name])}  {name}\n" for name in sorted(FILES))

    assert stand.request().step == (
        f"convert_hf_to_gguf.py sha256:{sha256(stand.sdist)} --outtype f16 --model-name tiny "
        f"inputs=sha256:{sha256(listed.encode())}"
    )
    other = replace(stand.request(), inputs={**stand.request().inputs, "config.json": sha256(b"{ }")})
    assert other.step != stand.request().step


@pytest.mark.parametrize(
    ("do", "end"),
    [
        ("print('ModelBase: cannot map tensor'); sys.exit(1)", ["ModelBase: cannot map tensor", "exit status 1"]),
        ("print('dying', flush=True); os.abort()", ["dying", "ended by signal 6"]),
    ],
    ids=["a refusal", "a crash"],
)
def test_converter_that_fails_is_reported_with_its_last_lines(do: str, end: list[str], tmp_path: Path) -> None:
    stand = Stand(tmp_path, do=f"print('a line\\n' * 50); {do}")
    with pytest.raises(ApplianceError) as raised:
        stand.convert()

    assert (raised.value.code, raised.value.subject, raised.value.exit_code) == ("convert.failed", "model tiny", 1)
    assert raised.value.found.splitlines()[-2:] == end
    assert len(raised.value.found.splitlines()) < 10
    assert "INFO: Loading model" in Path(raised.value.hint.removeprefix("the whole log: ")).read_text()
    assert not list((stand.cache.root / "partial").iterdir())


def test_model_of_another_type_than_asked_for_is_not_taken(tmp_path: Path) -> None:
    stand = Stand(tmp_path, made=result(0))
    with pytest.raises(ApplianceError) as raised:
        stand.convert()

    assert (raised.value.code, raised.value.found) == ("convert.failed", "F32")
    assert not (stand.cache.root / "sha256").exists()


@pytest.mark.parametrize("said", ["ModuleNotFoundError: torch", ""])
def test_python_without_what_the_converter_imports_is_refused(said: str, stand: Stand) -> None:
    with pytest.raises(UsageError) as raised:
        stand.convert(python=stand.python(said))

    assert (raised.value.code, raised.value.exit_code) == ("convert.no-python", 2)
    assert all(name in raised.value.hint for name in (*NEEDS, "--converter PYTHON"))
    assert not stand.notes.exists()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("pypi:p==1#pack/m/x.safetensors", "pypi:p==1#pack/m/1_Pooling/c.json"),
        ("pypi:p==1#x.safetensors", "pypi:p==1#1_Pooling/c.json"),
        ("hf:o/r#x.safetensors", "hf:o/r#1_Pooling/c.json"),
        (f"hf:o/r@{'1' * 40}#sub/x.safetensors", f"hf:o/r@{'1' * 40}#sub/1_Pooling/c.json"),
        ("https://h.example/a/x.safetensors", "https://h.example/a/1_Pooling/c.json"),
        ("file:x.safetensors", "file:1_Pooling/c.json"),
        ("file:/a/x.safetensors", "file:/a/1_Pooling/c.json"),
    ],
)
def test_file_beside_the_weights_has_the_same_source_with_another_name(source: str, expected: str) -> None:
    assert source_beside(source, "1_Pooling/c.json") == expected


def recipe(
    folder: Path, source: str = "file:model.safetensors", names: str = ", ".join(NAMES), to: str = "F16"
) -> Path:
    words = f"source: '{source}', licence: MIT, context: 64, convert: {{to: {to}, files: [{names}]}}"
    return write_recipe(folder, "", models=f"models: [{{name: tiny, {words}}}]")


@pytest.mark.parametrize(
    "name",
    ["modeling.py", "pytorch_model.bin", "../config.json", "/etc/config.json", "a.pkl", "config.json, config.json"],
)
def test_file_that_may_be_a_program_or_lies_elsewhere_cannot_be_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load_recipe(recipe(tmp_path, names=name))
    assert raised.value.subject.endswith("models[0].convert.files")


@pytest.mark.parametrize("source", ["file:model.bin", "file:model.gguf"])
def test_only_safetensors_are_converted(source: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.safetensors") as raised:
        load_recipe(recipe(tmp_path, source))
    assert raised.value.subject.endswith("models[0].convert")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, stand: Stand) -> Iterator[Site]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    download.close()
    with serve() as site:
        index = PackageIndex(site, "json")
        index.add("llama-cpp-python", "llama_cpp_python-0.3.36.tar.gz", stand.sdist)
        for name, version in (("cmake", "3.31.0"), ("ninja", "1.13.0"), ("uv", "0.9.1"), ("alpha", "1.0")):
            index.add(name, f"{name}-{version}-py3-none-any.whl", wheel(name, version))
        yield site
        download.close()


def lock(
    stand: Stand,
    site: Site,
    path: Path,
    previous: Lock | None = None,
    converter: Path | None = None,
    upgrade: bool = False,
) -> Lock:
    env = {"UV_DEFAULT_INDEX": f"{site.url}/simple", "UV_CACHE_DIR": str(stand.folder / "uv"), "PATH": "/usr/bin:/bin"}
    env |= {"HOME": str(stand.folder), "HF_ENDPOINT": site.url}
    return lock_recipe(
        load_recipe(path),
        path,
        stand.cache,
        previous,
        now=NOW,
        requires=("alpha",),
        env=env,
        converter=converter,
        upgrade=upgrade,
    )


def pinned(found: Lock) -> Locked:
    entry = found.find("converted", "tiny")
    assert entry is not None
    return entry


def test_lock_pins_every_file_and_the_result_and_converts_once(stand: Stand, site: Site) -> None:
    path = recipe(stand.folder)
    with pytest.raises(UsageError, match="convert.no-python"):
        lock(stand, site, path)
    found = lock(stand, site, path, converter=stand.python())

    assert [entry.name for entry in found.files_of("tiny")] == ["tiny/1_Pooling/config.json", "tiny/config.json"]
    assert (pinned(found).sha256, pinned(found).version) == (sha256(result()), VERSIONS)
    assert pinned(found).made == stand.request().step
    check_covers(found, load_recipe(path), path, ("alpha",))
    write_lock(stand.folder / "toy.lock.json", found)
    assert read_lock(stand.folder / "toy.lock.json") == found
    stand.notes.unlink()
    assert lock(stand, site, path, found) == lock(stand, site, path, found, upgrade=True) == found
    assert not stand.notes.exists()


def test_lock_of_other_files_or_another_type_is_stale_and_converts_again(stand: Stand, site: Site) -> None:
    found = lock(stand, site, recipe(stand.folder), converter=stand.python())
    for changes in ({"names": "config.json"}, {"to": "BF16"}):
        asked = recipe(stand.folder, **changes)
        with pytest.raises(UsageError, match="lock.stale"):
            check_covers(found, load_recipe(asked), asked, ("alpha",))
        with pytest.raises(UsageError, match="convert.no-python"):
            lock(stand, site, asked, found)
    path = recipe(stand.folder)
    path.write_text(path.read_text().replace(", convert: {to: F16, files: [config.json, 1_Pooling/config.json]}", ""))
    with pytest.raises(UsageError, match="lock.stale"):
        check_covers(found, load_recipe(path), path, ("alpha",))


def gather_one(stand: Stand, found: Lock, path: Path, converter: Path | None = None) -> bytes:
    [model] = load_recipe(path).models
    return _gguf(model, found, _FetchContext(stand.folder, stand.cache, ignore, converter)).read_bytes()


def test_build_takes_the_pinned_result_from_the_cache_and_needs_neither_python_nor_source(
    stand: Stand, site: Site
) -> None:
    path = recipe(stand.folder)
    found = lock(stand, site, path, converter=stand.python())
    (stand.folder / "model.safetensors").unlink()
    stand.notes.unlink()

    assert gather_one(stand, found, path) == result()
    assert not stand.notes.exists()


def test_build_without_the_result_converts_again_and_takes_nothing_but_the_pinned_bytes(
    stand: Stand, site: Site
) -> None:
    path = recipe(stand.folder)
    found = lock(stand, site, path, converter=stand.python())
    stand.cache.discard(pinned(found).sha256)
    with pytest.raises(UsageError, match="convert.no-python"):
        gather_one(stand, found, path)
    assert gather_one(stand, found, path, stand.python()) == result()

    stand.cache.discard(pinned(found).sha256)
    wrong = replace(pinned(found), sha256=sha256(b"what the lock says"))
    other = replace(found, entries=tuple(wrong if one == pinned(found) else one for one in found.entries))
    with pytest.raises(ApplianceError) as raised:
        gather_one(stand, other, path, stand.python())
    assert raised.value.code == "convert.differs"
    assert VERSIONS in raised.value.expected
    assert not stand.cache.has(sha256(result()), len(result()))


def test_result_that_is_the_pinned_one_stays(stand: Stand) -> None:
    pin, versions = stand.convert()
    check_pinned(
        Locked("converted", "tiny", versions, pin.file, pin.size, pin.sha256, "MIT"), pin, versions, stand.cache
    )
    assert stand.cache.has(pin.sha256, pin.size)


def test_files_of_a_hub_are_pinned_at_one_commit_although_it_moves_in_between(stand: Stand, site: Site) -> None:
    old, new = "1" * 40, "2" * 40
    for name, data in FILES.items():
        # The branch is at the old commit for the weights, and has moved on when the other files are asked for.
        main = old if name == "model.safetensors" else new
        for revision, commit in ((old, old), (new, new), ("main", main)):
            headers = {"X-Repo-Commit": commit, "ETag": f'"{sha256(data)}"', "X-Linked-Etag": f'"{sha256(data)}"'}
            site.put(f"/o/r/resolve/{revision}/{name}", data, headers=headers)
    path = recipe(stand.folder, "hf:o/r#model.safetensors")
    found = lock(stand, site, path, converter=stand.python())

    weights = found.find("model", "tiny")
    assert weights is not None
    assert {entry.version for entry in (weights, *found.files_of("tiny"))} == {old}
    assert lock(stand, site, path, found) == found
