"""The architectures of models that a release of llama.cpp knows, read from the sdist that its runtime is built from.

Owns how the list is found. It is never written by hand: a list of another release would accept what this one refuses.

Source: llama.cpp, `src/llama-arch.cpp`: `LLM_ARCH_NAMES`.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from pathlib import Path

from appliance.builder.cache.content_store import Cache
from appliance.builder.runtime.compilation.source import LLAMA
from signing.digest import Digest
from signing.errors import DamagedError

_FILE = f"/{LLAMA}/src/llama-arch.cpp"
_FOLDER = "architectures"
_TABLE = re.compile(r"LLM_ARCH_NAMES\s*=\s*\{(.*?)\n\};", re.DOTALL)
_NAME = re.compile(r'\{\s*LLM_ARCH_\w+,\s*"([^"()]+)"\s*\}')


def runtime_architectures(sdist: Path, digest: Digest, cache: Cache) -> frozenset[str]:
    """The architectures that the runtime of an sdist knows, from the cache or from the sdist.

    Args:
        sdist: verified, of llama-cpp-python.
        digest: of its bytes; the list is kept under it.
        cache: keeps the list, since unpacking takes a second.

    Raises:
        DamagedError: the sdist has no such list.
    """
    place = cache.folder(_FOLDER) / f"{digest}.json"
    if found := _read(place):
        return found
    names = _names_in(sdist)
    temporary = place.with_suffix(".part")
    temporary.write_text(json.dumps(sorted(names)))
    temporary.replace(place)
    return names


def cached_architectures(cache: Cache) -> frozenset[str] | None:
    """The newest list that the cache has; None where it has none."""
    folder = cache.root / _FOLDER
    try:
        places = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return None
    return next((found for place in places if (found := _read(place))), None)


def _read(place: Path) -> frozenset[str]:
    try:
        value = json.loads(place.read_bytes())
    except (OSError, ValueError):
        return frozenset()
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return frozenset(value) if is_list else frozenset()


def _names_in(sdist: Path) -> frozenset[str]:
    try:
        with tarfile.open(sdist, "r|gz") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() and member.name.endswith(_FILE) else None
                if stream is not None:
                    table = _TABLE.search(stream.read().decode("utf-8", "replace"))
                    return _checked(frozenset(_NAME.findall(table[1])) if table else frozenset(), sdist)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DamagedError("runtime.sdist-unreadable", str(sdist), expected="a .tar.gz", found=str(error)) from None
    return _checked(frozenset(), sdist)


def _checked(names: frozenset[str], sdist: Path) -> frozenset[str]:
    if "llama" not in names:
        raise DamagedError(
            "runtime.sdist-unreadable",
            sdist.name,
            expected=f"a list of architectures in {_FILE[1:]}",
            found=f"{len(names)} names",
            hint="choose another `llama_cpp_python` in the recipe",
        )
    return names
