"""What the gateway costs, what many users get, and what one user gets beside another who asks without end.

Owns a host that serves the demo's bundle, and the peer: `python -m llama_cpp.server` with the same model, threads and
processor variant. Rules:
- gateway and bare engine are compared on one and the same engine process. They take turns, and so do engine and peer:
  a machine is not equally fast all the time, so that the ratios of each turn count;
- the first token is measured on one user who asks again and again beside the others. Where all ask in the same moment,
  the engine reads some prompts together or not by chance. What the gateway adds is the median of differences: each
  answer waits for the step that the engine is in, which differs by more than what is added;
- the load is a process of its own, the same for all sides (`tests.bench.load`);
- the peer runs in an environment of its own, which is made once and kept in the cache of this machine.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from tests.appliance.shipped import shipped_cache, shipped_model, shipped_runtime
from tests.bench.figure import TOP, Figure
from tests.bench.load import Load, ask_all
from tests.bench.material import PROGRAM, Material, appliance

SLOTS, TOKENS, ROUNDS, PAIRS, REPEATS = 8, 96, 7, 60, 20
MIN_SHARE, MAX_FIRST_S, MIN_PEER = 0.97, 0.005, 1.7
MAX_BYTES, CROWD = 80e6, 64
MAX_NEIGHBOUR = 2.0
# A host with nothing beside its engine: the site fixes the number of threads to that of its cores.
_SITE = f"slots: {SLOTS}\ncontext: 1024\nport: 0\nthreads: {len(os.sched_getaffinity(0))}\n"
_READY_S = 300.0


@dataclass(frozen=True)
class Served:
    """What serves: the gateway, the socket of its engine, its process, and a key."""

    url: str
    socket: str
    model: str
    key: str
    gateway_pid: int
    prefix: Path
    variant: str
    threads: int

    @property
    def target(self) -> str:
        """Of the gateway, for the load."""
        return urlsplit(self.url).netloc


def serving(material: Material) -> list[Figure]:
    """The gateway in front of an engine, the peer, a crowd, and a neighbour."""
    with served(material) as site, peer(material, site.variant, site.threads) as other:
        figures = [_gateway_share(site, users) for users in (4, SLOTS)]
        figures += [_first_token(site, users) for users in (1, 4, SLOTS)]
        # Before another key asks: for a while, one key would get a part of the slots.
        ours, theirs = _in_turns("8 users", lambda: _ask(site, 8), lambda: ask_all(other, 8, TOKENS, "peer"))
        figures += _crowd(site)
        figures += _neighbour(site)
    what, against = "time for each token, 8 users", "`python -m llama_cpp.server`, same model, variant, threads"
    return [*figures, Figure(what, against, ours, theirs, 1 / MIN_PEER, "ms")]


@contextlib.contextmanager
def served(material: Material, site: str = _SITE) -> Iterator[Served]:
    """Install the demo's bundle below a prefix, and serve it for the length of the block."""
    workspace, bundle = material.demo
    prefix = material.folder / "served"
    (prefix / "etc/appliance").mkdir(parents=True)
    (prefix / "etc/appliance/site.yaml").write_text(site)
    shown: list[str | Path] = [PROGRAM, "trust", "show", "--workspace", workspace, "--json"]
    [fingerprint] = json.loads(subprocess.run(shown, check=True, capture_output=True).stdout)["roles"]["root"][
        "fingerprints"
    ]
    appliance("trust", "pin", workspace / "trust/root.json", "--fingerprint", fingerprint, "--prefix", prefix)
    appliance("install", bundle, "--prefix", prefix, "--yes")
    log = (material.folder / "serve.log").open("wb")
    command: list[str | Path] = [PROGRAM, "serve", "--prefix", prefix]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, cwd=TOP)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield _describe(ready, process.pid, prefix)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        shutil.rmtree(prefix, ignore_errors=True)


@contextlib.contextmanager
def peer(material: Material, variant: str, threads: int) -> Iterator[str]:
    """Serve the same model by the server that comes with llama-cpp-python, for the length of the block."""
    from appliance.host.runtime.unpacked import of_wheel

    folder = material.folder / "peer"
    folder.mkdir()
    libraries = of_wheel(shipped_runtime().path, folder).folder_with(variant)
    _, model = shipped_model()
    port = _free_port()
    # The stock loader finds no processor variant beside libraries that are loaded at run time: they are loaded first.
    start = (
        "import ctypes, runpy, sys;"
        f"ggml = ctypes.CDLL({str(libraries / 'libggml.so')!r}, ctypes.RTLD_GLOBAL);"
        f"ggml.ggml_backend_load_all_from_path({os.fsencode(libraries)!r});"
        "runpy.run_module('llama_cpp.server', run_name='__main__')"
    )
    words = ["--model", model, "--n_ctx", "1024", "--n_threads", threads, "--n_threads_batch", threads]
    command = [_peer_python(), "-c", start, *words, "--host", "127.0.0.1", "--port", port]
    # By default it cuts an answer when another user comes.
    command += ["--model_alias", "peer", "--interrupt_requests", "false"]
    environment = {**os.environ, "LLAMA_CPP_LIB_PATH": str(libraries)}
    with (material.folder / "peer.log").open("wb") as log:
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, env=environment)
        try:
            _await(lambda: _answers(port), "the peer", material.folder / "peer.log")
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _gateway_share(site: Served, users: int) -> Figure:
    ours, bare = _in_turns(
        f"{users} streams", lambda: _ask(site, users), lambda: ask_all(site.socket, users, TOKENS, site.model)
    )
    what, against = f"gateway, {users} streams: time for each token", "the same engine without it"
    return Figure(what, against, ours, bare, 1 / MIN_SHARE, "ms")


def _ask(site: Served, users: int) -> Load:
    return ask_all(site.target, users, TOKENS, site.model, site.key)


def _in_turns(what: str, ours: Callable[[], Load], theirs: Callable[[], Load]) -> tuple[float, float]:
    """Milliseconds for each token of both sides: the median of theirs, and that times the median of the ratios."""
    ratios, other = [], []
    for at in range(ROUNDS):
        loads = (ours(), theirs()) if at % 2 else (theirs(), ours())[::-1]
        _show(f"{what}, ours", loads[0])
        _show(f"{what}, theirs", loads[1])
        ratios.append(loads[0].s_per_token / loads[1].s_per_token)
        other.append(loads[1].s_per_token * 1e3)
    return median(other) * median(ratios), median(other)


def _first_token(site: Served, users: int) -> Figure:
    ours, bare = _first_tokens(site, users)
    what = f"gateway, {users} stream{'' if users == 1 else 's'}: first token, p50"
    return Figure(what, "the same engine without it, and 5 ms", ours * 1e3, (bare + MAX_FIRST_S) * 1e3, 1.0, "ms", 1)


def _first_tokens(site: Served, users: int) -> tuple[float, float]:
    """Seconds to the first token at p50, by the gateway and without it, of one user beside the others."""
    sides = ((site.target, site.key), (site.socket, ""))
    bare, added = [], []
    with _busy(site, users - 1, 5 * TOKENS) if users > 1 else contextlib.nullcontext():
        for at in range(PAIRS):
            order = sides if at % 2 else sides[::-1]
            seconds = {target: ask_all(target, 1, 2, site.model, key).first_s for target, key in order}
            bare.append(seconds[site.socket])
            added.append(seconds[site.target] - seconds[site.socket])
    return median(bare) + median(added), median(bare)


@contextlib.contextmanager
def _busy(site: Served, users: int, tokens: int) -> Iterator[None]:
    """Let users ask without end, by the gateway, for the length of the block."""
    stop = threading.Event()
    failed: list[int] = []

    def ask() -> None:
        while not stop.is_set() and not failed:
            try:
                load = ask_all(site.target, users, tokens, site.model, site.key)
            except SystemExit:
                failed.append(users)
                raise
            failed.extend([load.failed] if load.failed else [])

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(3.0)
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise SystemExit("bench: the others did not ask all the time")


def _crowd(site: Served) -> list[Figure]:
    load = ask_all(site.target, CROWD, TOKENS // 4, site.model, site.key)
    _show(f"{CROWD} users", load)
    memory = _peak_bytes(site.gateway_pid)
    return [
        Figure(
            f"{CROWD} users at once: neither a whole answer nor a 429 that shows when", "none", load.failed, 1, 0, "", 0
        ),
        Figure(f"gateway, {CROWD} streams: memory", "80 MB", memory / 1e6, MAX_BYTES / 1e6, 1.0, "MB", 0),
    ]


def _neighbour(site: Served) -> list[Figure]:
    """One user alone, and then beside another key that asks without end."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    grant: list[str | Path] = [PROGRAM, "access", "grant", "neighbour", "--prefix", site.prefix, "--json"]
    other = json.loads(subprocess.run(grant, check=True, capture_output=True, env=environment).stdout)["key"]

    def times() -> float:
        return median(ask_all(site.target, 1, 16, site.model, other).answers[0].total_s for _ in range(REPEATS))

    idle = times()
    with _busy(site, 2 * SLOTS, TOKENS):
        beside = times()
    return [
        Figure(
            "an answer of 16 tokens beside a flood by another key",
            "the same on an idle host",
            beside * 1e3,
            idle * 1e3,
            MAX_NEIGHBOUR,
            "ms",
            0,
        )
    ]


def _show(what: str, load: Load) -> None:
    refused = sum(answer.status == 429 for answer in load.answers)
    print(
        f"{what}: {1 / load.s_per_token:.0f} tokens/s, first token {load.first_s * 1e3:.0f} ms, {refused} refused",
        file=sys.stderr,
    )


def _describe(ready: dict[str, Any], pid: int, prefix: Path) -> Served:
    [model] = ready["models"]
    folder = json.loads((next((prefix / "run/appliance").glob("*.json"))).read_text())["sockets"]
    [engine] = Path(folder).glob("**/*.sock")
    words = Path(f"/proc/{model['pid']}/cmdline").read_bytes().decode().split("\0")
    libraries = [line for line in Path(f"/proc/{model['pid']}/maps").read_text().splitlines() if "libggml-cpu-" in line]
    variant = libraries[0].rpartition("libggml-cpu-")[2].removesuffix(".so")
    # Its launcher has the same words, and little memory.
    gateway = max((child for child in _descendants(pid) if "appliance.serve.gateway" in _words(child)), key=_peak_bytes)
    key = Path(str(ready["key_file"])).read_text().strip()
    threads = int(words[words.index("--threads") + 1])
    return Served(str(ready["url"]), str(engine), model["name"], key, gateway, prefix, variant, threads)


def _descendants(pid: int) -> list[int]:
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [one for child in children for one in (child, *_descendants(child))]


def _words(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise SystemExit("bench: the kernel does not say how much memory a process had")


def _peer_python() -> Path:
    """The Python of an environment with the peer and what it needs."""
    wheel = shipped_runtime().path
    folder = shipped_cache().folder("stock", f"server-{wheel.name.partition('-py3')[0]}")
    python = folder / "venv/bin/python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder / "venv", ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"{wheel}[server]"], check=True)
        (folder / "ready").touch()
    return python


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _await(is_there: Callable[[], bool], what: str, log: Path) -> None:
    until = time.monotonic() + _READY_S
    while not is_there():
        if time.monotonic() > until:
            raise SystemExit(f"bench: {what} did not answer\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)
