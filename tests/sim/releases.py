"""An installed release as far as serving looks at it: a real signed bundle, its model, and a stand-in engine."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from appliance.engine_program import PROGRAM
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import Release
from appliance.host.release.release_json import Facts
from appliance.host.trust.trust_store import write_root
from bundles.bundle import open_bundle
from bundles.contents.contents import Contents, Member
from signing.digest import Digest, sha256
from signing.floors import Floors
from signing.strictjson import to_file
from tests.sim.engines import make_runtime
from tests.toy import NOW, build_toy


def install_toy(folder: Path, now: datetime = NOW, slots: int = 2, version: str = "1.0.0") -> Release:
    """A release of the toy bundle below `folder`, whose environment is that of the tests."""
    workspace, bundle_path = build_toy(folder / "workspace", version)
    prefix = Prefix.at(folder / "host")
    prefix.create()
    root = workspace.root_file.read_bytes()
    write_root(prefix, root)
    bundle = open_bundle(bundle_path, root, Floors(), now)
    contents = bundle.value.contents
    path = prefix.release_path(contents.version, bundle.value.manifest)
    make_runtime(path / "runtime")
    bundle.value = replace(bundle.value, contents=_with_engine(contents, path / "runtime" / PROGRAM))
    (path / "venv" / "bin").mkdir(parents=True)
    (path / "venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (path / "venv" / "bin" / "python").chmod(0o755)
    release = Release(path, prefix, bundle, _facts(version, bundle.value.manifest))
    for model in contents.models:
        file, store = release.model_file(model)
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_bytes((folder / "workspace" / "toy.gguf").read_bytes())
        engine = {"name": model.name, "model": model.path, "store": str(store), "runtime": str(release.runtime)}
        write_config(release, f"engine-{model.name}.json", {**engine, "context": model.context, "slots": slots})
    identity = {"name": contents.name, "version": contents.version, "manifest": bundle.value.manifest}
    models = [model.name for model in contents.models]
    write_config(release, "gateway.json", {"bind": "127.0.0.1", "port": 0, "models": models, "release": identity})
    return release


def write_config(release: Release, name: str, value: object) -> None:
    """Write a file as Ansible would have rendered it."""
    release.config.mkdir(exist_ok=True)
    (release.config / name).write_bytes(to_file(value))


def _with_engine(contents: Contents, program: Path) -> Contents:
    # The toy's runtime is no wheel: its contents do not name the program that a real one brings.
    data = program.read_bytes()
    member = Member(f"llama_cpp/lib/{program.name}", len(data), sha256(data), sha256(b"unused"), 0o755)
    files = (replace(file, members=(member,)) if file.kind == "runtime" else file for file in contents.files)
    return replace(contents, files=tuple(files))


def _facts(version: str, manifest: Digest) -> Facts:
    return Facts("toy", version, manifest, "x64", 1, "netns", sys.executable, "3.11.2", sha256(b""), {})
