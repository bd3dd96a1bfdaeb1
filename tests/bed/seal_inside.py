"""What a guest is asked about seals, run inside it with its own kernel: `python3 seal_inside.py WORK`, as root.

WORK holds `model.gguf`, `other.gguf`, `runtime/` and `files.json`, which may name a `big` file of zeros. It is copied
to a disk of its own: a loop device with ext4 and the feature verity, whose blocks can be changed below the file system.
The answer is one JSON value on standard output. It must never judge: `test_guest_seal` does.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.state import read_state
from appliance.host.layout.prefix import Prefix
from appliance.host.models.incident import read_incident
from appliance.host.models.scrub import scrub_file
from appliance.host.models.seal import filesystem_kind, seal, seal_ability
from appliance.host.models.served_file import open_verified
from appliance.serve.supervisor.engine_keeper import EngineKeeper
from appliance.serve.supervisor.launch_plan import ServedModel
from appliance.serve.supervisor.service_event import ServiceEvent
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from signing.digest import Digest
from signing.errors import ApplianceError

MIB = 1 << 20
BIG = "big"
PAGE = 4096
_FIBMAP, _MADV_PAGEOUT, _PROCESS_MADVISE = 1, 21, 440


@contextmanager
def sealed_disk(folder: Path, size_bytes: int) -> Iterator[tuple[Path, Path]]:
    """A file system with the feature verity; gives where it is mounted, and the file that holds its blocks."""
    image, place = folder / "disk.img", folder / "disk"
    with image.open("wb") as file:
        file.truncate(size_bytes)
    call("mkfs.ext4", "-q", "-b", str(PAGE), "-O", "verity", str(image))
    place.mkdir()
    call("mount", "-o", "loop", str(image), str(place))
    try:
        yield place, image
    finally:
        call("umount", "--lazy", str(place))


def call(*words: str) -> str:
    """Run a program of the guest."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def write_zeros(path: Path, size: int) -> None:
    """Write a file whose blocks lie on the disk, although they are all equal."""
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            file.write(bytes(min(MIB, size - at)))


def load_file(fields: dict[str, Any]) -> File:
    """A file as signed contents would describe it."""
    chunks = tuple(Chunk(Digest(digest), size) for digest, size in fields["chunks"])
    size, digest, verity = fields["size"], Digest(fields["sha256"]), Digest(fields["fsverity"])
    return File("models/m/model.gguf", "model", 0o644, size, digest, chunks, verity)


def read_bytes() -> int:
    """Bytes that this process has had read from a disk."""
    text = Path("/proc/self/io").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("read_bytes")))


def resident_pages(descriptor: int, size: int) -> int:
    """How many pages of a file lie in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, descriptor, ctypes.c_long(0))
    found = (ctypes.c_ubyte * (-(-size // PAGE)))()
    assert libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), found) == 0
    libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
    return sum(one & 1 for one in found)


def drop_caches() -> None:
    """Have every page that nobody maps read from the disk again."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def page_out(pid: int, path: Path) -> None:
    """Take the pages of a file that a process maps out of the memory: the next access reads the disk."""
    libc, pidfd = ctypes.CDLL(None, use_errno=True), os.pidfd_open(pid)
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if not line.endswith(str(path)):
            continue
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        span = struct.pack("QQ", start, end - start)
        done = libc.syscall(_PROCESS_MADVISE, pidfd, ctypes.c_char_p(span), ctypes.c_size_t(1), _MADV_PAGEOUT, 0)
        assert done >= 0, os.strerror(ctypes.get_errno())
    os.close(pidfd)
    drop_caches()


def corrupt(path: Path, image: Path, at: int) -> None:
    """Change eight bytes of a file on the device below its file system."""
    with path.open("rb") as file:
        block = struct.unpack("i", fcntl.ioctl(file.fileno(), _FIBMAP, struct.pack("i", at // PAGE)))[0]
    with image.open("r+b") as disk:
        disk.seek(block * PAGE + at % PAGE)
        found = disk.read(8)
        disk.seek(block * PAGE + at % PAGE)
        disk.write(bytes(byte ^ 0xFF for byte in found))
        disk.flush()
        os.fsync(disk.fileno())


class Stream:
    """One long answer of an engine, read from its socket."""

    def __init__(self, path: Path, tokens: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        body = {"prompt": [1, 260, 261], "n_predict": tokens, "stream": True, "ignore_eos": True, "seed": 1}
        data = json.dumps(body).encode()
        head = f"POST /completion HTTP/1.1\r\nHost: e\r\nContent-Length: {len(data)}\r\n"
        self.socket.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + data)
        self.tokens, self.has_ended, self.has_stopped = 0, False, False

    def read(self, timeout_s: float, is_enough: Callable[[], bool]) -> int:
        """Read until enough has come, or nothing came for so long; gives the tokens that came."""
        before = self.tokens
        self.socket.settimeout(timeout_s)
        while not is_enough():
            try:
                data = self.socket.recv(MIB)
            except TimeoutError:
                break
            except OSError:
                data = b""
            if not data:
                self.has_ended = True
                break
            self.tokens += len(re.findall(rb'"content":', data))
            self.has_stopped |= b'"stop":true' in data
        return self.tokens - before


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> bool:
    """Wait until something holds."""
    until = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(condition())


def start_without_reading(file: File, path: Path) -> dict[str, Any]:
    """What a start reads of a model between the opening and the engine's own program."""
    drop_caches()
    with path.open("rb") as probe:
        cold, before, began = resident_pages(probe.fileno(), file.size), read_bytes(), time.monotonic()
        with open_verified(file, path) as served:
            took, read = time.monotonic() - began, read_bytes() - before
            warm = resident_pages(served.fd, file.size)
            control = os.pread(served.fd, PAGE, file.size // 2 // PAGE * PAGE)
            return {
                "level": served.level,
                "read_bytes": read,
                "pages_before": cold,
                "pages_after": warm,
                "seconds": took,
                "control_read_bytes": read_bytes() - before if control else 0,
            }


class Story:
    """Two models on one disk: one whose block changes while it answers, and another."""

    def __init__(self, work: Path, disk: Path, image: Path) -> None:
        self.work, self.disk, self.image = work, disk, image
        self.files = {name: load_file(one) for name, one in json.loads((work / "files.json").read_text()).items()}
        self.prefix = Prefix(work / "host")
        self.events: list[ServiceEvent] = []
        self.runtime = disk / "runtime"

    def path(self, name: str) -> Path:
        return self.disk / f"{name}.gguf"

    def seal(self) -> dict[str, Any]:
        """Copy the models to the disk, and seal them."""
        shutil.copytree(self.work / "runtime", self.runtime)
        outcomes = {}
        for name, file in self.files.items():
            if name == BIG:
                write_zeros(self.path(name), file.size)
            else:
                shutil.copyfile(self.work / f"{name}.gguf", self.path(name))
            self.path(name).chmod(0o444)
            outcomes[name] = seal(self.path(name), file.fsverity or Digest("")).outcome
        with self.path("model").open("rb") as opened:
            return {
                "outcomes": outcomes,
                "again": seal(self.path("model"), self.files["model"].fsverity or Digest("")).outcome,
                "wrong": seal(self.path("model"), Digest("0" * 64)).outcome,
                "ability": seal_ability(self.disk).outcome,
                "without": seal_ability(Path("/run")).outcome,
                "kind": filesystem_kind(opened.fileno()),
            }

    def keeper(self, name: str) -> EngineKeeper:
        run_dir = self.work / "run"
        run_dir.mkdir(exist_ok=True)
        spec = EngineSpec(name, self.files[name], self.path(name), self.runtime, 4096, 1, 1)
        model = cast(Any, SimpleNamespace(name=name))
        log = self.work / f"{name}.log"
        made = EngineKeeper(
            ServedModel(model, spec), run_dir, log, lambda: None, self.events.append, lambda _: None, self.prefix
        )
        made.start()
        made.wait_ready()
        made.watch()
        return made

    def serve_and_corrupt(self) -> dict[str, Any]:
        """Corrupt a block of a model below its file system while its engine answers."""
        keeper, other = self.keeper("model"), self.keeper("other")
        try:
            assert keeper.engine is not None
            pid = keeper.engine.child.program_pid or 0
            stream = Stream(keeper.engine.socket, 100_000)
            first = stream.read(30, lambda: stream.tokens >= 5)
            self.pause(pid, stream, lambda: None)
            # The control: pages that come from the disk again are no end of an answer.
            control = stream.read(30, lambda: stream.tokens >= first + 10)
            self.pause(pid, stream, lambda: corrupt(self.path("model"), self.image, self.place))
            after = stream.read(60, lambda: stream.has_ended)
            stopped = wait_for(lambda: any(event.is_stop for event in self.events))
            state = read_state(keeper._socket)
            incident = read_incident(self.prefix, self.files["model"].sha256, "model")
            asked = Stream(other._socket, 5)
            return {
                "level": keeper.engine.level,
                "first": first,
                "control": control,
                "after": after,
                "has_ended": stream.has_ended,
                "has_stopped": stream.has_stopped,
                "is_stopped": stopped,
                "state": [state.status, state.reason] if state else None,
                "cause": incident.cause if incident else None,
                "events": [[event.what, event.subject] for event in self.events],
                "other": asked.read(60, lambda: asked.has_stopped),
                "other_ready": other.is_ready,
                "restart": refusal(keeper.start),
                "kernel": [line for line in call("dmesg").splitlines() if "FILE CORRUPTED" in line][:2],
            }
        finally:
            keeper.stop()
            other.stop()

    @property
    def place(self) -> int:
        """Inside the last matrix, which every token needs."""
        return (self.files["model"].size - 64 * 1024) // PAGE * PAGE + 100

    def pause(self, pid: int, stream: Stream, act: Callable[[], None]) -> None:
        """Do something below a stopped engine whose pages were taken out of the memory."""
        os.kill(pid, signal.SIGSTOP)
        stream.read(0.5, lambda: False)
        act()
        page_out(pid, self.path("model"))
        os.kill(pid, signal.SIGCONT)

    def look_again(self) -> dict[str, Any]:
        """What a scrub and another start find, after the block was changed."""
        drop_caches()
        found = scrub_file(self.files["model"], self.path("model"))
        again = open_verified(self.files["model"], self.path("model"))
        again.close()
        return {
            "fault": [found.fault.cause, found.fault.detail] if found.fault else None,
            "is_sealed": found.is_sealed,
            "level": again.level,
            "other": scrub_file(self.files["other"], self.path("other")).fault is None,
        }


def refusal(act: Callable[[], None]) -> str:
    """The code with which something is refused; empty where it is not."""
    try:
        act()
    except ApplianceError as error:
        return error.code
    return ""


def main(work: Path) -> None:
    """The whole of it, on one disk."""
    files = json.loads((work / "files.json").read_text())
    with sealed_disk(work, 96 * MIB + 2 * sum(one["size"] for one in files.values())) as (disk, image):
        story = Story(work, disk, image)
        answer = {"seal": story.seal()}
        answer["starts"] = {name: start_without_reading(file, story.path(name)) for name, file in story.files.items()}
        answer["serve"] = story.serve_and_corrupt()
        answer["again"] = story.look_again()
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
