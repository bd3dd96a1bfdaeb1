"""A process loads the one CPU library that is named, whatever others lie beside it or in the working directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.process import start_engine
from appliance.host.runtime.loader import CPU_LIBRARY, cpu_libraries
from appliance.host.runtime.unpacked import UnpackedRuntime, of_wheel
from tests.appliance.real_engine import describe_model
from tests.appliance.shipped import shipped_model, shipped_runtime

CHILD = """
import sys
from pathlib import Path
from appliance.host.runtime.loader import cpu_libraries, load_binding
binding = load_binding(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
binding.llama_backend_init()
print(binding.__name__, *cpu_libraries(), *(name for name in sys.modules if name in ("numpy", "llama_cpp.llama")))
"""
DIES = "__attribute__((constructor)) static void die(void) { __builtin_trap(); }\n"


def test_libraries_of_a_process_are_listed_once_and_by_path(tmp_path: Path) -> None:
    maps = tmp_path / "7" / "maps"
    maps.parent.mkdir()
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 1   /a b/libggml-cpu-x64.so\n"
        "7f01-7f02 r--p 00000000 08:01 1   /a b/libggml-cpu-x64.so\n"
        "7f02-7f03 r--p 00000000 08:01 2   /a b/libggml-base.so\n"
        "7f03-7f04 rw-p 00000000 00:00 0\n"
        "7f04-7f05 r--p 00000000 08:01 3   /c/libggml-cpu-haswell.so (deleted)\n"
    )
    assert cpu_libraries(7, tmp_path) == ("/a b/libggml-cpu-x64.so", "/c/libggml-cpu-haswell.so (deleted)")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> UnpackedRuntime:
    return of_wheel(shipped_runtime().path, tmp_path_factory.mktemp("runtime"))


def load(unpacked: UnpackedRuntime, folder: Path, variant: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-B", "-c", CHILD, str(folder), variant, str(unpacked.package)]
    return subprocess.run(command, cwd=cwd, env={}, capture_output=True, text=True, timeout=120)


def decoys(unpacked: UnpackedRuntime, folder: Path) -> Path:
    """A working directory with all libraries of the runtime, also of newer variants."""
    folder.mkdir()
    for name in os.listdir(unpacked.everything):
        if name.endswith(".so"):
            shutil.copy(unpacked.everything / name, folder / name)
    return folder


@pytest.mark.ci
def test_binding_holds_the_named_library_and_no_other(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    cwd = decoys(unpacked, tmp_path / "cwd")
    # In a folder with all variants the caller chooses, and not the score that llama.cpp gives them.
    done = load(unpacked, unpacked.everything, "x64", cwd)
    assert (done.returncode, done.stdout.split()) == (
        0,
        ["llama_cpp.llama_cpp", str(unpacked.everything / "libggml-cpu-x64.so")],
    ), done.stderr


@pytest.mark.ci
def test_library_that_is_missing_or_no_library_is_refused_and_no_other_loaded(
    unpacked: UnpackedRuntime, tmp_path: Path
) -> None:
    cwd, folder = decoys(unpacked, tmp_path / "cwd"), tmp_path / "folder"
    shutil.copytree(unpacked.folder_with("x64"), folder)
    for text in (None, "no library"):
        (folder / "libggml-cpu-haswell.so").unlink(missing_ok=True)
        if text:
            (folder / "libggml-cpu-haswell.so").write_text(text)
        done = load(unpacked, folder, "haswell", cwd)
        assert done.returncode == 1
        assert "runtime.not-loaded" in done.stderr


@pytest.mark.ci
def test_library_that_crashes_when_it_is_loaded_ends_only_the_child(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(unpacked.folder_with("x64"), folder)
    (tmp_path / "dies.c").write_text(DIES)
    library = folder / CPU_LIBRARY.format("zen4")
    subprocess.run(["gcc", "-shared", "-o", library, tmp_path / "dies.c"], check=True)
    assert load(unpacked, folder, "zen4", tmp_path).returncode < 0
    assert load(unpacked, folder, "x64", tmp_path).returncode == 0


@pytest.mark.ci
def test_second_library_in_one_process_is_refused(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    again = CHILD + "load_binding(Path(sys.argv[1]), 'sse42', Path(sys.argv[3]))\n"
    command = [sys.executable, "-I", "-B", "-c", again, str(unpacked.everything), "x64", str(unpacked.package)]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "runtime.other-library" in done.stderr


@pytest.mark.ci
def test_engine_holds_the_one_library_of_its_folder(unpacked: UnpackedRuntime, tmp_path: Path) -> None:
    _, model = shipped_model()
    folder = unpacked.folder_with("x64")
    spec = EngineSpec("m", describe_model(model), model, folder, 256, 1, 1)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    before = Path.cwd()
    os.chdir(decoys(unpacked, tmp_path / "cwd"))
    try:
        with start_engine(spec, run_dir, tmp_path / "log") as engine:
            engine.wait_ready(120)
            process = engine.child.program_pid
            assert process is not None
            deadline = time.monotonic() + 30
            while not cpu_libraries(process) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert cpu_libraries(process) == (str(folder / "libggml-cpu-x64.so"),)
    finally:
        os.chdir(before)
