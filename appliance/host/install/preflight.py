"""Whether this machine can take a bundle: all problems at once, with a remedy each (docs/architecture.md, The host).

Owns the comparison of the machine with the contents' `targets` and `needs`; the verdict about memory is that of
`appliance.host.models.fit`. It changes nothing, and neither a network nor a clock decides anything: a wrong clock is a
warning (threat T27).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from appliance.engine_program import PROGRAM
from appliance.host.install.install_inputs import Host
from appliance.host.layout.places import OK_FILE, PACKED, STORED, place
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Card, System
from appliance.host.machine.cpu import fitting_variants
from appliance.host.machine.libraries import version_key
from appliance.host.models.fit import Fit, ModelWorkload, fit
from appliance.host.process import systemctl
from appliance.host.release.bootstrap import find_python
from appliance.host.release.environment import Interpreter
from appliance.host.runtime.variant_choice import BENCH
from bundles.contents.contents import Contents, File
from signing.errors import ApplianceError, HostUnfitError

UNPACKED_FACTOR = 8
"""Room for a wheel beyond itself: unpacked in uv's cache, in the environment, and for trials of the runtime."""
RELEASE_INODES = 12_000
# Units, sockets and files are named after models.
_UNIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """What preflight found, for the steps after it.

    Args:
        python: to link environments to; None where one of `pythons` comes with the bundle's OS packages.
        variants: CPU variants to try.
        warnings: for people.
        pythons: the versions that the bundle is for on this system.
        memory: the verdict about the models' memory; None where no model's header could be read.
        missing_files, missing_bytes: what does not lie at its place yet, judged by names and sizes.
    """

    python: Interpreter | None
    variants: tuple[str, ...]
    warnings: tuple[str, ...]
    pythons: tuple[str, ...] = ()
    memory: Fit | None = None
    missing_files: int = 0
    missing_bytes: int = 0

    def require_python(self) -> Interpreter:
        """The Python that was found, or has come with the packages since.

        Raises:
            HostUnfitError: there is none, although the packages were to bring it.
        """
        if found := self.python or find_python(self.pythons, ""):
            return found
        raise _no_python(self.pythons)


def check_host(
    contents: Contents, models: Sequence[ModelWorkload], host: Host, release: Path, floor_time: str
) -> PreflightResult:
    """Compare a machine with what a bundle needs.

    Args:
        contents: verified.
        models: those of the contents whose headers could be read.
        host: the machine, and where to install; the prefix need not exist.
        release: the release's folder; what is there already needs no room.
        floor_time: the signed time below which the clock cannot be.

    Raises:
        ApplianceError: the bundle cannot be installed anywhere; see `check_installable`.
        HostUnfitError: this machine cannot take it; every reason is in it.
    """
    check_installable(contents)
    prefix, system = host.prefix, host.card.system
    targets = [target for target in contents.targets if (target.os, target.arch) == (system.os, system.arch)]
    versions = tuple(version for target in targets or contents.targets for version in target.python)
    # The users of the services must be able to run it: the PATH of a person may lead into a home folder.
    python = find_python(versions, "" if prefix.is_system else host.search_path)
    variants = fitting_variants(contents.needs.cpu_variants, frozenset(host.card.cpu.flags))
    memory = _memory(models, host.card, prefix, release)
    problems = _system_problems(contents, system) + _memory_problems(memory)
    if prefix.is_system:
        problems += _service_problems(host)
    if python is None and not (prefix.is_system and _brings_python(contents, system, versions)):
        problems.append(_no_python(versions))
    if not variants:
        problems.append(
            _unfit("cpu", f"one of {', '.join(contents.needs.cpu_variants)}", "none fits", "use a newer machine")
        )
    problems += _room_problems(contents, prefix, release)
    if problems:
        problems[0].others = tuple(problems[1:])
        raise problems[0]
    warnings = (*_clock_warnings(host.now(), floor_time), *_unused_warnings(contents))
    missing = [file.size for file in _missing(contents, prefix, release)]
    return PreflightResult(
        python, variants, warnings, tuple(dict.fromkeys(versions)), memory, len(missing), sum(missing)
    )


def check_installable(contents: Contents) -> None:
    """Refuse a bundle that lacks what an install needs, such as one of models alone.

    Raises:
        ApplianceError: code `bundle.not-installable`, naming what is missing.
    """
    members = {member.path.rpartition("/")[2] for file in contents.of_kind("runtime") for member in file.members}
    missing = [name for name in (PROGRAM, BENCH) if name not in members]
    if not contents.models:
        missing.append("a model")
    names = [model.name for model in contents.models if not _UNIT_NAME.fullmatch(model.name)]
    missing += [f"a model name of letters, digits and . _ - instead of {name}" for name in names]
    if missing:
        raise ApplianceError(
            "bundle.not-installable",
            f"{contents.name} {contents.version}",
            expected="a model, and a runtime with its programs",
            found=f"missing: {', '.join(missing)}",
            hint="ask the person who built this bundle",
        )


def _brings_python(contents: Contents, system: System, versions: tuple[str, ...]) -> bool:
    """Whether a Python of one of these versions is among the OS packages for this machine's system."""
    starts = tuple(f"os-packages/{system.os}/python{version}_" for version in versions)
    return any(file.path.startswith(starts) for file in contents.of_kind("os-package"))


def _no_python(versions: tuple[str, ...]) -> HostUnfitError:
    wanted = f"Python {', '.join(dict.fromkeys(versions))} with the module venv"
    return _unfit("python", wanted, "none", "apt install python3 python3-venv")


def _system_problems(contents: Contents, system: System) -> list[HostUnfitError]:
    problems = []
    targets = [f"{target.os} {target.arch}" for target in contents.targets]
    if f"{system.os} {system.arch}" not in targets:
        problems.append(
            _unfit(
                "system",
                ", ".join(targets),
                f"{system.os} {system.arch}",
                "build this bundle for this system: field targets",
            )
        )
    needs = contents.needs
    for name, wanted, found in (
        ("glibc", needs.glibc, system.glibc),
        ("libstdc++ GLIBCXX", needs.glibcxx, system.glibcxx),
        ("libstdc++ CXXABI", needs.cxxabi, system.cxxabi),
    ):
        if wanted and version_key(found) < version_key(wanted):
            remedy = "apt install libstdc++6" if not found else "build the runtime on a system as old as this one"
            problems.append(_unfit(name, f"{wanted} or newer", found or "none", remedy))
    return problems


def _memory(models: Sequence[ModelWorkload], card: Card, prefix: Prefix, release: Path) -> Fit | None:
    if not models:
        return None
    if (release / OK_FILE).is_file() or prefix.current.exists():
        # The memory of engines that serve here, in the same control group, must not prevent a repair or an upgrade.
        card = replace(card, memory=replace(card.memory, limit_bytes=None))
    return fit(models, card, [model.need for model in models])


def _memory_problems(verdict: Fit | None) -> list[HostUnfitError]:
    if verdict is None or verdict.fits:
        return []
    remedy = "add memory, or build with a smaller model, context or number of slots"
    return [_unfit("memory", f"{verdict.total} bytes for models", f"{verdict.budget} bytes for models", remedy)]


def _service_problems(host: Host) -> list[HostUnfitError]:
    problems = []
    if not host.is_root:
        problems.append(_unfit("user", "root", "another user", "run it as root, or install below --prefix DIR"))
    version = host.card.system.systemd
    if version_key(version) < (systemctl.MIN_VERSION,):
        found = f"systemd {version}" if version else "no systemd"
        wanted = f"systemd {systemctl.MIN_VERSION} or newer"
        problems.append(_unfit("services", wanted, found, "install below --prefix DIR, and start `appliance serve`"))
    return problems


def _room_problems(contents: Contents, prefix: Prefix, release: Path) -> list[HostUnfitError]:
    needed: dict[int, list[int]] = {}
    folders: dict[int, Path] = {}
    for path, size, inodes in _needed(contents, prefix, release):
        folder = _existing(path)
        device = folder.stat().st_dev
        folders.setdefault(device, folder)
        total = needed.setdefault(device, [0, 0])
        total[0] += size
        total[1] += inodes
    problems = []
    for device, (size, inodes) in needed.items():
        folder, status = folders[device], os.statvfs(folders[device])
        free = status.f_bavail * status.f_frsize
        if free < size:
            problems.append(
                _unfit(
                    f"disk at {folder}",
                    f"{size} bytes free",
                    f"{free} bytes",
                    "free some space, or choose another --prefix",
                )
            )
        if status.f_files and status.f_favail < inodes:
            remedy = "remove small files, or choose another --prefix"
            problems.append(_unfit(f"inodes at {folder}", f"{inodes} free", str(status.f_favail), remedy))
    problems += [_foreign(folder) for folder in prefix.folders() if _is_foreign(folder)]
    folder = _existing(prefix.root)
    if not os.access(folder, os.W_OK | os.X_OK):
        remedy = "run as the user who owns it, or choose another --prefix"
        problems.append(_unfit(f"prefix {prefix.root}", "a folder that this user can write", "not writable", remedy))
    return problems


def _is_foreign(folder: Path) -> bool:
    """Whether another user could replace files in a folder between their check and their use."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    is_ours = status.st_uid in (0, os.geteuid())
    return not (stat.S_ISDIR(status.st_mode) and is_ours and not status.st_mode & stat.S_IWOTH)


def _foreign(folder: Path) -> HostUnfitError:
    status = folder.lstat()
    return _unfit(
        f"folder {folder}",
        f"a folder of user {os.geteuid()} that not everybody can write",
        f"mode {stat.filemode(status.st_mode)} of user {status.st_uid}",
        f"run as user {status.st_uid} if that is you, or choose another --prefix",
    )


def _needed(contents: Contents, prefix: Prefix, release: Path) -> list[tuple[Path, int, int]]:
    missing = _missing(contents, prefix, release)
    found = [(prefix.models if file.kind in STORED else release, file.size, 2) for file in missing]
    if not (release / "venv" / "pyvenv.cfg").exists():
        packed = sum(file.size for file in contents.of_kind(*PACKED))
        found.append((release, packed * UNPACKED_FACTOR, RELEASE_INODES))
    return found


def _missing(contents: Contents, prefix: Prefix, release: Path) -> list[File]:
    return [file for file in contents.files if not _is_there(place(prefix, release, file), file)]


def _is_there(path: Path, file: File) -> bool:
    try:
        return path.stat().st_size == file.size
    except OSError:
        return False


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _clock_warnings(now: datetime, floor_time: str) -> tuple[str, ...]:
    text = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    if text >= floor_time:
        return ()
    return (
        f"this machine's clock shows {text}, but signed files prove that it is at least {floor_time}: set the clock",
    )


def _unused_warnings(contents: Contents) -> tuple[str, ...]:
    if contents.needs.gpu_driver is None:
        return ()
    return ("this bundle carries the CUDA backend, but this version serves with the processor alone",)


def _unfit(what: str, expected: str, found: str, remedy: str) -> HostUnfitError:
    return HostUnfitError("host.unfit", what, expected=expected, found=found, hint=remedy)
