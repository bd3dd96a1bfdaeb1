"""Run the libraries that people use against a real gateway: `python -m tests.conformance.clients [NAME…]`.

Owns the environments of these libraries: below the cache, outside the checkout, each named by the digest of its lock.
Everything is installed by hash. Each program exits with 0 where its library works unmodified; the first that does not
makes this exit with 1, after all have run.

`--lock` chooses the newest versions again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from appliance.builder.cache.content_store import cache_root
from signing.digest import sha256
from tests.conformance.clients.site import real_site

HERE = Path(__file__).resolve().parent
CLIENTS: dict[str, tuple[str, ...]] = {
    "langchain": ("langchain", "langchain-openai"),
    "llamaindex": ("llama-index-core", "llama-index-llms-openai-like", "llama-index-embeddings-openai-like"),
    "litellm": ("litellm",),
    "instructor": ("instructor",),
    "agents": ("openai-agents",),
}
"""What the environment of each is made of."""
VERCEL = "vercel"
TIMEOUT_S = 600


def main(arguments: list[str]) -> int:
    """Run some clients, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.clients", description="Run clients.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"one of: {', '.join((*CLIENTS, VERCEL))}")
    parser.add_argument("--lock", action="store_true", help="choose the newest versions, run nothing")
    options = parser.parse_args(arguments)
    names = options.names or [*CLIENTS, VERCEL]
    if options.lock:
        for name in names:
            _lock(name)
        return 0
    commands = {name: _command(name) for name in names}
    with real_site() as site:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(site.sockets),
            "LC_ALL": "C.UTF-8",
            "KEY": site.keys["all"],
            "BASE_URL": f"http://127.0.0.1:{site.port}/v1",
        }
        failed = [name for name, command in commands.items() if not _passes(name, command, environment)]
    return 1 if failed else 0


def _passes(name: str, command: list[str | Path], environment: dict[str, str]) -> bool:
    try:
        code = subprocess.run(command, env=environment, timeout=TIMEOUT_S).returncode
    except subprocess.TimeoutExpired:
        code = -1
    print(f"{name}: {'passed' if code == 0 else 'FAILED'}", flush=True)
    return code == 0


def _command(name: str) -> list[str | Path]:
    lock = HERE / (f"{VERCEL}/package-lock.json" if name == VERCEL else f"locks/{name}.lock")
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = cache_root(os.environ) / "clients" / f"{name}-{sha256(lock.read_bytes())[:16]}-{python}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"clients: making {name}", file=sys.stderr, flush=True)
        if name == VERCEL:
            _install_npm(folder)
        else:
            _install(folder, lock)
        (folder / "ready").touch()
    if name == VERCEL:
        # A module finds its packages beside itself.
        shutil.copy(HERE / VERCEL / "client.mjs", folder / "client.mjs")
        return ["node", folder / "client.mjs"]
    return [folder / "bin" / "python", "-I", HERE / "programs" / f"{name}_client.py"]


def _install(folder: Path, lock: Path) -> None:
    venv.create(folder, with_pip=True)
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", lock], check=True)


def _install_npm(folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(HERE / VERCEL / file, folder / file)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True)


def _lock(name: str) -> None:
    if name == VERCEL:
        npm = ["npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(npm, cwd=HERE / VERCEL, check=True)
        return
    (HERE / "locks").mkdir(exist_ok=True)
    compile_lock: list[str | Path] = [
        Path(sys.executable).with_name("uv"),
        "pip",
        "compile",
        "-",
        "--universal",
        "--upgrade",
    ]
    quiet = ["--python-version", "3.10", "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header"]
    output: list[str | Path] = ["--quiet", "--output-file", HERE / "locks" / f"{name}.lock"]
    subprocess.run([*compile_lock, *quiet, *output], input="\n".join(CLIENTS[name]).encode(), check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
