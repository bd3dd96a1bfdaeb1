"""A host with a bundle that can be installed in two seconds: real wheels, uv, signatures and programs, but tiny ones.

Its `llama-bench` is a shell script whose answer depends on the CPU variant that lies beside it: one dies as on a
processor that lacks an instruction, one never answers, two run. Both compute the same: its environment holds a program
of ours that writes the logits which a real one would take from a model.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.chunking.bundle_writer import BundleWriter
from appliance.builder.chunking.chunker import Source, store
from appliance.builder.wheels.reader import wheel_members, wheel_record
from appliance.host.activation.switch import complete, point_at, target_of
from appliance.host.change.rollback_program import install_rollback_program
from appliance.host.install.importer import accept, import_files, import_layout
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.install_lock import hold
from appliance.host.layout.places import SITE_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.playbook.ansible_run import variables
from appliance.host.process.programs import Programs
from appliance.host.release.bootstrap import extract_uv, find_python, make_venv
from appliance.host.release.environment import Interpreter, build_environment
from appliance.host.release.release import Release, open_current
from appliance.host.release.release_check import describe
from appliance.host.release.release_json import Facts
from appliance.host.runtime.extraction import prepare_runtime
from appliance.host.site.config import SiteConfig
from appliance.keys.publication import publish
from appliance.keys.tuf_repository import read_newest
from appliance.keys.workspace import Workspace, create_development
from bundles.bundle import Bundle, open_bundle
from bundles.contents.contents import Contents, Model, Needs, Serve, Target
from bundles.contents.contents_json import write_contents
from bundles.contents.lineage import Lineage
from bundles.oci.layout import LAYOUT_BYTES, LAYOUT_FILE, Layout, target_path
from bundles.oci.manifest import write_manifest
from bundles.progress import ignore
from signing.digest import sha256
from signing.floors import Floors
from signing.strictjson import to_file
from signing.verified import Verified
from tests.sim.gguf_files import gguf
from tests.toy import NOW, unsealed

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
VARIANTS = ("sapphirerapids", "zen4", "haswell", "x64")
BENCH = """#!/bin/sh
case "$(ls)" in
*sapphirerapids*) kill -ILL $$ ;;
*zen4*) exec sleep 600 ;;
*haswell*) speed="320.4 91.6" ;;
*) speed="27.2 14.1" ;;
esac
set -- $speed
echo loading
echo "["
echo "{\\"n_prompt\\": 16, \\"n_gen\\": 0, \\"samples_ts\\": [$1]},"
echo "{\\"n_prompt\\": 0, \\"n_gen\\": 8, \\"samples_ts\\": [$2]}"
echo "]"
"""
LOGITS = b"""import array, pathlib, sys
pathlib.Path(sys.argv[6]).write_bytes(array.array("f", [1.0, 2.0, 3.0, 1.0, 2.0, 4.0]).tobytes())
"""
Files = dict[str, tuple[bytes, int]]
"""The bytes and the mode of each file, by path."""
PROGRAM = {"appliance/__init__.py": (b"", 0o644), "appliance/host/__init__.py": (b"", 0o644)}
PROGRAM["appliance/host/logits.py"] = (LOGITS, 0o644)
RUNTIME = {
    "llama_cpp/__init__.py": (b"", 0o644),
    "llama_cpp/lib/llama-bench": (BENCH.encode(), 0o755),
    "llama_cpp/lib/llama-server": (b"#!/bin/sh\nexit 1\n", 0o755),
    "llama_cpp/lib/libggml.so": (b"a library", 0o644),
    **{f"llama_cpp/lib/libggml-cpu-{name}.so": (f"for {name}".encode(), 0o644) for name in VARIANTS},
}


def write_wheel(folder: Path, name: str, version: str, files: Files) -> Path:
    """A valid wheel."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": (f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(), 0o644),
        f"{info}/WHEEL": (b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n", 0o644),
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for path, (data, _) in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        writer.writerow([path, f"sha256={digest}", len(data)])
    writer.writerow([f"{info}/RECORD", "", ""])
    files[f"{info}/RECORD"] = (text.getvalue().encode(), 0o644)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, (data, mode) in files.items():
            entry = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, (0o100000 | mode) << 16
            archive.writestr(entry, data)
    return wheel


def write_program(folder: Path, files: Files) -> Path:
    """The wheel of this program, with other files."""
    return write_wheel(folder, "airgap_appliance", "0.0.1", files)


def uv_wheel(folder: Path) -> Path:
    """A wheel like uv's own, whose program is the uv of the environment that the tests run in."""
    from uv import find_uv_bin

    script = f'#!/bin/sh\nexec "{find_uv_bin()}" "$@"\n'.encode()
    return write_wheel(folder, "uv", "1.0", {"uv-1.0.data/scripts/uv": (script, 0o755)})


def _sources(folder: Path, note: str, program: Callable[[Path], Path] | None, weights: bytes) -> list[Source]:
    folder.mkdir(exist_ok=True)
    own = write_wheel(folder, "greeter", "2.0", {"greeter/__init__.py": (f"NOTE = {note!r}\n".encode(), 0o644)})
    packed = program(folder) if program else write_program(folder, PROGRAM)
    runtime = write_wheel(folder, "llama_cpp_python", "0.0.1", RUNTIME)
    uv = uv_wheel(folder)
    model = folder / "toy.gguf"
    model.write_bytes(weights)
    return [
        Source("models/toy/toy.gguf", "model", file=model),
        Source(f"wheels/{own.name}", "wheel", file=own, record=wheel_record(own)),
        Source(
            f"wheels/{packed.name}", "wheel", file=packed, record=wheel_record(packed), bootstrap=program is not None
        ),
        Source(f"tools/{uv.name}", "tool", file=uv, record=wheel_record(uv)),
        Source(
            f"runtime/{runtime.name}",
            "runtime",
            file=runtime,
            record=wheel_record(runtime),
            members=wheel_members(runtime),
        ),
        Source("playbooks/site.yml", "playbook", data=b"---\n"),
        Source("licences/toy/LICENSE", "licence", data=b"free\n"),
        Source("config/recipe.yaml", "config", data=b"name: toy\n"),
    ]


def build_bundle(
    workspace: Workspace,
    version: str = "1.0.0",
    note: str = "one",
    extra: Sequence[Source] = (),
    *,
    program: Callable[[Path], Path] | None = None,
    weights: bytes = b"",
) -> Path:
    """A signed bundle that this machine can install up to the point where an engine has to answer.

    Args:
        workspace: who signs.
        version: of the bundle.
        note: differs from bundle to bundle.
        extra: more files.
        program: writes the wheel of this program into a folder, for a host without one; None brings no such program.
        weights: a GGUF in place of a tiny one.
    """
    folder = workspace.path / "sources"
    sources = [*_sources(folder, note, program, weights or gguf()), *extra]
    model = folder / "toy.gguf"
    writer = BundleWriter(workspace.dist / f"toy-{version}")
    stored = [store(source, writer) for source in sorted(sources, key=lambda source: source.path)]
    header = next(header for _, header in stored if header is not None)
    contents = Contents(
        name="toy",
        version=version,
        source_date_epoch=1_700_000_000,
        targets=(Target("debian-12", "x86_64", (PYTHON,)),),
        needs=Needs("2.17", "3.4.19", "1.3", VARIANTS, 1 << 20, 1 << 20),
        serve=Serve(2),
        models=(
            Model(
                name="toy",
                path="models/toy/toy.gguf",
                architecture=header.architecture,
                parameters=header.parameters,
                quantisation=header.quantisation,
                context=64,
                tensors=header.tensors_digest,
                template=header.template_digest,
                licence="Apache-2.0",
                lineage=Lineage("file:toy.gguf", sha256(model.read_bytes()), model.stat().st_size),
            ),
        ),
        files=tuple(file for file, _ in stored),
    )
    config = write_contents(contents)
    writer.put(config)
    manifest = write_manifest(contents, config)
    publish(workspace, "toy", version, manifest, NOW)
    small = {f"metadata/{name}": data for name, data in read_newest(workspace).items()}
    small[target_path("toy", version, sha256(manifest))] = manifest
    small[LAYOUT_FILE] = LAYOUT_BYTES
    return unsealed(writer.finish(manifest, small))


def write_configuration(prefix: Prefix, release: Path, bundle: Bundle, site: SiteConfig) -> int:
    """Write what the playbooks render below a prefix; returns how many files were changed."""
    values = variables(prefix, release, bundle, site)
    models = values["appliance_models"]
    runtime = {"runtime": str(release / "runtime")}
    choices = values["appliance_choices"]
    files = {f"engine-{model['name']}.json": {**model, **runtime, **choices[model["name"]]} for model in models}
    files["gateway.json"] = {
        "bind": values["appliance_bind"],
        "port": values["appliance_port"],
        "tls": values["appliance_tls"],
        "cors": values["appliance_cors"],
        "models": [model["name"] for model in models],
        "release": values["appliance_identity"],
        "limits": values["appliance_limits"],
    }
    (release / "config").mkdir(exist_ok=True)
    return sum(write_file(release / "config" / name, to_file(value)) for name, value in files.items())


@dataclass
class SimHost:
    """A prefix, a workspace and its bundle.

    Args:
        prefix: the host.
        workspace: who signs.
        source: the bundle's folder.
    """

    prefix: Prefix
    workspace: Workspace
    source: Path

    @property
    def trust(self) -> bytes:
        """The root file of the workspace."""
        return self.workspace.root_file.read_bytes()

    def verify(self) -> Verified[Bundle]:
        """The bundle, as its chain proves it."""
        return open_bundle(self.source, self.trust, Floors(), NOW)

    def install(self, site: SiteConfig = SiteConfig()) -> Release:  # noqa: B008 - a value that nobody can change
        """Everything that an install does but Ansible and the engine; the site's file is that of `site`."""
        found = self.verify()
        contents = found.value.contents
        path = self.prefix.release_path(contents.version, found.value.manifest)
        self.prefix.create()
        with hold(self.prefix) as lock:
            programs = Programs(self.prefix.scratch, lock)
            accept(self.prefix, found, self.trust)
            found = import_layout(Layout(self.source), path, found, self.trust, NOW)
            import_files(self.prefix, Layout(self.source), path, found.value, ignore)
            python = self.python()
            uv = extract_uv(self.prefix, path, contents, self.prefix.scratch)
            make_venv(path, python, programs)
            build_environment(self.prefix, path, contents, python, programs, uv)
            choice = prepare_runtime(self.prefix, path, contents, ("haswell", "x64"), programs, ignore)
            write_configuration(self.prefix, path, found.value, site)
            write_file(path / SITE_FILE, site.data)
            if site.data:
                write_file(self.prefix.site_file, site.data)
            config = {}
            for name in ("config/gateway.json", "config/engine-toy.json"):
                described = describe(path / name)
                assert described is not None
                config[name] = described[1]
            facts = Facts(
                name=contents.name,
                version=contents.version,
                manifest=found.value.manifest,
                cpu_variant=choice.variant,
                tokens_per_s=choice.generated_tokens_per_s,
                isolation=programs.isolation,
                python=str(python.path),
                python_version=python.version,
                site=site.digest,
                config=config,
            )
        install_rollback_program(self.prefix)
        complete(path, facts)
        point_at(self.prefix, target_of(self.prefix, path))
        return open_current(self.prefix, NOW)

    def python(self) -> Interpreter:
        """A Python of this machine of the version that the tests run with."""
        found = find_python((PYTHON,), str(Path(sys.executable).parent))
        assert found is not None
        return found


def new_host(folder: Path, program: Callable[[Path], Path] | None = None) -> SimHost:
    """A workspace with a bundle, and an empty prefix; see `build_bundle`."""
    workspace, _ = create_development(folder / "workspace", NOW)
    return SimHost(Prefix.at(folder / "host"), workspace, build_bundle(workspace, program=program))
