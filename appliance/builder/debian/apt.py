"""APT with a state of its own: it resolves and downloads packages of a Debian release beside this machine's own.

Owns the configuration under which apt runs here, and the parsing of its answers. It must never read or change the
packages that this machine has installed, nor `/etc/apt`.

Rules:
- the mirrors, proxies and certificates are those of this machine's own apt; nothing here names a host;
- an index is used only when a key of the release keyring has signed it;
- an index that cannot be refreshed is an error: no older one is used in its place;
- no package counts as installed, so that a closure holds everything down to the C library;
- recommended packages are left out: a recipe that needs one names it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from appliance.builder.recipe.choices import SUITES
from signing.digest import Digest, parse_digest
from signing.errors import ApplianceError, HostUnfitError, UsageError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
TIMEOUT_S = 600
_URI = re.compile(r"'[^']*' (?P<file>\S+) (?P<size>\d+) ?(?:SHA256:(?P<sha256>[0-9a-f]{64}))?")
_ABSENT = re.compile(r"^E: (?:Version '.*' for '(\S+)' was not found|Unable to locate package (\S+))", re.MULTILINE)
_LACKS = re.compile(r"(?:Depends|Breaks|Conflicts): ")
_LABELS = "$(LABEL)|$(REPO_URI)"


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror of a release, for apt.

    Args:
        sources: lines of a sources.list, each naming the keyring that must have signed it.
        options: lines of an apt.conf: proxies and certificates.
    """

    sources: tuple[str, ...]
    options: tuple[str, ...] = ()


class Package(NamedTuple):
    """One package of a release: its name, version and architecture, and its file's size and SHA-256."""

    name: str
    version: str
    arch: str
    size: int
    sha256: Digest

    @property
    def file(self) -> str:
        """A file name that every file system accepts: without the epoch, and without `~`."""
        version = self.version.partition(":")[2] or self.version
        return f"{self.name}_{version.replace('~', '-')}_{self.arch}.deb"


def machine_mirror(system: str) -> Mirror:
    """The mirror of a release, from the configuration of this machine's own apt.

    Args:
        system: one of `SUITES`, or a suite itself.

    Raises:
        HostUnfitError: this machine has no apt, no keyring, or no mirror of Debian.
    """
    suite = SUITES.get(system, system)
    if shutil.which("apt-get") is None:
        raise _unfit("apt-get", "none", "build on a Debian machine, or leave `packages` out of the recipe")
    if not Path(KEYRING).exists():
        raise _unfit("the keys of Debian's releases", f"no {KEYRING}", "apt-get install debian-archive-keyring")
    listed = _call(["apt-get", "indextargets", "--format", _LABELS], os.environ).stdout
    mirrors = dict(line.split("|", 1) for line in reversed(listed.splitlines()) if "|" in line)
    if "Debian" not in mirrors:
        raise _unfit("a mirror of Debian", "none in this machine's apt", "apt-get update, with Debian in its sources")
    signed = f"deb [signed-by={KEYRING}]"
    lines = [f"{signed} {mirrors['Debian']} {name} main" for name in (suite, f"{suite}-updates")]
    if "Debian-Security" in mirrors:
        lines.append(f"{signed} {mirrors['Debian-Security']} {suite}-security main")
    return Mirror(tuple(lines), _machine_options())


def _machine_options() -> tuple[str, ...]:
    dumped = _call(["apt-config", "dump"], os.environ).stdout.splitlines()
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-")
    return tuple(line for line in dumped if line.startswith(wanted) and not line.endswith('"";'))


class Apt:
    """APT with a state of its own.

    Args:
        folder: for the indexes; used by one process at a time.
        mirror: of the release.
        arch: of the target, such as `x86_64`.
    """

    def __init__(self, folder: Path, mirror: Mirror, arch: str) -> None:
        self._folder, self._mirror = folder, mirror
        for name in ("lists/partial", "archives/partial", "etc/preferences.d", "none"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "etc/sources.list").write_text("\n".join(mirror.sources) + "\n", "utf-8")
        (folder / "status").write_bytes(b"")
        (folder / "apt.conf").write_text(self._settings(ARCHITECTURES[arch]), "utf-8")

    def _settings(self, arch: str) -> str:
        at = str(self._folder)
        values = {
            "APT::Architecture": arch,
            "APT::Install-Recommends": "false",
            "APT::Update::Error-Mode": "any",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Dir::State": f"{at}/",
            "Dir::State::status": f"{at}/status",
            "Dir::State::lists": f"{at}/lists",
            "Dir::Cache": f"{at}/",
            "Dir::Cache::archives": f"{at}/archives",
            "Dir::Etc": f"{at}/etc/",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": f"{at}/none",
            "Dir::Etc::sourcelist": f"{at}/etc/sources.list",
            "Dir::Etc::sourceparts": f"{at}/none",
            "Dir::Log": f"{at}/",
        }
        lines = [*self._mirror.options, *(f'{name} "{value}";' for name, value in values.items())]
        return "\n".join([*lines, f'APT::Architectures {{ "{arch}"; }};', ""])

    def refresh(self) -> None:
        """Fetch the indexes, and verify their signatures.

        Raises:
            ApplianceError: the mirror cannot be reached, or its index is not signed by the release's keys.
        """
        done = self._run("apt-get", "-q", "update")
        if done.returncode:
            raise _unreachable(_last_lines(done.stderr))

    def closure(self, names: Sequence[str]) -> tuple[Package, ...]:
        """The closure of some packages, down to the C library, sorted by name.

        Raises:
            UsageError: the release has no package of that name, or some exclude each other.
        """
        done = self._run("apt-get", "-y", "--print-uris", "install", *names)
        if done.returncode:
            raise self._refused(done, "check the names of `packages` in the recipe")
        files = [_parts(match["file"]) for match in _URI.finditer(done.stdout)]
        return self.describe([(name, version) for name, version, _ in files])

    def describe(self, wanted: Iterable[tuple[str, str]]) -> tuple[Package, ...]:
        """The entries of the release's index for packages by name and version, sorted by name.

        Raises:
            UsageError: one of them is gone.
        """
        names = [f"{name}={version}" for name, version in wanted]
        done = self._run("apt-get", "--print-uris", "download", *names) if names else None
        if done is None:
            return ()
        if done.returncode:
            raise self._refused(done, "appliance lock --upgrade RECIPE")
        found = []
        for match in _URI.finditer(done.stdout):
            name, version, arch = _parts(match["file"])
            found.append(Package(name, version, arch, int(match["size"]), parse_digest(match["sha256"], name)))
        return tuple(sorted(found))

    def download(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Path]:
        """Fetch packages by name and version. The caller hashes the files, and removes them.

        Raises:
            UsageError: one of them is gone from the mirror.
            ApplianceError: the mirror cannot be reached.
        """
        pairs = list(wanted)
        into = self._folder / "download"
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        done = self._run("apt-get", "-q", "download", *(f"{name}={version}" for name, version in pairs), cwd=into)
        if done.returncode:
            raise self._refused(done, "appliance lock --upgrade RECIPE")
        return {_parts(path.name)[:2]: path for path in into.glob("*.deb")}

    def _run(self, *argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return _call(argv, {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf")}, cwd)

    def _refused(self, done: subprocess.CompletedProcess[str], hint: str) -> ApplianceError:
        absent = sorted({first or second for first, second in _ABSENT.findall(done.stderr)})
        if absent:
            return UsageError(
                "packages.absent",
                ", ".join(absent),
                expected="packages of the release, as named or locked",
                found="not in the release's index now",
                hint=hint,
            )
        # Unmet dependencies stand on standard output.
        lacks = [" ".join(line.split()) for line in done.stdout.splitlines() if _LACKS.search(line)]
        found = "; ".join([*lacks[:20], _last_lines(done.stderr)])
        return ApplianceError(
            "packages.refused", "the release's packages", expected="one set that fits", found=found, hint=hint
        )


def _parts(file: str) -> tuple[str, str, str]:
    name, version, arch = unquote(file).removesuffix(".deb").rsplit("/", 1)[-1].split("_")
    return name, version, arch


def _call(argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            check=False,
            cwd=cwd,
            env={**env, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(f"no answer from {argv[0]} within {TIMEOUT_S} s") from None


def _last_lines(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("E:", "W:", " "))] or text.splitlines()
    return without_addresses(" / ".join(line.strip() for line in lines[-8:]))[-800:]


def without_addresses(text: str) -> str:
    """A message of apt without addresses: they may hold a password of the mirror."""
    return re.sub(r"\S*://\S+", "(address)", text)


def _unreachable(found: str) -> ApplianceError:
    return ApplianceError(
        "packages.unreachable",
        "the release's packages",
        expected="a mirror that answers, with an index signed by the release's keys",
        found=found,
        hint="run this where there is a network; check `apt-get update` on this machine",
    )


def _unfit(what: str, found: str, hint: str) -> HostUnfitError:
    return HostUnfitError("packages.machine", what, expected="to resolve packages of Debian", found=found, hint=hint)
