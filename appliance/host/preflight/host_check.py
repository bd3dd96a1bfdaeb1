"""Whether this machine can take a bundle: all problems at once, with a remedy each (docs/architecture.md, The host).

Owns the list of what is looked at, in its order. The verdict about memory is that of `appliance.host.models.fit`. It
changes nothing, and neither a network nor a clock decides anything: a wrong clock is a warning (threat T27).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from appliance.engine_program import PROGRAM
from appliance.host.layout.places import OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Card, System
from appliance.host.machine.cpu import fitting_variants
from appliance.host.models.fit import Fit, ModelWorkload, budget_bytes, fit
from appliance.host.preflight.finding import HostFinding, Level, error_of, judged, refuse
from appliance.host.preflight.inputs import Host
from appliance.host.preflight.machine_findings import package_findings, port_finding, tls_findings
from appliance.host.preflight.older import older_finding
from appliance.host.preflight.room_findings import (
    RoomNeed,
    card_rooms,
    folder_findings,
    missing_files,
    room_findings,
    room_needs,
    temporary_finding,
)
from appliance.host.preflight.seal_findings import seal_finding
from appliance.host.preflight.system_findings import (
    clock_finding,
    cpu_finding,
    name_finding,
    service_findings,
    system_findings,
)
from appliance.host.release.bootstrap import find_python
from appliance.host.release.environment import Interpreter
from appliance.host.runtime.variant_choice import BENCH
from appliance.host.site.config import read_site
from bundles.contents.contents import Contents
from signing.errors import ApplianceError, UsageError

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
        rooms: what it takes of each file system.
        packages: OS packages that are absent or of another version here, by file name.
        findings: everything that was looked at, in order.
        models: those of the bundle whose headers could be read.
    """

    python: Interpreter | None
    variants: tuple[str, ...]
    warnings: tuple[str, ...]
    pythons: tuple[str, ...] = ()
    memory: Fit | None = None
    missing_files: int = 0
    missing_bytes: int = 0
    rooms: tuple[RoomNeed, ...] = ()
    packages: tuple[str, ...] = ()
    findings: tuple[HostFinding, ...] = ()
    models: tuple[ModelWorkload, ...] = ()

    def require_python(self) -> Interpreter:
        """The Python that was found, or has come with the packages since.

        Raises:
            HostUnfitError: there is none, although the packages were to bring it.
        """
        if found := self.python or find_python(self.pythons, ""):
            return found
        raise error_of(_python_finding(self.pythons, None, is_brought=False))


def check_host(
    contents: Contents, models: Sequence[ModelWorkload], host: Host, release: Path, floor_time: str
) -> PreflightResult:
    """Compare a machine with what a bundle needs, and refuse it where it does not fit.

    Args:
        contents, models, host, release, floor_time: as for `look_at_host`.

    Raises:
        ApplianceError: the bundle cannot be installed anywhere; see `check_installable`.
        HostUnfitError: this machine cannot take it; every reason is in it.
    """
    check_installable(contents)
    found = look_at_host(contents, models, host, release, floor_time)
    refuse(found.findings)
    return found


def look_at_host(
    contents: Contents, models: Sequence[ModelWorkload], host: Host, release: Path, floor_time: str
) -> PreflightResult:
    """Compare a machine with what a bundle needs.

    Args:
        contents: verified.
        models: those of the contents whose headers could be read.
        host: the machine, and where to install; the prefix need not exist.
        release: the release's folder; what is there already needs no room.
        floor_time: the signed time below which the clock cannot be.

    Returns:
        What was found; problems are among its findings.
    """
    prefix, system = host.prefix, host.card.system
    targets = [target for target in contents.targets if (target.os, target.arch) == (system.os, system.arch)]
    versions = tuple(version for target in targets or contents.targets for version in target.python)
    # The users of the services must be able to run it: the PATH of a person may lead into a home folder.
    python = find_python(versions, "" if prefix.is_system else host.search_path)
    is_brought = prefix.is_system and _brings_python(contents, system, versions)
    variants = fitting_variants(contents.needs.cpu_variants, frozenset(host.card.cpu.flags))
    memory = _memory(models, host.card, prefix, release)
    packages = wanted_names(contents, host)
    rooms = room_needs(contents, prefix, release)
    findings = [*system_findings(contents, system), *_memory_findings(memory)]
    if prefix.is_system:
        findings += service_findings(host)
    findings += [_python_finding(versions, python, is_brought=is_brought), cpu_finding(contents, variants)]
    findings += [*room_findings(rooms), *folder_findings(prefix)]
    findings += _machine_findings(host, packages, [model.name for model in contents.models])
    older = older_finding(prefix, contents.name, contents.version, release, is_meant=host.may_go_back)
    findings += [clock_finding(host.now(), floor_time), *([older] if older else [])]
    warnings = (*(one.text for one in findings if one.level is Level.WARNING), *_unused_warnings(contents))
    missing = [file.size for file in missing_files(contents, prefix, release)]
    return PreflightResult(
        python,
        variants,
        warnings,
        tuple(dict.fromkeys(versions)),
        memory,
        len(missing),
        sum(missing),
        rooms,
        packages,
        tuple(findings),
        tuple(models),
    )


def look_at_card(contents: Contents, models: Sequence[ModelWorkload], card: Card, prefix: Prefix) -> PreflightResult:
    """Compare another machine, of which only the card is here, with what a bundle needs.

    Args:
        contents, models: as for `look_at_host`.
        card: of that machine.
        prefix: where it would be installed there; nothing is there yet.
    """
    variants = fitting_variants(contents.needs.cpu_variants, frozenset(card.cpu.flags))
    memory = fit(models, card, [model.need for model in models]) if models else None
    rooms = card_rooms(contents, prefix, card.disks)
    findings = [*system_findings(contents, card.system), *_memory_findings(memory), cpu_finding(contents, variants)]
    findings += room_findings(rooms)
    names = package_names(contents, card.system.os) if prefix.is_system else ()
    sizes = [file.size for file in contents.files]
    return PreflightResult(
        None,
        variants,
        _unused_warnings(contents),
        memory=memory,
        missing_files=len(sizes),
        missing_bytes=sum(sizes),
        rooms=rooms,
        packages=names,
        findings=tuple(findings),
        models=tuple(models),
    )


def look_at_machine(host: Host, floor_time: str) -> tuple[HostFinding, ...]:
    """Look at what no bundle has to be known for.

    Args:
        host: the machine, and where to install.
        floor_time: the signed time below which the clock cannot be; empty where none is known.
    """
    budget = budget_bytes(host.card)
    remedy = "add memory: this much is kept for the rest of the machine"
    findings = [judged(budget > 0, "memory", "more than 0 bytes for models", f"{budget} bytes for models", remedy)]
    if host.prefix.is_system:
        findings += service_findings(host)
    findings += [*folder_findings(host.prefix), *_machine_findings(host, None, None)]
    return (*findings, clock_finding(host.now(), floor_time))


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


def wanted_names(contents: Contents, host: Host) -> tuple[str, ...]:
    """The OS packages for this machine's system that are absent or of another version here, by file name.

    Args:
        contents: verified.
        host: where they would be installed; below a prefix none is.
    """
    if not host.prefix.is_system:
        return ()
    names, around = package_names(contents, host.card.system.os), host.around
    return tuple(name for name in names if around is None or not _is_installed(name, around.version_of))


def package_names(contents: Contents, system: str) -> tuple[str, ...]:
    """The files of the OS packages that a bundle has for one system, such as `debian-12`."""
    paths = [PurePosixPath(file.path) for file in contents.of_kind("os-package")]
    return tuple(path.name for path in paths if path.parts[1:-1] == (system,))


def _is_installed(file_name: str, version_of: Callable[[str, str], str]) -> bool:
    name, _, rest = file_name.removesuffix(".deb").partition("_")
    version, _, arch = rest.rpartition("_")
    here = version_of(name, arch)
    return here.partition(":")[2 if ":" in here else 0].replace("~", "-") == version


def _machine_findings(host: Host, packages: Sequence[str] | None, models: Sequence[str] | None) -> list[HostFinding]:
    found = [temporary_finding()]
    if host.around is None:
        return found
    if host.prefix.is_system:
        found += [name_finding(host.around.host_name), *package_findings(host.around, packages)]
    try:
        site = read_site(host.prefix.site_file)
    except UsageError:
        return found  # the plan step names every field
    seals = seal_finding(host.prefix, site, site.models if models is None else models)
    around = [port_finding(host.prefix, site, host.around), *tls_findings(host.prefix, site, host.now())]
    return [*found, seals, *around]


def _brings_python(contents: Contents, system: System, versions: tuple[str, ...]) -> bool:
    """Whether a Python of one of these versions is among the OS packages for this machine's system."""
    starts = tuple(f"os-packages/{system.os}/python{version}_" for version in versions)
    return any(file.path.startswith(starts) for file in contents.of_kind("os-package"))


def _python_finding(versions: tuple[str, ...], python: Interpreter | None, *, is_brought: bool) -> HostFinding:
    required = f"Python {', '.join(dict.fromkeys(versions))} with the module venv"
    measured = f"Python {python.version}" if python else "none; the bundle's packages bring it" * is_brought or "none"
    return judged(python is not None or is_brought, "python", required, measured, "apt install python3 python3-venv")


def _memory(models: Sequence[ModelWorkload], card: Card, prefix: Prefix, release: Path) -> Fit | None:
    if not models:
        return None
    if (release / OK_FILE).is_file() or prefix.current.exists():
        # The memory of engines that serve here, in the same control group, must not prevent a repair or an upgrade.
        card = replace(card, memory=replace(card.memory, limit_bytes=None))
    return fit(models, card, [model.need for model in models])


def _memory_findings(verdict: Fit | None) -> list[HostFinding]:
    if verdict is None:
        return []
    remedy = "add memory, or build with a smaller model, context or number of slots"
    required, measured = f"{verdict.total} bytes for models", f"{verdict.budget} bytes for models"
    return [judged(verdict.fits, "memory", required, measured, remedy)]


def _unused_warnings(contents: Contents) -> tuple[str, ...]:
    if contents.needs.gpu_driver is None:
        return ()
    return ("this bundle carries the CUDA backend, but this version serves with the processor alone",)
