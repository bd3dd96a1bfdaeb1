"""The start of a release's environment: a Python of this machine, an empty `venv/`, and uv out of its wheel.

Owns the search for a fitting Python, the empty `venv/` at its final path, and the extraction of uv. Nothing of the
bundle has been installed at that time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from appliance.host.layout.places import place
from appliance.host.layout.prefix import Prefix
from appliance.host.process.programs import Programs
from appliance.host.release.environment import Interpreter, pyvenv_cfg
from bundles.contents.contents import Contents, File
from bundles.contents.signed_wheel import read_member, read_record
from signing.errors import ApplyRestoredError, NotTrustedError

_PROBE = "import json,sys,venv;print(json.dumps([sys.executable,'.'.join(map(str,sys.version_info[:3])),sys.prefix]))"
_FOLDERS = ("/usr/bin", "/usr/local/bin")
TIMEOUT_S = 60.0


def find_python(versions: tuple[str, ...], search_path: str) -> Interpreter | None:
    """Find a Python that environments can link to.

    The system's own Python comes first: it does not vanish with a user's home folder.

    Args:
        versions: minor versions that the bundle is for, for example `("3.11",)`.
        search_path: a PATH.

    Returns:
        The first Python that runs and has the module `venv`, or None.
    """
    for candidate in _candidates(versions, search_path):
        found = _probe(candidate)
        if found is not None and found.minor in versions:
            return found
    return None


def make_venv(release: Path, python: Interpreter, programs: Programs) -> None:
    """Create an empty environment at its final path; what lies there is removed.

    Raises:
        ApplyRestoredError: the interpreter failed; its own message is in it.
    """
    venv = release / "venv"
    if venv.exists():
        shutil.rmtree(venv)
    command = [str(python.path), "-I", "-m", "venv", "--without-pip", "--symlinks", str(venv)]
    done = programs.run(command, "venv", cwd=programs.scratch, timeout_s=TIMEOUT_S)
    if done.code != 0:
        raise ApplyRestoredError(
            "bootstrap.venv",
            str(python.path),
            expected="an empty environment",
            found=done.reason(),
            hint="check that this Python has the module venv: apt install python3-venv",
        )
    # Python 3.13 writes one, and a file that no signed wheel lists is refused in a release.
    (venv / ".gitignore").unlink(missing_ok=True)
    (venv / "pyvenv.cfg").write_bytes(pyvenv_cfg(python))


def extract_uv(prefix: Prefix, release: Path, contents: Contents, scratch: Path) -> Path:
    """Extract uv from the bundle's wheel, checked against the wheel's signed RECORD.

    Args:
        prefix, release: where the wheel lies.
        contents: verified.
        scratch: a folder for the program; a finished release does not need it.

    Returns:
        The path of the program.

    Raises:
        NotTrustedError: the bundle holds no uv.
        DamagedError: the wheel differs from what was signed.
    """
    file = next((file for file in contents.of_kind("tool") if _is_uv(file)), None)
    if file is None:
        raise NotTrustedError("bootstrap.no-uv", "tools/", expected="a wheel of uv", found="none")
    wheel = place(prefix, release, file)
    record = read_record(file, wheel)
    entry = next((entry for entry in record.entries if entry.path.endswith(".data/scripts/uv")), None)
    if entry is None:
        raise NotTrustedError("bootstrap.no-uv", file.path, expected="the program uv in its wheel", found="none")
    program = scratch / "uv"
    program.unlink(missing_ok=True)
    descriptor = os.open(program, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o700)
    with open(descriptor, "wb") as stream:
        stream.write(read_member(file, wheel, entry))
    return program


def _is_uv(file: File) -> bool:
    return PurePosixPath(file.path).name.startswith("uv-") and file.path.endswith(".whl")


def _candidates(versions: tuple[str, ...], search_path: str) -> Iterator[str]:
    folders = dict.fromkeys((*_FOLDERS, *search_path.split(":")))
    names = [*(f"python{version}" for version in versions), "python3"]
    for folder in folders:
        for name in names:
            if folder.startswith("/") and os.access(f"{folder}/{name}", os.X_OK):
                yield f"{folder}/{name}"
    yield getattr(sys, "_base_executable", sys.executable)


def _probe(program: str) -> Interpreter | None:
    try:
        done = subprocess.run(
            [program, "-I", "-c", _PROBE], capture_output=True, timeout=20, env={"LC_ALL": "C.UTF-8"}, check=False
        )
        path, version, home = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    # An environment's interpreter would vanish with it. Wrappers of version managers need variables of their own.
    if done.returncode != 0 or (Path(home) / "pyvenv.cfg").exists():
        return None
    return Interpreter(Path(os.path.realpath(path)), version)
