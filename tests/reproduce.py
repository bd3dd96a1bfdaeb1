"""A second build of the runtime in another place: `python -m tests.reproduce` (10 minutes or more).

Owns how the second build differs from the first. It has another folder with a name of another length, another home,
time zone, locale, umask and number of compilers, and no ccache. Where the caller is root, it also has another user.
It exits with 1 where the wheel differs, and names the files. The tests use parts of it, which take less time.

Rule: the builder is a child process that sees a copy of the program and nothing of the caller's environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import packaging

from appliance.builder.runtime.build_types import BuiltRuntime
from tests.appliance.shipped import shipped_runtime, shipped_sdist, shipped_tools

TOP = Path(__file__).resolve().parents[1]
NOBODY = 65534
LIBRARIES = "llama_cpp/lib"
# The program of the child. `leak` builds without the flag that keeps the folder out of the result.
CHILD = """
import os, sys
from pathlib import Path
from appliance.builder.runtime import build_job
from appliance.builder.runtime.compilation import cmake_build, source, source_patches, toolchain
from appliance.builder.runtime.build_job import build_runtime
from appliance.builder.runtime.build_types import RuntimeSpec, ToolWheels
sdist, cmake, ninja, version, variants, out, targets, leak = sys.argv[1:]
os.umask(0o027)
tools, out = ToolWheels(Path(cmake), Path(ninja)), Path(out)
if targets == "all":
    build_job._jobs = lambda: 3
    report = lambda event: event.done % 25 or print(event.done, "of", event.total, file=sys.stderr)
    print(build_runtime(Path(sdist), tools, RuntimeSpec(version, tuple(variants.split(","))), out, report).path)
    raise SystemExit
if leak == "leak":
    cmake_build.prefix_map = lambda folder: "-DNO_PREFIX_MAP"
cmake_build.TARGETS = tuple(targets.split(","))
with open(os.devnull) as hold:
    place = cmake_build.Workplace(out, out / "log", hold.fileno())
    commit = source.unpack_sdist(Path(sdist), place.source, version)
    source_patches.keep_variants(place.source, tuple(variants.split(",")))
    source_patches.drop_working_folder(place.source)
    unpacked = toolchain.unpack_tools(tools, out / "tools")
    compiler = toolchain.find_compiler(os.environ["PATH"])
    cmake_build.configure(unpacked, compiler, place, commit)
    cmake_build.compile_targets(unpacked, compiler, place, 3, lambda event: None)
    print(place.binaries)
"""


@contextmanager
def other_place() -> Iterator[Path]:
    """A folder that an ordinary user may write to, with copies of all inputs of a build."""
    folder = Path(tempfile.mkdtemp(prefix="another-place-with-a-name-of-another-length-"))
    try:
        for name in ("appliance", "bundles", "signing"):
            shutil.copytree(TOP / name, folder / "program" / name, ignore=shutil.ignore_patterns("__pycache__"))
        # The only library that a build needs beside the standard one.
        shutil.copytree(Path(packaging.__file__).parent, folder / "program" / "packaging")
        (folder / "given").mkdir()
        tools = shipped_tools()
        for path, name in (
            (shipped_sdist(), "runtime.tar.gz"),
            (tools.cmake, "cmake-0-py3-none-any.whl"),
            (tools.ninja, "ninja-0-py3-none-any.whl"),
        ):
            shutil.copy(path, folder / "given" / name)
        (folder / "out" / "home").mkdir(parents=True)
        folder.chmod(0o755)
        if os.geteuid() == 0:
            for path in (folder / "out", folder / "out" / "home"):
                os.chown(path, NOBODY, NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder)


def rebuild(place: Path, variants: Sequence[str], targets: Sequence[str] = ("all",), *, leak: bool = False) -> Path:
    """Build all or some of the runtime.

    Args:
        place: of `other_place`, used once.
        variants: the CPU variants.
        targets: of ninja; `all` builds the wheel.
        leak: let the name of the folder into the result, to prove that the comparison finds it.

    Returns:
        The wheel, or the folder with the libraries and programs.
    """
    given, out = place / "given", place / "out"
    names = ("runtime.tar.gz", "cmake-0-py3-none-any.whl", "ninja-0-py3-none-any.whl")
    version = shipped_runtime().version.partition("+")[0]
    words = [*(str(given / name) for name in names), version, ",".join(variants), str(out), ",".join(targets)]
    done = subprocess.run(
        [*_as_another_user(), "-B", "-c", CHILD, *words, "leak" if leak else "tight"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=place,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(out / "home"),
            "PYTHONPATH": str(place / "program"),
            "TZ": "Pacific/Chatham",
            "LANG": "C.UTF-8",
            "CFLAGS": "-O1 -g",
            "SOURCE_DATE_EPOCH": "1",
        },
        check=True,
    )
    return Path(done.stdout.splitlines()[-1])


def _as_another_user() -> list[str]:
    if os.geteuid() != 0:
        return [sys.executable]
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    # The environment's own Python may lie where that user cannot go; any Python of this version can build.
    for python in (sys.executable, "/usr/bin/python3"):
        argv = [*user, "--", python]
        # Whether that Python can start itself again.
        probe = "import os, sys; sys.exit(sys.version_info < (3, 10) or not os.access(sys.executable, os.X_OK))"
        check = [*argv, "-c", probe]
        if subprocess.run(check, cwd="/", capture_output=True).returncode == 0:
            return argv
    raise SystemExit("reproduce: no Python 3.10 or newer that an ordinary user can run")


def differing(binaries: Path, wheel: Path) -> tuple[list[str], list[str]]:
    """Compare what was linked with the files of a wheel.

    Returns:
        The names of the files that are equal, and of those that differ or are in no wheel.
    """
    equal: list[str] = []
    other: list[str] = []
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if name.startswith(f"{LIBRARIES}/")}
    for path in sorted(binaries.iterdir()):
        is_equal = packed.get(f"{LIBRARIES}/{path.name}") == path.read_bytes()
        (equal if is_equal else other).append(path.name)
    return equal, other


def _differing_members(one: Path, two: Path) -> list[str]:
    with zipfile.ZipFile(one) as first, zipfile.ZipFile(two) as second:
        names = sorted({*first.namelist(), *second.namelist()})
        return [
            name
            for name in names
            if name not in first.namelist() or name not in second.namelist() or first.read(name) != second.read(name)
        ]


def main() -> int:
    """Build the whole runtime again and compare the wheels."""
    first: BuiltRuntime = shipped_runtime()
    with other_place() as place:
        second = rebuild(place, first.variants)
        same = second.read_bytes() == first.path.read_bytes()
        print(f"{first.sha256}  {first.path.name}: {'the same bytes' if same else 'other bytes'} in another place")
        if not same:
            print("\n".join(_differing_members(first.path, second)))
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
