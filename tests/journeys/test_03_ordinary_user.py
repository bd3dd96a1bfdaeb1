"""The operator has no root and no network: the same stick installs and serves."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uv
from packaging.requirements import Requirement

from tests.journeys.conftest import Demo, appliance

pytestmark = pytest.mark.ci

NOBODY = 65534


def as_nobody(*command: str | Path) -> list[str]:
    """The command line as an ordinary user; as it is where the tests are not root."""
    words = [str(word) for word in command]
    if os.geteuid() != 0:
        return words
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    return [*user, "--no-new-privs", "--", *words]


def usable_python() -> str:
    """A Python 3.11 that an ordinary user can run."""
    for name in ("/usr/bin/python3.11", shutil.which("python3.11"), shutil.which("python3")):
        if name:
            check = as_nobody(name, "-I", "-c", "import sys, json, ssl; sys.exit(sys.version_info[:2] != (3, 11))")
            if subprocess.run(check, capture_output=True, check=False).returncode == 0:
                return name
    pytest.skip("no Python 3.11 that an ordinary user can run: the recipe's target is Debian 12's")


def run_uv(*arguments: str | Path) -> None:
    """Run uv without the settings of this machine."""
    subprocess.run([uv.find_uv_bin(), "--quiet", "--no-config", *map(str, arguments)], check=True)


def add_client(site: Path) -> None:
    """Copy the openai client and what it needs beside the bundle's packages; what is there already stays."""
    waiting, seen = ["openai"], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            if ".." not in file.parts and not (site / file).exists():
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), site / file)
        requirements = [Requirement(text) for text in distribution.requires or ()]
        waiting += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A folder that an ordinary user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="appliance-journey-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def seen(demo: Demo, public: Path) -> dict[str, Any]:
    """What the host half of the journey saw, with the program installed from the bundle's own wheels."""
    venv = public / "venv"
    wheels = demo.release / "wheels"
    run_uv("venv", "--python", usable_python(), venv)
    options = ("--offline", "--no-index", "--find-links", wheels, "--python", venv / "bin/python")
    run_uv("pip", "install", *options, "airgap-appliance")
    add_client(next((venv / "lib").glob("python3*")) / "site-packages")
    shutil.copytree(demo.stick, public / "stick")
    shutil.copy(demo.workspace / "trust/root.json", public / "root.json")
    shutil.copy(Path(__file__).with_name("inside.py"), public / "inside.py")
    (public / "operator").mkdir()
    if os.geteuid() == 0:
        os.chown(public / "operator", NOBODY, NOBODY)
    shown = appliance("trust", "show", "--workspace", demo.workspace, "--json")
    [fingerprint] = json.loads(shown.out)["roles"]["root"]["fingerprints"]
    words: tuple[str | Path, ...] = (public / "stick", public / "root.json", fingerprint, public / "operator/host")
    done = subprocess.run(
        as_nobody(venv / "bin/python", "-I", "-B", public / "inside.py", *words),
        capture_output=True,
        text=True,
        cwd=public,
        env={"PATH": "/usr/bin:/bin", "HOME": str(public / "operator"), "LANG": "C.UTF-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def test_it_ran_as_an_ordinary_user_without_a_network(seen: dict[str, Any]) -> None:
    if seen["refusal"]:
        pytest.skip(f"this machine lets no ordinary user make a network namespace: {seen['refusal']}")
    assert seen["uid"] != 0
    assert seen["interfaces"] == ["lo"]
    assert not seen["reaches_out"]


def test_install_succeeds_and_names_the_cpu_variant(seen: dict[str, Any]) -> None:
    assert seen["pin"]["code"] == 0, seen["pin"]["err"]
    assert seen["install"]["code"] == 0, seen["install"]["err"]
    assert json.loads(seen["install"]["out"])["cpu_variant"]


def test_openai_client_gets_two_different_answers_and_a_stream(seen: dict[str, Any]) -> None:
    first, second = seen["serve"]["answers"]
    assert first["text"] != second["text"]
    assert min(first["tokens"], second["tokens"]) > 0
    assert seen["serve"]["pieces"] > 1


def test_wrong_key_and_unknown_model_are_refused(seen: dict[str, Any]) -> None:
    assert seen["serve"]["refusals"] == {"wrong key": 401, "unknown model": 404}


def test_engine_and_every_library_of_ours_is_mapped_from_the_release(seen: dict[str, Any], public: Path) -> None:
    releases = str(public / "operator/host/opt/appliance/releases")
    [(executable, files)] = seen["serve"]["maps"].items()
    assert executable.startswith(releases)
    ours = [path for path in files if "ggml" in path or "llama" in path or "mtmd" in path]
    assert all(path.startswith(f"{releases}/") for path in ours)
    assert len([path for path in ours if "libggml-cpu-" in path]) == 1
    system = [path for path in files if path.startswith(("/lib", "/usr/lib"))]
    assert sorted({*files} - {*ours} - {*system}) == [path for path in files if path.startswith("/memfd:")]


def test_second_install_changes_nothing(seen: dict[str, Any]) -> None:
    assert seen["again"]["code"] == 0, seen["again"]["err"]
