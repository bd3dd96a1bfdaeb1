"""Each library that people use has a program, an environment that is installed by hash, and a place in `make soak`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.clients.__main__ import CLIENTS, HERE, VERCEL
from tests.test_repository import TOP


@pytest.mark.parametrize("name", CLIENTS)
def test_every_client_has_a_program_and_a_lock_with_its_packages(name: str) -> None:
    assert (HERE / f"programs/{name}_client.py").is_file()
    lock = (HERE / f"locks/{name}.lock").read_text()
    assert all(f"{package}==" in lock for package in CLIENTS[name])
    assert lock.count("--hash=sha256:") >= lock.count("==")


def test_every_program_is_of_a_client() -> None:
    programs = {path.name.removesuffix("_client.py") for path in (HERE / "programs").glob("*_client.py")}
    assert programs == CLIENTS.keys()


def test_every_package_of_the_node_client_has_a_digest() -> None:
    lock = json.loads((HERE / VERCEL / "package-lock.json").read_text())
    assert all(one.get("integrity", "").startswith("sha512-") for path, one in lock["packages"].items() if path)


def test_soak_runs_them() -> None:
    assert "-m tests.conformance.clients\n" in Path(TOP / "Makefile").read_text()
