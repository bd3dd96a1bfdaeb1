"""The real runtime, as the cache of this machine holds it: what the build promises about its files."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from appliance.builder.cache.content_store import cache_root
from appliance.builder.recipe.choices import CPU_VARIANTS
from appliance.builder.runtime.build_job import build_runtime
from appliance.builder.runtime.build_types import RuntimeSpec
from appliance.builder.runtime.settings import PROGRAMS
from appliance.builder.runtime.symbols import SYSTEM_LIBRARIES, read_elf
from appliance.builder.wheels.reader import licence_texts, wheel_members
from bundles.contents.wheel_record import parse_record
from bundles.progress import Progress
from signing.digest import sha256
from tests.appliance.shipped import shipped_cache, shipped_runtime, shipped_sdist, shipped_tools

pytestmark = pytest.mark.ci

LOADER = """
import ctypes, os, sys
folder = sys.argv[1]
os.chdir(sys.argv[2])
ggml = ctypes.CDLL(folder + "/libggml.so", mode=ctypes.RTLD_GLOBAL)
ggml.ggml_backend_load.restype = ctypes.c_void_p
ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
assert ggml.ggml_backend_load(os.fsencode(folder + "/libggml-cpu-x64.so"))
llama = ctypes.CDLL(folder + "/libllama.so")
llama.llama_backend_init()
assert ggml.ggml_backend_reg_count() == 1
print(*{line.split()[-1] for line in open("/proc/self/maps") if "ggml-cpu" in line}, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel() -> Path:
    return shipped_runtime().path


@pytest.fixture(scope="module")
def folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs and libraries, with the reference as the only CPU variant, as on a host."""
    folder = tmp_path_factory.mktemp("runtime")
    with zipfile.ZipFile(wheel) as archive:
        for member in wheel_members(wheel):
            path = folder / Path(member.path).name
            if "ggml-cpu" not in path.name or path.name == "libggml-cpu-x64.so":
                path.write_bytes(archive.read(member.path))
                path.chmod(member.mode)
    return folder


def test_each_file_is_there_once_and_is_no_symlink(wheel: Path) -> None:
    members = wheel_members(wheel)
    unique = {member.sha256: member.size for member in members}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert len(unique) == len(members)
    assert sum(member.size for member in members) <= 1.3 * sum(unique.values())
    assert not [name for name in names if name.endswith((".h", ".cmake", ".pc", ".a")) or "/include/" in name]
    assert {Path(member.path).name for member in members if member.mode == 0o755} == set(PROGRAMS)
    built = shipped_runtime()
    assert {f"libggml-cpu-{name}.so" for name in built.variants} <= {Path(member.path).name for member in members}
    assert built.variants == tuple(CPU_VARIANTS)


def test_second_build_takes_the_wheel_from_the_cache_in_less_than_two_seconds(wheel: Path) -> None:
    sdist, tools, cache = shipped_sdist(), shipped_tools(), shipped_cache().root / "runtime"
    spec = RuntimeSpec(shipped_runtime().version.partition("+")[0], "all")
    events: list[Progress] = []
    before = os.times()
    again = build_runtime(sdist, tools, spec, cache, events.append)
    after = os.times()
    # Time on a processor: other work of the machine must not count.
    assert sum(after[:4]) - sum(before[:4]) < 2
    assert (again.path, events) == (wheel, [])


def test_unpacked_size_is_stated_and_little_more_than_the_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        infos = archive.infolist()
        code = {archive.read(info) for info in infos if info.filename.startswith("llama_cpp/lib/")}
        links = [info.filename for info in infos if (info.external_attr >> 16) & 0o170000 != 0o100000]
    stated = shipped_runtime().unpacked_size

    assert stated == sum(info.file_size for info in infos)
    assert stated <= 1.3 * sum(map(len, code))
    assert links == []


def test_no_file_has_symbols_for_debugging_or_a_path_of_this_machine(wheel: Path, tmp_path: Path) -> None:
    private = [str(path).encode() + b"/" for path in (cache_root(os.environ), Path.home()) if len(str(path)) > 3]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            assert not [path for path in private if path in data], name
            if name.startswith("llama_cpp/lib/"):
                (tmp_path / "file").write_bytes(data)
                shown = subprocess.run(
                    ["readelf", "-SW", tmp_path / "file"], capture_output=True, text=True, check=True
                )
                assert not re.search(r" \.(symtab|debug\w*|note\.gnu\.build-id) ", shown.stdout), name


def test_converters_are_complete(wheel: Path) -> None:
    folder = "llama_cpp/convert/"
    with zipfile.ZipFile(wheel) as archive:
        found = {name.removeprefix(folder): archive.read(name) for name in archive.namelist() if folder in name}
    own = {"gguf", "conversion"}
    missing = []
    for path, data in found.items():
        for node in ast.walk(ast.parse(data, path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                home = Path(path).parent.name if node.level else ""
                names = [".".join(filter(None, (home, node.module)))]
            for name in names:
                top, _, rest = name.partition(".")
                base = f"{'gguf-py/' if top == 'gguf' else ''}{name.replace('.', '/')}"
                if top in own and not {f"{base}.py", f"{base}/__init__.py"} & found.keys():
                    missing.append(f"{path}: {name} {rest}")

    assert {"convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "gguf-py/gguf/quants.py"} <= found.keys()
    assert missing == []


def test_record_covers_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entries = parse_record(archive.read(names[-1]), names[-1], wheel.name)
        record = {entry.path: entry.sha256 for entry in entries}
        assert set(record) == set(names[:-1])
        assert all(sha256(archive.read(name)) == digest for name, digest in record.items())


def test_every_file_needs_only_its_neighbours_and_the_c_and_cxx_library(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        elf = read_elf(path)
        assert set(elf.needed) <= SYSTEM_LIBRARIES | names
        assert (elf.rpath, elf.runpath) == ("$ORIGIN", None)
        assert elf.soname in (None, path.name)


def test_licences_of_what_is_compiled_in_travel_in_the_wheel(wheel: Path) -> None:
    names = [name for name, _text in licence_texts(wheel)]

    assert {"LICENSE.md", "vendor/llama.cpp/LICENSE", "vendor/llama.cpp/vendor/cpp-httplib/LICENSE"} <= set(names)


def _bare_root(root: Path, folder: Path) -> Path:
    """A tree with the C and C++ library and the runtime, and nothing else."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        name, _, rest = line.strip().partition(" (libc6,x86-64")
        if name in SYSTEM_LIBRARIES:
            _copy(Path(rest.partition("=> ")[2]), root / "lib64" / name)
    for path in folder.iterdir():
        _copy(path, root / "runtime" / path.name)
    (root / "proc").mkdir()
    return root


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    target.chmod(0o755)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_starts_with_nothing_but_libc_and_libstdcxx(program: str, folder: Path, tmp_path: Path) -> None:
    root = _bare_root(tmp_path / "root", folder)
    enter = 'mount --rbind /proc "$0/proc" && exec env -i LD_LIBRARY_PATH=/lib64 /usr/sbin/chroot "$0" "$@"'
    argv = ["unshare", "-rm", "sh", "-c", enter, str(root), f"/runtime/{program}", "--help"]
    done = subprocess.run(argv, capture_output=True, text=True)

    assert "shared libraries" not in done.stderr
    assert "usage" in done.stdout.lower() + done.stderr.lower()


def test_one_cpu_library_is_loaded_by_absolute_path_and_no_decoy(folder: Path, tmp_path: Path) -> None:
    decoy = tmp_path / "libggml-cpu-x64.so"
    decoy.write_bytes((folder / "libggml-cpu-x64.so").read_bytes())
    argv = [sys.executable, "-I", "-c", LOADER, str(folder), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(folder / "libggml-cpu-x64.so")]


def test_engine_loads_the_variant_of_its_own_folder_and_nothing_of_the_folder_where_it_was_started(
    folder: Path, tmp_path: Path
) -> None:
    source = f'#include <stdio.h>\n__attribute__((constructor)) void f(void) {{ fopen("{tmp_path}/ran", "w"); }}\n'
    for name in ("libggml-cpu-x64.so", "libggml-cpu.so", "libggml-cuda.so"):
        compiler = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(tmp_path / name)]
        subprocess.run(compiler, input=source, text=True, check=True)
    argv = [str(folder / "llama-server"), "--list-devices"]
    # As the loader reports it: output of the engine itself may be lost when it ends.
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, env={"LD_DEBUG": "files"})

    loaded = set(re.findall(r"calling init: (.*libggml-.*)", done.stderr))
    assert str(folder / "libggml-cpu-x64.so") in loaded
    assert {str(Path(path).parent) for path in loaded} == {str(folder)}
    assert not (tmp_path / "ran").exists()
