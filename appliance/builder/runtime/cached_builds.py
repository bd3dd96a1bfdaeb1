"""The runtimes in the cache as a lock and a build look at them: what each was built with, and how long that took.

Owns the reading of `build.json` of all entries, the tools to prefer in a lock, and the words for why a build compiles.
It must never compile, or change an entry.

Rules:
- an entry counts for sources where its key is the digest of exactly these sources and of what it states;
- what a lock prefers are the tools of one entry: that of the recipe's own settings, else the newest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.runtime.built_runtimes import BUILD_FILE, COMPILED
from appliance.builder.runtime.wheel import runtime_key
from signing.digest import Digest
from signing.errors import NotTrustedError
from signing.strictjson import load_canonical

USUAL = "this takes about ten minutes on two cores"
_DIGEST = "_sha256"


@dataclass(frozen=True, slots=True)
class CachedBuild:
    """A runtime in the cache.

    Args:
        toolchain: name and version of everything that shaped it; of tools from wheels also the digest.
        flags: every setting that shaped it.
        compiled_s: how long it took, in seconds; None where that is not on record.
        finished_ns: when it was finished, by the file system.
    """

    toolchain: Mapping[str, str]
    flags: tuple[str, ...]
    compiled_s: int | None
    finished_ns: int


@dataclass(frozen=True, slots=True)
class BuiltWith:
    """A build tool that a cached runtime was built with: its version, and the digest of its wheel."""

    version: str
    sha256: Digest


def cached_builds(cache_dir: Path, sdist: Digest, version: str) -> tuple[CachedBuild, ...]:
    """The runtimes of these sources in the cache, newest first.

    Args:
        cache_dir: the runtime part of the cache; it may be absent.
        sdist: digest of the sources.
        version: of llama-cpp-python.
    """
    found = []
    for path in cache_dir.glob(f"*/{BUILD_FILE}"):
        try:
            facts = load_canonical(path.read_bytes(), BUILD_FILE)
            toolchain, flags = dict(facts["toolchain"]), tuple(facts["flags"])
            if facts["key"] == runtime_key(sdist, version, flags, toolchain):
                took = facts.get(COMPILED)
                found.append(CachedBuild(toolchain, flags, took, path.stat().st_mtime_ns))
        except (OSError, NotTrustedError, KeyError, TypeError, ValueError):
            continue
    return tuple(sorted(found, key=lambda one: one.finished_ns, reverse=True))


def tools_built_with(builds: tuple[CachedBuild, ...], flags: tuple[str, ...] | None) -> dict[str, BuiltWith]:
    """The build tools that a lock prefers, by name, so that a runtime in the cache stays of use.

    Args:
        builds: of `cached_builds`.
        flags: the settings of the recipe's runtime; None where they are not known.
    """
    best = next((one for one in builds if one.flags == flags), next(iter(builds), None))
    if best is None:
        return {}
    chain = best.toolchain
    return {name: BuiltWith(chain[name], Digest(chain[name + _DIGEST])) for name in chain if name + _DIGEST in chain}


def explain_compilation(
    builds: tuple[CachedBuild, ...], version: str, flags: tuple[str, ...], toolchain: Mapping[str, str]
) -> str:
    """One line for people: why a runtime is compiled although others may be in the cache, and how long it takes.

    Args:
        builds: of `cached_builds`, for the same sources; the one to compile is not among them.
        version: of llama-cpp-python.
        flags, toolchain: of the runtime that is to be compiled.
    """
    if not builds:
        return f"compiling llama.cpp: the cache has no runtime of llama-cpp-python {version}; {USUAL}"
    near = min(builds, key=lambda one: len(_differences(one, flags, toolchain)))
    reasons = "; ".join(_differences(near, flags, toolchain)) or "the one in the cache was changed or removed"
    took = near.compiled_s
    lasts = USUAL if took is None else f"the last time took {took // 60} min {took % 60} s"
    return f"compiling llama.cpp again: {reasons}; {lasts}"


def _differences(build: CachedBuild, flags: tuple[str, ...], toolchain: Mapping[str, str]) -> list[str]:
    before = build.toolchain
    found = [
        f"{name} is {toolchain.get(name, 'absent')}, and was {before.get(name, 'absent')}"
        for name in sorted(before.keys() | toolchain.keys())
        if not name.endswith(_DIGEST) and before.get(name) != toolchain.get(name)
    ]
    found += [
        f"{name} {toolchain[name]} comes in another wheel"
        for name in sorted(before.keys() & toolchain.keys())
        if before[name] == toolchain[name] and before.get(name + _DIGEST) != toolchain.get(name + _DIGEST)
    ]
    changed = sorted({flag.partition("=")[0] for flag in set(flags) ^ set(build.flags)})
    return found + ([f"other settings: {', '.join(changed)}"] if changed else [])
