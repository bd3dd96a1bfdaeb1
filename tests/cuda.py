"""A proof that the CUDA backend compiles, links and loads: `python -m tests.cuda [ARCHITECTURE…]`, an hour or more.

Owns the way from the shipped recipe with `cuda: [90]` (or other architectures) to a bundle, and a trial of its files.
They are laid out as in a host's environment. A process that runs the binding then loads the library by its absolute
path, and lists its devices. On a machine without a graphics processor, the list is empty.

It needs a package index. Neither the tests nor `.ci/run` start it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from appliance.builder.lock.lockfile import lock_path
from appliance.builder.runtime.cuda import LIBRARY, LIBRARY_FOLDER
from appliance.cli.bundle_argument import open_named_bundle
from bundles.chunks.copy import copy_file
from bundles.oci.layout import Layout
from tests.appliance.shipped import RECIPE

TOP = Path(__file__).resolve().parents[1]

APPLIANCE = (sys.executable, "-m", "appliance.cli.main")
CHILD = """
import ctypes, os, sys
from pathlib import Path
from appliance.host.runtime.loader import load_binding
site, library = Path(sys.argv[1]), sys.argv[2]
load_binding(site / "llama_cpp" / "lib", "x64", site)
ggml = ctypes.CDLL(str(site / "llama_cpp" / "lib" / "libggml.so"))
for name, result in (("load", ctypes.c_void_p), ("reg_by_name", ctypes.c_void_p), ("reg_dev_count", ctypes.c_size_t)):
    getattr(ggml, f"ggml_backend_{name}").restype = result
assert not ggml.ggml_backend_reg_by_name(b"CUDA"), "something found it without being asked"
loaded = ggml.ggml_backend_load(os.fsencode(library))
assert loaded, "llama.cpp refused the library"
with open("/proc/self/maps") as maps:
    mapped = sorted({line.split(maxsplit=5)[5].strip() for line in maps if "libggml-cuda" in line or "libcu" in line})
print(*mapped, sep="\\n")
print("devices:", ggml.ggml_backend_reg_dev_count(ctypes.c_void_p(loaded)))
"""


def build(architectures: list[int], folder: Path) -> Path:
    """Lock and build the shipped recipe for these CUDA architectures.

    Returns:
        The bundle, in a workspace of its own.
    """
    recipe = folder / RECIPE.name
    text, count = re.subn(r"cuda: false", f"cuda: {architectures}", RECIPE.read_text())
    assert count == 1
    recipe.write_text(text)
    lock_path(recipe).write_bytes(lock_path(RECIPE).read_bytes())
    for words in (["init", folder / "w"], ["lock", recipe], ["build", recipe, "--workspace", folder / "w"]):
        subprocess.run([*APPLIANCE, *map(str, words)], check=True)
    return next((folder / "w" / "dist").iterdir())


def unpack(bundle: Path, folder: Path) -> Path:
    """Unpack the bundle's wheels of the runtime and of NVIDIA into one folder, as an installer does."""
    contents = open_named_bundle(bundle, None, None, bundle.parents[1], print).value.contents
    print(f"driver {contents.needs.gpu_driver} or newer")
    site = folder / "site"
    for file in contents.of_kind("runtime", "wheel"):
        wheel = folder / Path(file.path).name
        if not wheel.name.startswith(("llama_cpp_python", "nvidia_")):
            continue
        copy_file(file, Layout(bundle).open_chunk, wheel)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
            unpacked = sum(info.file_size for info in archive.infolist())
        print(f"{file.path}: {file.size} bytes, unpacked {unpacked}")
        wheel.unlink()
    return site


def main() -> int:
    """Build, unpack, load; 1 where the library does not load."""
    options = argparse.ArgumentParser(prog="python -m tests.cuda")
    options.add_argument("architectures", nargs="*", type=int, default=[90], metavar="ARCHITECTURE")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="appliance-cuda-") as name:
        folder = Path(name)
        site = unpack(build(chosen.architectures, folder), folder)
        # A library of that name in the working directory must not be loaded.
        decoy = folder / "decoy"
        decoy.mkdir()
        (decoy / LIBRARY).write_bytes(b"no library")
        command = [sys.executable, "-c", CHILD, str(site), str(site / LIBRARY_FOLDER / LIBRARY)]
        return subprocess.run(command, cwd=decoy, env={"PYTHONPATH": str(TOP)}).returncode


if __name__ == "__main__":
    raise SystemExit(main())
