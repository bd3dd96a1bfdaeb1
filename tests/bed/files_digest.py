"""What is on a host's disk, as text that can be compared: type, mode, owner and content of every path.

Used by every bed, so that two hosts can be compared whatever they run on. Standard library only and Python 3.9: a
guest runs this very file (`python3 files_digest.py ROOT VOLATILE-FILE` prints JSON).

Rules:

- No link is followed and no other file system is entered.
- Times do not count; neither do sizes of folders.
- What is left out stands in one file, `volatile.txt`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator

VOLATILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "volatile.txt")
BLOCK_BYTES = 1 << 20


def read_patterns(path: str = VOLATILE) -> list[str]:
    """The patterns of `volatile.txt`."""
    with open(path, encoding="utf-8") as lines:
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


class Known:
    """Digests of files that nobody changes any more, so that each is read once.

    Args:
        before_ns: files whose last change is not older than this are read each time.
    """

    def __init__(self, before_ns: int = 0) -> None:
        self.before_ns = before_ns
        self._digests: dict[tuple[int, int, int], str] = {}

    def digest(self, path: str, state: os.stat_result) -> str:
        """The digest of a regular file."""
        if state.st_ctime_ns >= self.before_ns:
            return _sha256(path)
        key = (state.st_ino, state.st_size, state.st_ctime_ns)
        if key not in self._digests:
            self._digests[key] = _sha256(path)
        return self._digests[key]


def files_below(root: str, patterns: Iterable[str], known: Known | None = None) -> dict[str, str]:
    """Each path below `root`, as seen from there, with what it is.

    Args:
        root: a folder that nobody changes meanwhile.
        patterns: of paths to leave out; what is left out is not entered either.
        known: digests of earlier calls on trees with common files.

    Returns:
        By path: `f 0644 0:0 <sha256>`, `d 0755 0:0`, `l 0777 0:0 <target>`, or another letter for what holds no bytes.
    """
    left_out = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or r"(?!)")
    root = root.rstrip("/")
    device = os.lstat(root or "/").st_dev
    return dict(_walk(root, "", left_out, device, known or Known()))


def digest_of(files: dict[str, str]) -> str:
    """One digest for all of them."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What was added (+), removed (-) and changed (~), by path."""
    changed = [f"~ {path}" for path in before.keys() & after.keys() if before[path] != after[path]]
    added = [f"+ {path}" for path in after.keys() - before.keys()]
    removed = [f"- {path}" for path in before.keys() - after.keys()]
    return sorted(added + removed + changed, key=lambda line: line[2:])


def _walk(root: str, folder: str, left_out: re.Pattern[str], device: int, known: Known) -> Iterator[tuple[str, str]]:
    with os.scandir(root + folder or "/") as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        path = f"{folder}/{name}"
        if left_out.match(path):
            continue
        state = os.lstat(root + path)
        yield path, _describe(root + path, state, known)
        if stat.S_ISDIR(state.st_mode) and state.st_dev == device:
            yield from _walk(root, path, left_out, device, known)


def _describe(path: str, state: os.stat_result, known: Known) -> str:
    mode = state.st_mode
    text = f"{stat.filemode(mode)[0].replace('-', 'f')} {stat.S_IMODE(mode):04o} {state.st_uid}:{state.st_gid}"
    if stat.S_ISREG(mode):
        return f"{text} {known.digest(path, state)}"
    if stat.S_ISLNK(mode):
        return f"{text} {os.readlink(path)}"
    return text


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    json.dump(files_below(sys.argv[1], read_patterns(sys.argv[2])), sys.stdout)
