"""The OS packages that a bundle brings for this machine, installed by path.

Owns the comparison with the packages of this machine, and the one call of apt that installs what is absent or older.
It must never change `/etc/apt`, use a package source, or turn off a check of apt.

Rules (threats T8, T32):
- the files are verified: they lie in the release, copied by signed hash;
- apt runs with settings of its own that name no package source, and without a network;
- nothing is removed or downgraded: where that would be needed, apt refuses, and the old release goes on serving;
- packages that a power cut left half configured are configured first;
- the installation starts none of their services (`appliance.host.install.policy_rc`);
- packages stay when a release is removed: other programs of this machine may need them by then.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from appliance.host.install.policy_rc import POLICY, no_service_starts, remove_policy
from appliance.host.layout.places import place
from appliance.host.layout.prefix import Prefix, make_folder
from appliance.host.process.programs import Programs
from bundles.contents.contents import Contents
from signing.errors import ApplyRestoredError

TIMEOUT_S = 900.0
_MODE = ("--yes",)
_FINISH = ("/usr/bin/dpkg", "--configure", "--pending")
_POLICY = POLICY
_QUERY_S = 60.0
_FORMAT = "${Package} ${Architecture} ${Version} ${db:Status-Abbrev}\n"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class OsPackage:
    """A package file: its path, and the name, version and architecture that it states."""

    path: Path
    name: str
    version: str
    arch: str


def wanted_packages(prefix: Prefix, release: Path, contents: Contents, system: str) -> tuple[OsPackage, ...]:
    """The packages that the bundle brings for one system that are absent or older on this machine.

    Args:
        prefix, release: where their files lie, verified.
        contents: signed, verified.
        system: of this machine, such as `debian-12`.

    Raises:
        ApplyRestoredError: dpkg fails, or does not end in time.
    """
    files = [file for file in contents.of_kind("os-package") if PurePosixPath(file.path).parts[1:-1] == (system,)]
    if not files:
        return ()
    here = _installed()
    brought = [_read(place(prefix, release, file)) for file in files]
    return tuple(package for package in brought if not _is_there(package, here.get((package.name, package.arch))))


def install_packages(packages: Sequence[OsPackage], programs: Programs) -> bool:
    """Install packages by path.

    Args:
        packages: from `wanted_packages`.
        programs: starts apt, without a network.

    Returns:
        Whether services were kept from starting: False where this machine has a policy of its own for that.

    Raises:
        ApplyRestoredError: apt refused, with its message; dpkg leaves a failed package as it was, or half configured.
    """
    if not packages:
        remove_policy(_POLICY)
        return True
    with no_service_starts(_POLICY) as is_sure:
        _run([*_FINISH], "dpkg", programs)
        _install(packages, programs)
    return is_sure


def _install(packages: Sequence[OsPackage], programs: Programs) -> None:
    command = ["/usr/bin/apt-get", "install", *_MODE, "--quiet", "--no-remove", "--no-install-recommends"]
    for name, value in _settings(programs.scratch / "apt").items():
        command += ["-o", f"{name}={value}"]
    command += [str(package.path) for package in packages]
    _run(command, "apt", programs)


def _run(command: list[str], name: str, programs: Programs) -> None:
    env = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    child = programs.start(command, name, cwd=programs.scratch, env=env, keep_capabilities=True)
    done = programs.finish(child, name, TIMEOUT_S)
    if done.code != 0:
        raise _refused(done.reason(), " ".join(command[:2]))


def _settings(folder: Path) -> dict[str, str]:
    for name in ("lists/partial", "archives/partial", "none"):
        make_folder(folder / name)
    (folder / "sources.list").write_bytes(b"")
    return {
        "Dir::Etc::sourcelist": f"{folder}/sources.list",
        "Dir::Etc::sourceparts": f"{folder}/none",
        "Dir::State::lists": f"{folder}/lists",
        "Dir::Cache": str(folder),
        "Dir::Cache::archives": f"{folder}/archives",
        "APT::Sandbox::User": "root",
        "DPkg::Lock::Timeout": "300",
        "Dpkg::Use-Pty": "0",
        # A configuration file that the site has changed stays as it is.
        "Dpkg::Options::": "--force-confold",
    }


def _installed() -> dict[tuple[str, str], str]:
    found = {}
    for line in _query(["dpkg-query", "--show", f"--showformat={_FORMAT}"]).splitlines():
        name, arch, version, status = line.split(maxsplit=3)
        if status.startswith("ii"):
            found[name, arch] = version
    return found


def _read(path: Path) -> OsPackage:
    fields = dict(
        line.split(": ", 1)
        for line in _query(["dpkg-deb", "--field", str(path), "Package", "Version", "Architecture"]).splitlines()
    )
    return OsPackage(path, fields["Package"], fields["Version"], fields["Architecture"])


def _is_there(package: OsPackage, version: str | None) -> bool:
    if version is None:
        return False
    compared = subprocess.run(
        ["dpkg", "--compare-versions", version, "ge", package.version],
        check=False,
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        timeout=_QUERY_S,
    )
    return compared.returncode == 0


def _query(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            argv,
            check=False,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_QUERY_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refused(str(error), argv[0]) from None
    if done.returncode != 0:
        raise _refused(" ".join(done.stderr.split())[-400:], argv[0])
    return done.stdout


def _refused(found: str, program: str) -> ApplyRestoredError:
    return ApplyRestoredError(
        "packages.refused",
        program,
        expected="the bundle's packages to be installed",
        found=found,
        hint="see what `dpkg --audit` reports, repair that, then run the same command again",
    )
