"""A runtime of a few kilobytes: an sdist, and wheels of build tools that drive the real gcc but take a second.

The tools speak as cmake and ninja do, as far as the build listens: `[n/m]`, `FAILED:`, SIGINT, a log of finished steps.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from appliance.builder.recipe.choices import CPU_VARIANTS
from appliance.builder.runtime.build_types import RuntimeSpec, ToolWheels
from appliance.builder.runtime.cuda_toolkit import TOOLKIT
from appliance.builder.runtime.settings import PROGRAMS

VERSION = "9.9.9"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEC = RuntimeSpec(VERSION, ("x64", "haswell"))
STEPS = len(PROGRAMS) + 6

PKG_INFO = f"""Metadata-Version: 2.1
Name: llama_cpp_python
Version: {VERSION}
License: MIT
Requires-Dist: numpy>=1.20.0
Description-Content-Type: text/markdown

# A long text for a registry
"""

# What is changed in the search for backends, as far as the build looks at it.
SEARCH = """search_paths.push_back(get_executable_path());
const fs::path cwd = fs::current_path(cwd_ec);
search_paths.push_back(cwd);
"""

UNIT = "const char *where(void) { return __FILE__; }\n"

CMAKE = """#!{python} -IS
import json, re, sys
from pathlib import Path
given = dict(re.match("-D([^=]+)=(.*)", a, re.S).groups() for a in sys.argv if a.startswith("-D"))
source, build = (sys.argv[sys.argv.index(flag) + 1] for flag in ("-S", "-B"))
Path(build, "bin").mkdir(parents=True)
if Path(source, "src/refuse").exists():
    print("CMake Error at CMakeLists.txt:7 (message):\\n  a thing is missing" + "\\n" * 20)
    print("-- Configuring incomplete, errors occurred!")
    raise SystemExit(1)
listed = Path(source, "ggml/src/CMakeLists.txt").read_text().split('STREQUAL "x86"')[1].split("elseif")[0]
given["variants"] = re.findall(r"variant\\((\\w+)", listed)
Path(build, "plan.json").write_text(json.dumps([source, given]))
"""

NINJA = """#!{python} -IS
import json, os, shlex, signal, subprocess, sys, time
from pathlib import Path
os.chdir(sys.argv[sys.argv.index("-C") + 1])
source, given = json.loads(Path("plan.json").read_text())
def stop(*_):
    raise SystemExit(130)
signal.signal(signal.SIGINT, stop)
unit = source + "/src/unit.c"
pace = float(Path(source, "src/pace").read_text())
libraries = ["libggml-base.so", "libggml.so", "libllama-common.so", "libllama.so", "libmtmd.so"]
variants = ["libggml-cpu-%s.so" % name for name in given["variants"]]
if "ggml-cuda" in sys.argv:
    libraries, variants = ["libggml-base.so", "libggml-cuda.so"], []
programs = [name for name in sys.argv if name.startswith("llama-") and name != "llama-common"]
log = Path("done")
done = log.read_text().split() if log.exists() else []
waiting = [name for name in [*libraries, *variants, *programs] if name not in done]
print("ninja: Entering directory")
for count, name in enumerate(waiting, 1):
    time.sleep(pace)
    kind = "EXE" if name in programs else "SHARED"
    flags = shlex.split(given["CMAKE_C_FLAGS"]) if "leak" not in Path(unit).read_text() else []
    link = given["CMAKE_%s_LINKER_FLAGS" % kind].split() + ["-Wl,-rpath," + given["CMAKE_INSTALL_RPATH"]]
    shared = ["-shared", "-Wl,-soname," + name]
    if kind == "EXE":
        shared = ["-Lbin", "-Wl,--no-as-needed", "-lllama-common"]
    extra = Path(source, "src/needs").read_text().split() if name in ("libllama.so", "libggml-cuda.so") else []
    launcher = [given[name] for name in ["CMAKE_C_COMPILER_LAUNCHER"] if name in given]
    gcc, unit_o = [*launcher, given["CMAKE_C_COMPILER"]], kind + ".o"
    compile = [*gcc, *flags, *(["-DMAIN"] if kind == "EXE" else ["-fPIC"]), "-c", unit, "-o", unit_o + ".part"]
    link = [*gcc, *shared, unit_o, *link, "-o", "bin/" + name, *extra]
    # All programs are the same bytes, and all libraries of the same object.
    twin = next((one for one in programs if one in done), None) if kind == "EXE" else None
    if twin:
        link = ["cp", "bin/" + twin, "bin/" + name]
    for command in (link,) if Path(unit_o).exists() else (compile, link):
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode:
            break
        if command is compile:
            Path(unit_o + ".part").rename(unit_o)
    print("[%d/%d] Linking C %s bin/%s" % (count, len(waiting), kind, name), flush=True)
    if result.returncode:
        print("FAILED: [code=1] bin/%s \\n%s\\n%s" % (name, " ".join(command), result.stdout), end="")
        print("ninja: build stopped: subcommand failed.")
        raise SystemExit(1)
    with log.open("a") as stream:
        stream.write(name + "\\n")
    done.append(name)
"""

# Builds in a process of its own, and prints its steps and the digest of the wheel, or the error.
CHILD = """
import sys
from pathlib import Path
from appliance.builder.runtime import build_job
from appliance.builder.runtime.build_job import build_runtime, find_runtime
from appliance.builder.runtime.build_types import ToolWheels
from signing.errors import ApplianceError
from tests.appliance.sim_runtime import SPEC
sdist, cmake, ninja, cache, needed = sys.argv[1:]
build_job.NEEDED_BYTES = int(needed)
def report(event):
    if event.total:
        print(event.done, flush=True)
try:
    print(build_runtime(Path(sdist), ToolWheels(Path(cmake), Path(ninja)), SPEC, Path(cache), report).sha256)
except ApplianceError as error:
    print(error)
"""


def make_tools(folder: Path) -> ToolWheels:
    """Wheels whose programs behave like cmake and ninja, driving the real gcc."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, path, text in (
        ("cmake", "cmake/data/bin/cmake", CMAKE),
        ("ninja", "ninja-1.0.data/scripts/ninja", NINJA),
    ):
        wheel = folder / f"{name}-1.0-py3-none-any.whl"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(zipfile.ZipInfo(path), text.replace("{python}", sys.executable))
            archive.writestr(zipfile.ZipInfo(f"{name}-1.0.dist-info/METADATA"), metadata)
        found.append(wheel)
    return ToolWheels(found[0], found[1])


def make_toolkit(folder: Path, *, without: str = "") -> tuple[Path, ...]:
    """Wheels laid out like NVIDIA's; what is in them is never run.

    Args:
        folder: for the wheels.
        without: the end of a path that is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for requirement in TOOLKIT:
        name = requirement.partition("==")[0]
        inside = {"nvidia-cuda-nvcc": ["bin/nvcc", "bin/nvcc.profile"], "nvidia-nvvm": ["nvvm/bin/cicc"]}.get(
            name, [f"include/{name}.h", f"lib/lib{name}.so.13"]
        )
        wheel = folder / f"{name.replace('-', '_')}-13.0.1-py3-none-any.whl"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 13.0.1\n"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path in inside:
                if not path.endswith(without or "/"):
                    archive.writestr(zipfile.ZipInfo(f"nvidia/cu13/{path}"), name)
            archive.writestr(zipfile.ZipInfo(f"{name}-13.0.1.dist-info/METADATA"), metadata)
        found.append(wheel)
    return tuple(found)


def make_sdist(
    path: Path,
    *,
    unit: str = UNIT,
    pace_s: float = 0.0,
    needs: str = "",
    changed: Mapping[str, str | None] | None = None,
    entries: tuple[tarfile.TarInfo, ...] = (),
) -> Path:
    """An sdist with everything that the build looks at.

    Args:
        path: of the file to write.
        unit: the one source file; every library and program is made of it.
        pace_s: rest before each step.
        needs: more arguments for linking libllama.so.
        changed: files by path, added to the others or in their place; None leaves one out.
        entries: tar entries without bytes, added at the end.
    """
    variants = "".join(f"        ggml_add_cpu_backend_variant({' '.join((n, *f))})\n" for n, f in CPU_VARIANTS.items())
    llama = "vendor/llama.cpp"
    files: dict[str, str | None] = {
        ".git/config": "[core]\n",
        f".git/modules/{llama}/HEAD": COMMIT + "\n",
        "LICENSE.md": "MIT License\n",
        "llama_cpp/__init__.py": "__version__ = '9.9.9'\n",
        "llama_cpp/py.typed": "",
        "llama_cpp/server/app.py": "",
        "llama_cpp/notes.txt": "not a module",
        f"{llama}/.git": "gitdir: ../../.git/modules/vendor/llama.cpp\n",
        f"{llama}/LICENSE": "MIT License, too\n",
        f"{llama}/models/big.gguf": "not read by the build",
        f"{llama}/src/unit.c": unit + "#ifdef MAIN\nint main(void) { return 0; }\n#endif\n",
        f"{llama}/src/pace": str(pace_s),
        f"{llama}/src/needs": needs,
        f"{llama}/ggml/src/CMakeLists.txt": 'if (X STREQUAL "x86")\n' + variants + '    elseif (X STREQUAL "ARM")\n',
        f"{llama}/ggml/src/ggml-backend-reg.cpp": SEARCH,
        f"{llama}/convert_hf_to_gguf.py": "from conversion import base\n",
        f"{llama}/convert_lora_to_gguf.py": "from conversion import base\n",
        f"{llama}/conversion/base.py": "",
        f"{llama}/gguf-py/LICENSE": "MIT License, of gguf-py\n",
        f"{llama}/gguf-py/gguf/constants.py": "",
        f"{llama}/gguf-py/gguf/scripts/gguf_dump.py": "a tool, not imported",
        "PKG-INFO": PKG_INFO,
    }
    files.update(changed or {})
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            if text is None:
                continue
            info = tarfile.TarInfo(f"llama_cpp_python-{VERSION}/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for entry in entries:
            archive.addfile(entry)
    return path


def build_argv(sdist: Path, tools: ToolWheels, cache: Path, needed_bytes: int = 0) -> list[str]:
    """The command of a process that builds.

    Args:
        sdist: of `make_sdist`.
        tools: of `make_tools`.
        cache: of the runtime.
        needed_bytes: of free disk, before the build begins.
    """
    return [sys.executable, "-c", CHILD, *map(str, (sdist, tools.cmake, tools.ninja, cache, needed_bytes))]
