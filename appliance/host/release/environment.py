"""The Python environment of a release: built from the bundle's wheels, and holding nothing else.

Owns the building of `venv/`. Nothing is fetched, compiled or built: only wheels are installed, by signed hash.

Rules (threats T8, T24):
- the unpacked size of the wheels is measured first, since uv unpacks without a limit;
- uv runs offline, without an index or any configuration of the machine, and with a hash for every wheel;
- afterwards the environment holds exactly what the wheels' RECORDs list. Notes of the installer are removed, and so
  are all scripts: programs are started as `venv/bin/python -I -m …`;
- an environment is not moved or patched: where anything is wrong it is built again at its final path.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from appliance.host.layout.places import place, python_folder, wheels_for
from appliance.host.layout.prefix import Prefix, make_folder
from appliance.host.process.programs import Programs
from appliance.host.release.wheel_size import check_unpacked
from bundles.contents.contents import Contents, File
from bundles.contents.signed_wheel import read_record
from signing.errors import ApplyRestoredError

TIMEOUT_S = 300.0
_NOTES = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of this machine that environments link to: its absolute path, and its version, for example `3.11.2`."""

    path: Path
    version: str

    @property
    def minor(self) -> str:
        """The version without its last part: `3.11`."""
        return ".".join(self.version.split(".")[:2])


def build_environment(
    prefix: Prefix, release: Path, contents: Contents, python: Interpreter, programs: Programs, uv: Path
) -> None:
    """Install the wheels of the release into the empty `venv/`.

    Args:
        prefix: the host; its scratch folder holds uv's cache.
        release: the release's folder, with verified wheels.
        contents: verified.
        python: the interpreter that `venv/` links to.
        programs: starts uv, isolated.
        uv: the program of the bundle's own wheel.

    Raises:
        NotTrustedError: a wheel would unpack to more than what was signed.
        ApplyRestoredError: uv failed; its own message is in it.
    """
    check_unpacked(prefix, release, contents)
    venv = release / "venv"
    requirements = prefix.scratch / "requirements.txt"
    requirements.write_text("".join(_requirement(file) for file in wheels_for(contents, python.minor)), "utf-8")
    command = [str(uv), "pip", "sync", "--no-config", "--offline", "--no-index", "--require-hashes", "--no-build"]
    for folder in (release / "wheels", release / "wheels" / python_folder(python.minor)):
        command += ["--find-links", str(folder)] if folder.is_dir() else []
    command += ["--link-mode", "hardlink", "--no-progress", "--quiet"]
    command += ["--no-python-downloads", "--python", str(venv / "bin" / "python"), str(requirements)]
    environment = {"UV_CACHE_DIR": str(prefix.scratch / "uv-cache"), "UV_CONCURRENT_BUILDS": "1"}
    done = programs.run(command, "uv", cwd=prefix.scratch, env=environment, timeout_s=TIMEOUT_S)
    if done.code != 0:
        raise ApplyRestoredError(
            "environment.refused",
            str(venv),
            expected="an environment made of the bundle's wheels",
            found=done.reason(),
            hint="the wheels of this bundle do not fit together on this host; show this to the builder",
        )
    _tidy(venv, python)
    _restore_records(prefix, release, contents, python)


def pyvenv_cfg(python: Interpreter) -> bytes:
    """Format `pyvenv.cfg`; a release holds exactly these bytes."""
    return (f"home = {python.path.parent}\ninclude-system-site-packages = false\nversion = {python.version}\n").encode()


def links(python: Interpreter) -> dict[str, str]:
    """List the only links in the environment, by path below it, with their targets."""
    return {
        "bin/python": str(python.path),
        "bin/python3": "python",
        f"bin/python{python.minor}": "python",
        "lib64": "lib",
    }


def site_packages(python: Interpreter) -> str:
    """The path of the packages' folder below `venv/`."""
    return f"lib/python{python.minor}/site-packages"


def _requirement(file: File) -> str:
    name, version = PurePosixPath(file.path).name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{file.sha256}\n"


def _tidy(venv: Path, python: Interpreter) -> None:
    shutil.rmtree(venv / "bin")
    make_folder(venv / "bin")
    for name in ("lib64", ".lock"):
        (venv / name).unlink(missing_ok=True)
    for path, target in links(python).items():
        (venv / path).symlink_to(target)
    (venv / "pyvenv.cfg").write_bytes(pyvenv_cfg(python))
    site = venv / site_packages(python)
    for folder in site.glob("*.dist-info"):
        for name in _NOTES:
            (folder / name).unlink(missing_ok=True)


def _restore_records(prefix: Prefix, release: Path, contents: Contents, python: Interpreter) -> None:
    """Replace each RECORD that the installer wrote by the wheel's own."""
    site = release / "venv" / site_packages(python)
    for file in wheels_for(contents, python.minor):
        record = read_record(file, place(prefix, release, file))
        (site / record.path).write_bytes(record.data)
