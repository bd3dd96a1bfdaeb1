"""Built runtimes in the cache: `<key>/` when finished, `<key>.building/` before, one builder at a time.

Owns the names, the lock and `build.json`. It must never compile.

Rules:
- `<key>/` appears by one rename, with everything in it on the disk;
- the next run continues an unfinished folder in the same boot only: a power cut may leave its files incomplete;
- a finished wheel is used only while its bytes have the digest in `build.json`; otherwise it is built again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance import filelock
from appliance.builder.runtime.build_types import BuiltRuntime
from appliance.builder.sources.file import measure
from bundles.progress import OnProgress, Progress
from signing.digest import Digest
from signing.errors import BusyError, NotTrustedError
from signing.strictjson import load_canonical, to_file

BUILD_FILE = "build.json"
COMPILED = "compiled_s"
"""The field of that file for the seconds that the build took."""
_STATE_FILE = "state.json"
_KEY_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Slot:
    """The paths of one runtime in the cache.

    Args:
        cache: the runtime part of the cache.
        key: the digest of everything that decides the wheel's bytes.
    """

    cache: Path
    key: Digest

    @property
    def finished(self) -> Path:
        """The folder of the finished wheel."""
        return self.cache / self.key[:_KEY_LENGTH]

    @property
    def building(self) -> Path:
        """The folder of the unfinished build."""
        return self.cache / f"{self.key[:_KEY_LENGTH]}.building"

    @property
    def log(self) -> Path:
        """The output of cmake and ninja; it stays when the build folder is removed."""
        return self.cache / f"{self.key[:_KEY_LENGTH]}.log"

    @contextmanager
    def locked(self, timeout_s: float, on_progress: OnProgress) -> Iterator[int]:
        """Lock this slot against other builders.

        Args:
            timeout_s: how long to wait for another builder.
            on_progress: called while waiting.

        Yields:
            The lock's descriptor. Children that keep it open keep the lock.

        Raises:
            BusyError: another builder still has it.
        """
        self.cache.mkdir(parents=True, exist_ok=True)
        path = self.cache / f"{self.key[:_KEY_LENGTH]}.lock"
        waiting = Progress("waiting for another build of the same runtime", 0, 0, "steps")
        with filelock.hold(
            path, lambda _: _busy(path), timeout_s=timeout_s, on_wait=lambda: on_progress(waiting), mode=0o644
        ) as descriptor:
            yield descriptor

    def read_finished(self) -> BuiltRuntime | None:
        """The finished runtime, its wheel hashed once in this process; None where there is none or its bytes differ."""
        try:
            facts = load_canonical((self.finished / BUILD_FILE).read_bytes(), BUILD_FILE)
            path = self.finished / str(facts["file"])
            digest, size = measure(path)
        except (OSError, NotTrustedError, KeyError, TypeError):
            return None
        if facts.get("key") != self.key or (facts.get("sha256"), facts.get("size")) != (digest, size):
            return None
        return _from_facts(facts, path)

    def finish(self, result: Path, built: BuiltRuntime, compiled_s: int | None = None) -> BuiltRuntime:
        """Move a finished folder to its place and remove the build folder.

        Args:
            result: a folder on the same file system that holds nothing but the wheel.
            built: with its path in `result`.
            compiled_s: how long it took, in seconds; None where another run did a part of it.
        """
        facts = asdict(built) | {"file": built.path.name, "key": self.key}
        facts |= {} if compiled_s is None else {COMPILED: compiled_s}
        del facts["path"]
        (result / BUILD_FILE).write_bytes(to_file(facts))
        for path in (*result.iterdir(), result):
            _sync(path)
        shutil.rmtree(self.finished, ignore_errors=True)
        result.rename(self.finished)
        _sync(self.cache)
        shutil.rmtree(self.building, ignore_errors=True)
        return _from_facts(facts, self.finished / built.path.name)

    def is_configured(self, boot: str) -> bool:
        """Whether the build folder is of this key and boot, with sources and settings complete."""
        try:
            state = load_canonical((self.building / _STATE_FILE).read_bytes(), _STATE_FILE)
        except (OSError, NotTrustedError):
            return False
        return bool(state == {"boot": boot, "key": self.key})

    def mark_configured(self, boot: str) -> None:
        """Record that the build folder is complete, so that compiling may begin or continue."""
        temporary = self.building / f"{_STATE_FILE}.part"
        temporary.write_bytes(to_file({"boot": boot, "key": self.key}))
        temporary.rename(self.building / _STATE_FILE)


def read_boot() -> str:
    """An identifier of this boot; empty where the kernel has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _from_facts(facts: dict[str, Any], path: Path) -> BuiltRuntime:
    return BuiltRuntime(
        path=path,
        sha256=facts["sha256"],
        size=facts["size"],
        unpacked_size=facts["unpacked_size"],
        version=facts["version"],
        variants=tuple(facts["variants"]),
        glibc=facts["glibc"],
        glibcxx=facts["glibcxx"],
        cxxabi=facts["cxxabi"],
        toolchain=dict(facts["toolchain"]),
        flags=tuple(facts["flags"]),
    )


def _busy(path: Path) -> BusyError:
    return BusyError(
        "runtime.busy",
        str(path),
        expected="no other build of the same runtime",
        found="one that is still running",
        hint="wait for it to end, then run the same command again",
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
