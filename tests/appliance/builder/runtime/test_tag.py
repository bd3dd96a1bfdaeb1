"""The platform that the wheel names is the one that auditwheel finds in it."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from appliance.builder.runtime.symbols import dotted, read_elf, symbol_floors
from appliance.builder.wheels.reader import wheel_members
from tests.appliance.shipped import shipped_runtime

pytestmark = pytest.mark.ci


def test_tag_and_declared_versions_are_those_that_auditwheel_sees() -> None:
    built = shipped_runtime()
    argv = [sys.executable, "-m", "auditwheel", "show", str(built.path)]
    said = " ".join(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())

    tag = re.search(r'consistent with the following platform tag: "(\w+)"', said)
    assert tag is not None
    assert built.path.name.endswith(f"-py3-none-{tag[1]}.whl")
    for family, declared in (("GLIBC", built.glibc), ("GLIBCXX", built.glibcxx), ("CXXABI", built.cxxabi)):
        seen = {tuple(map(int, text.split("."))) for text in re.findall(rf"'{family}_([\d.]+)'", said)}
        assert dotted(max(seen)) == declared


def test_declared_versions_are_those_of_the_files_in_the_wheel(tmp_path: Path) -> None:
    built = shipped_runtime()
    with zipfile.ZipFile(built.path) as archive:
        names = [member.path for member in wheel_members(built.path)]
        archive.extractall(tmp_path, names)
    found = symbol_floors((name, read_elf(tmp_path / name)) for name in names)

    assert (dotted(found.glibc), dotted(found.glibcxx), dotted(found.cxxabi)) == (
        built.glibc,
        built.glibcxx,
        built.cxxabi,
    )
    assert built.path.name.endswith(f"-py3-none-{found.manylinux}.whl")
