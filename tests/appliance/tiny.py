"""A whole build of a few kilobytes: everything but what is fetched and compiled is real."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from unittest import mock

from appliance.builder.assembly import assembler as assembling
from appliance.builder.assembly.assembler import Built, assemble
from appliance.builder.assembly.inputs import LIBRARIES
from appliance.builder.bills.bill_inputs import Gathered, GatheredModel
from appliance.builder.cache.content_store import Cache
from appliance.builder.chunking.chunker import Source
from appliance.builder.compare.rebuild import Rebuilt, rebuild
from appliance.builder.lock.lockfile import RUNTIME, Lock, Locked, lock_path, write_lock
from appliance.builder.runtime.build_types import BuiltRuntime
from appliance.builder.wheels.reader import wheel_members, wheel_record
from appliance.keys.workspace import Workspace, create_development
from bundles.contents.lineage import Lineage
from bundles.progress import ignore
from signing.digest import sha256
from tests.appliance.web import wheel, write_recipe
from tests.sim.gguf_files import gguf, string_key
from tests.toy import NOW

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
READER = "Anna Berg"
EPOCH = 1_700_000_000
RUNTIME_WHEEL = "llama_cpp_python-0.3.36+appliance.0a1b2c3d-py3-none-manylinux_2_34_x86_64.whl"


@dataclass
class TinyBuild:
    """One model, one runtime, three wheels, a tool, an OS package; change the fields, then `build`.

    Args:
        folder: of the recipe, the sources and the workspace.
        template: of the model; None for none.
        wheels: by file name.
        extra: further sources.
        steps: what was done to the model.
        version: of the bundle.
        now: what the builder's clock says.
        last_releases: the day of the last release of some distributions, by name, as the lock records it.
        engine: the program in place of the engine, with which the model is then tried; None tries nothing.
        tail: bytes after the model's weights, for a stand-in of the engine.
        accepted: the text of the template that `READER` has accepted in the recipe; None for none.
        keys: more of the model's header.
    """

    folder: Path
    template: str | None = TEMPLATE
    wheels: dict[str, bytes] | None = None
    extra: Sequence[Source] = ()
    steps: tuple[str, ...] = ()
    version: str = "1.0.0"
    now: datetime = NOW
    last_releases: Mapping[str, str] = field(default_factory=dict)
    engine: bytes | None = None
    tail: bytes = b""
    accepted: str | None = None
    keys: Sequence[bytes] = ()

    def build(self) -> Built:
        """Assemble the bundle."""
        with self.staged() as recipe:
            return assemble(recipe, self.workspace, self.cache, self.now, ignore)

    def check(self) -> Rebuilt:
        """Build it again and compare."""
        with self.staged() as recipe:
            return rebuild(recipe, self.workspace, self.cache, ignore)

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """The recipe, its lock and its sources; inside the block a build finds them instead of fetching."""
        self.folder.mkdir(parents=True, exist_ok=True)
        recipe = write_recipe(self.folder, "file:tiny.gguf", version=f"version: {self.version}")
        if self.accepted is not None:
            digest = sha256(self.accepted.encode())
            stated = f'context: 64, template: {{accepted: {{by: {READER}, date: "2026-01-31", sha256: "{digest}"}}}}'
            recipe.write_text(recipe.read_text().replace("context: 64", stated))
        wheels = self.wheels if self.wheels is not None else default_wheels()
        files = {name: self._put(name, data) for name, data in wheels.items()}
        entries = [self._locked("wheel", path, name.partition("-")[0]) for name, path in files.items()]
        tool = self._put("uv-0.9-py3-none-any.whl", wheel("uv", "0.9", licence="MIT OR Apache-2.0"))
        package = self._put("tool_1-2.3_amd64.deb", b"!<arch>\nno real package\n")
        keys = [] if self.template is None else [string_key("tokenizer.chat_template", self.template)]
        model = self._put("tiny.gguf", gguf([*keys, *self.keys], tail=self.tail))
        entries += [
            replace(self._locked("tool", tool, "uv"), version="0.9"),
            replace(self._locked("os-package", package, "tool"), version="1:2.3", licence="", system="debian-12"),
            replace(self._locked("model", model, "tiny"), version="", source="file:tiny.gguf"),
            Locked("sdist", RUNTIME, "0.3.36", f"{RUNTIME}.tar.gz", 1, sha256(b"sdist"), "MIT"),
            Locked("build-tool", "cmake", "4.0", "cmake.whl", 1, sha256(b"cmake"), "Apache 2.0"),
        ]
        write_lock(lock_path(recipe), Lock(EPOCH, (), tuple(sorted(entries, key=lambda one: (one.kind, one.name)))))
        gathered = self._gather(recipe, files, tool, package, model)
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(assembling, "gather", return_value=gathered))
            stack.enter_context(mock.patch.object(assembling, "check_covers", return_value=None))
            stack.enter_context(mock.patch.object(assembling, "prove", return_value=None))
            if self.engine is None:
                stack.enter_context(mock.patch.object(assembling, "try_models", return_value=0))
            yield recipe

    @property
    def cache(self) -> Cache:
        """Of this build alone."""
        return Cache(self.folder / "cache")

    @property
    def workspace(self) -> Workspace:
        """Made when first asked for."""
        path = self.folder / "workspace"
        return create_development(path, self.now)[0]

    def _gather(self, recipe: Path, wheels: dict[str, Path], tool: Path, package: Path, model: Path) -> Gathered:
        runtime = self._runtime()
        entry = self._locked("model", model, "tiny")
        made = GatheredModel(
            "tiny",
            Source("models/tiny/tiny.gguf", "model", file=model, sha256=entry.sha256),
            Lineage("file:tiny.gguf", entry.sha256, entry.size, self.steps),
        )
        packed = [
            made.source,
            *(
                Source(
                    f"wheels/{name}", "wheel", file=path, sha256=sha256(path.read_bytes()), record=wheel_record(path)
                )
                for name, path in wheels.items()
            ),
            Source(f"tools/{tool.name}", "tool", file=tool, record=wheel_record(tool)),
            Source(
                f"runtime/{runtime.path.name}",
                "runtime",
                file=runtime.path,
                record=wheel_record(runtime.path),
                members=wheel_members(runtime.path, LIBRARIES),
            ),
            # No real package: it cannot be installed where the engine is tried.
            *([Source(f"os-packages/debian-12/{package.name}", "os-package", file=package)] * (self.engine is None)),
            Source("config/recipe.yaml", "config", data=recipe.read_bytes()),
            Source("config/lock.json", "config", data=lock_path(recipe).read_bytes()),
            Source("licences/alpha/LICENSE", "licence", data=b"the licence of alpha\n"),
            Source("playbooks/site.yml", "playbook", data=b"- hosts: all\n"),
            *self.extra,
        ]
        ordered = tuple(sorted(packed, key=lambda source: source.path))
        return Gathered(ordered, (made,), runtime, (*wheels.values(), runtime.path))

    def _runtime(self) -> BuiltRuntime:
        members = {
            f"{LIBRARIES}/llama-server": self.engine or b"\x7fELF server",
            f"{LIBRARIES}/libllama.so": b"\x7fELF library",
        }
        if self.engine is not None:
            members |= {f"{LIBRARIES}/libggml-cpu-{name}.so": b"\x7fELF variant" for name in ("x64", "haswell")}
        data = wheel("llama-cpp-python", "0.3.36+appliance.0a1b2c3d", files=members, requires=["alpha>=1"])
        path = self._put(RUNTIME_WHEEL, data)
        toolchain = {"gcc": "gcc 12.2.0", "cmake": "4.0", "cmake_sha256": sha256(b"cmake")}
        flags = ("GGML_NATIVE=OFF", "GGML_BACKEND_DL=ON")
        version = "0.3.36+appliance.0a1b2c3d"
        return BuiltRuntime(
            path, sha256(data), len(data), 22, version, ("x64", "haswell"), "2.34", "3.4.30", "1.3.13", toolchain, flags
        )

    def _put(self, name: str, data: bytes) -> Path:
        path = self.folder / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def _locked(self, kind: str, path: Path, name: str) -> Locked:
        data = path.read_bytes()
        last_release = self.last_releases.get(name)
        return Locked(kind, name, "1.0", path.name, len(data), sha256(data), "MIT", last_release=last_release)


def default_wheels() -> dict[str, bytes]:
    """Three wheels: `alpha` needs `beta` on every Python, and `gamma` on an old one only."""
    requires = ["beta>=1; python_version >= '3.9'", "gamma; python_version < '3.8'", "extra-thing; extra == 'more'"]
    return {
        "alpha-1.0-py3-none-any.whl": wheel("alpha", requires=requires),
        "beta-1.0-py3-none-any.whl": wheel("beta", licence="BSD-3-Clause"),
        "gamma-1.0-py3-none-any.whl": wheel("gamma", licence="A licence of its own"),
    }
