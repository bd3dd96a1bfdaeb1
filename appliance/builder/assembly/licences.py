"""The licence texts that travel with everything a bundle packs.

Owns which text belongs to what, and its path below `licences/`. It must never judge a licence.

Rules:
- the texts are those that the author packed into the wheel; the runtime's wheel has those of all its parts;
- a model's text is that of its licence where this program has it, else the one in the wheel around it;
- where no text was packed, a file states which licence the author declares: nothing is without a licence file;
- paths follow the grammar of `bundles.contents.paths`, whatever the author called the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import RUNTIME, Lock, Locked
from appliance.builder.lock.pinned_fetch import fetch_whole
from appliance.builder.runtime.cuda_toolkit import HOST_TOOLKIT_NAMES
from appliance.builder.wheels.appliance_wheel import DISTRIBUTION, own_licence
from appliance.builder.wheels.reader import licence_texts
from bundles.progress import OnProgress, ignore

_OWN = "Apache-2.0"


def licence_files(lock: Lock, cache: Cache, runtime: Path, on_progress: OnProgress = ignore) -> list[tuple[str, bytes]]:
    """The licence texts of everything that is packed, and of this program.

    Args:
        lock: as read; its models, wheels, tools and libraries of CUDA are packed.
        cache: holds them, and the wheels around models; absent ones are fetched.
        runtime: the built wheel.
        on_progress: called with bytes.

    Returns:
        Paths below `licences/` and their bytes, sorted.

    Raises:
        As `fetch.fetch` and `reader.licence_texts`.
    """
    found = {f"{DISTRIBUTION}/LICENSE": own_licence()}
    found |= _below(RUNTIME, licence_texts(runtime))
    travelling = [entry for entry in lock.of_kind("build-tool") if entry.name in HOST_TOOLKIT_NAMES]
    for entry in (*lock.of_kind("tool", "wheel"), *travelling):
        found |= _below(entry.name, licence_texts(fetch_whole(entry, cache, on_progress)) or _declared(entry))
    for entry in lock.of_kind("model"):
        found |= _below(f"model-{entry.name}", _model_texts(entry, cache, on_progress) or _declared(entry))
    return sorted(found.items())


def _model_texts(entry: Locked, cache: Cache, on_progress: OnProgress) -> list[tuple[str, bytes]]:
    if entry.licence == _OWN:
        return [("LICENSE", own_licence())]
    return licence_texts(fetch_whole(entry, cache, on_progress)) if entry.member else []


def _declared(entry: Locked) -> list[tuple[str, bytes]]:
    terms = f"under the licence: {entry.licence}" if entry.licence else "without naming a licence"
    text = f"{entry.name} {entry.version}".strip() + f" comes {terms}\nIts author packed no licence text with it.\n"
    return [("DECLARED.txt", text.encode())]


def _below(folder: str, texts: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, data in texts:
        path, number = f"{folder}/{_plain(name)}", 2
        while path.casefold() in {one.casefold() for one in found}:
            path, number = f"{folder}/{number}-{_plain(name)}", number + 1
        found[path] = data
    return found


def _plain(name: str) -> str:
    # A text's folder becomes part of its name, so that no folder can have the name of a file.
    joined = re.sub(r"[^A-Za-z0-9._+@=-]", "_", name.replace("/", "-"))
    return joined.strip(".-")[:120].rstrip(".") or "LICENCE"
