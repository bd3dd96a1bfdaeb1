"""The wheels that a host of one target needs: resolved by uv, chosen by tag.

Owns the host's requirements, the call of uv, and which of several wheels fits a target best. It must never depend on
this machine: its Python, its C library and its settings of uv or pip do not count, except for the index.

Rules:
- wheels only: nothing is compiled on a host, and nothing of an sdist is run here;
- a wheel fits when one of its tags is among the target's; the more specific tag wins, as with pip and uv;
- programs for building (cmake, ninja) are taken with the oldest C library that any builder has, not the target's.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from appliance.builder.sources.pypi import index_url, open_index
from appliance.builder.wheels.appliance_wheel import DISTRIBUTION
from signing.errors import ApplianceError

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage

BUILDER_GLIBC = (2, 28)
UV_TIMEOUT_S = 600
_UV_KEEPS = ("UV_CACHE_DIR", "UV_EXCLUDE_NEWER", "UV_HTTP_TIMEOUT", "UV_CONCURRENT_DOWNLOADS")
_UV_GLIBC = (40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 28, 17)
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def host_requires() -> tuple[str, ...]:
    """What this program needs on a host: the requirements of its own distribution, without extras."""
    return without_extras(importlib.metadata.requires(DISTRIBUTION) or ())


def without_extras(requires: Iterable[str]) -> tuple[str, ...]:
    """Requirements in a normal form, sorted, without those that belong to an extra.

    Args:
        requires: `Requires-Dist` fields.
    """
    found = []
    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            raise ApplianceError("closure.unreadable", text[:200], expected="a requirement", found=text[:200]) from None
        if not (requirement.marker and "extra" in str(requirement.marker)):
            found.append(str(requirement))
    return tuple(sorted(found, key=str.lower))


def target_tags(python: str, arch: str, glibc: tuple[int, int]) -> dict[Tag, int]:
    """The tags of wheels that a target accepts, each with its rank: 0 fits best.

    Args:
        python: for example `3.11`.
        arch: `x86_64` or `aarch64`.
        glibc: the C library's version.
    """
    major, minor = (int(part) for part in python.split("."))
    interpreter = f"cp{major}{minor}"
    platforms = list(_platforms(arch, glibc))
    tags = [
        *cpython_tags((major, minor), [interpreter], platforms),
        *compatible_tags((major, minor), interpreter, platforms),
    ]
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def _platforms(arch: str, glibc: tuple[int, int]) -> Iterable[str]:
    lowest = 5 if arch == "x86_64" else 17
    for minor in range(glibc[1], lowest - 1, -1):
        yield f"manylinux_{glibc[0]}_{minor}_{arch}"
        if minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{arch}"


def best_wheel(
    packages: Iterable[DistributionPackage], version: str, tags: Mapping[Tag, int]
) -> DistributionPackage | None:
    """The wheel of one version that fits a target best; None where none fits."""
    wanted = Version(version)
    fitting = []
    for package in packages:
        parsed = _parse_wheel(package)
        if parsed is None or parsed[0] != wanted:
            continue
        ranks = [tags[tag] for tag in parsed[2] if tag in tags]
        if ranks:
            fitting.append((min(ranks), tuple(-part if isinstance(part, int) else 0 for part in parsed[1]), package))
    return min(fitting, key=lambda entry: entry[:2])[2] if fitting else None


def newest_wheel(
    packages: Iterable[DistributionPackage], specifier: SpecifierSet, python: str, tags: Mapping[Tag, int]
) -> tuple[str, DistributionPackage] | None:
    """The newest final version with a wheel that fits, and that wheel; withdrawn (yanked) files are left out."""
    usable = [package for package in packages if not package.is_yanked and _accepts(package, python)]
    versions = {parsed[0] for package in usable if (parsed := _parse_wheel(package))}
    for version in sorted(specifier.filter(versions, prereleases=False), reverse=True):
        if package := best_wheel(usable, str(version), tags):
            return str(version), package
    return None


def _parse_wheel(package: DistributionPackage) -> tuple[Version, tuple[int | str, ...], frozenset[Tag]] | None:
    if package.package_type != "wheel":
        return None
    try:
        _, version, build, tags = parse_wheel_filename(package.filename)
    except (InvalidWheelFilename, InvalidVersion):
        return None
    return version, build, tags


def _accepts(package: DistributionPackage, python: str) -> bool:
    try:
        return f"{python}.0" in SpecifierSet(package.requires_python or "")
    except InvalidSpecifier:
        return False


def resolve(
    requires: Sequence[str],
    python: str,
    arch: str,
    glibc: tuple[int, int],
    *,
    preferred: Mapping[str, str],
    env: Mapping[str, str],
) -> dict[str, str]:
    """Let uv resolve requirements to a consistent set of packages.

    Args:
        requires: the requirements to begin with; at least one.
        python: of the target.
        arch: of the target.
        glibc: of the target.
        preferred: name → version of an earlier lock, kept where they still fit.
        env: the environment, for the index.

    Returns:
        Name → version of every package, by canonical name.

    Raises:
        ApplianceError: no such set exists, or the index cannot be reached.
    """
    # An index that does not answer is reported by our own client: sooner, and as one of our errors.
    open_index(index_url(env)).files(canonicalize_name(Requirement(requires[0]).name))
    minor = next(minor for minor in _UV_GLIBC if minor <= glibc[1])
    with tempfile.TemporaryDirectory(prefix="appliance-lock-") as folder:
        wanted, pinned = Path(folder, "requirements.in"), Path(folder, "requirements.txt")
        wanted.write_text("\n".join(requires) + "\n", encoding="utf-8")
        if preferred:
            pinned.write_text("".join(f"{name}=={version}\n" for name, version in preferred.items()), encoding="utf-8")
        argv = [_uv(), "pip", "compile", "--no-config", "--quiet", "--no-header", "--no-annotate", "--no-strip-extras"]
        argv += ["--python", sys.executable, "--no-python-downloads", "--python-version", python]
        argv += ["--python-platform", f"{arch}-manylinux_2_{minor}", "--only-binary", ":all:"]
        argv += ["--output-file", str(pinned), str(wanted)]
        complaint = _run(argv, Path(folder), _uv_env(env))
        if complaint is not None:
            raise _unsolved(python, complaint)
        return _parse_pins(pinned.read_text(encoding="utf-8"))


def _uv() -> str:
    import uv

    return str(uv.find_uv_bin())


def _run(argv: Sequence[str], folder: Path, env: Mapping[str, str]) -> str | None:
    # The complaint of uv, or None after success.
    try:
        done = subprocess.run(
            argv, check=False, env=env, cwd=folder, capture_output=True, encoding="utf-8", errors="replace",
            timeout=UV_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer from uv within {UV_TIMEOUT_S} s"
    return done.stderr if done.returncode else None


def _uv_env(env: Mapping[str, str]) -> dict[str, str]:
    # The address goes through the environment: other users of this machine could read it among the arguments.
    kept = {name: value for name, value in env.items() if not name.startswith("UV_") or name in _UV_KEEPS}
    return kept | {
        "UV_DEFAULT_INDEX": index_url(env),
        "UV_SYSTEM_CERTS": "1",
        "UV_NATIVE_TLS": "1",
    }


def _parse_pins(text: str) -> dict[str, str]:
    pins: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement = Requirement(line)
            pins[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return pins


def _unsolved(python: str, text: str) -> ApplianceError:
    return ApplianceError(
        "closure.unsolvable",
        f"the wheels for Python {python}",
        expected="one version of each package that fits all others, as a wheel for the target",
        found=re.sub(r"\S*://\S+", "(address)", text).strip()[-1500:],
        hint="choose another Python in targets, or wait for the missing wheel",
    )
