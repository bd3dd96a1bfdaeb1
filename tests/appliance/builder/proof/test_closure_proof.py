"""A bundle is sealed only when its packages and wheels install and import in an empty system."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uv

from appliance.builder.cache.content_store import Cache
from appliance.builder.chunking.chunker import Source
from appliance.builder.debian import rootfs
from appliance.builder.debian.rootfs import DEBIAN_12, FOLDER
from appliance.builder.proof import closure_proof
from appliance.builder.proof.closure_proof import prove, target_closure
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.recipe.recipe import Recipe
from signing.digest import sha256
from signing.errors import ApplianceError, HostUnfitError, UsageError
from tests.appliance.pool import Pool, require_tools
from tests.appliance.web import wheel, write_recipe
from tests.bed.fixtures import tree_folder

NOBODY = 65534
SYSTEM, PYTHON = "debian-12", "3.11"


@pytest.fixture(scope="module")
def uv_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel around the uv that runs here."""
    path = tmp_path_factory.mktemp("uv") / "uv-0.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(uv.find_uv_bin(), "uv-0.0.0.data/scripts/uv")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache that holds nothing but the tree."""
    made = Cache(tmp_path / "cache")
    (made.folder(FOLDER) / DEBIAN_12.key()).symlink_to(tree_folder(DEBIAN_12))
    return made


class Bench:
    """Wheels and packages of a bundle before it is sealed."""

    def __init__(self, folder: Path, uv_wheel: Path) -> None:
        self.folder = folder
        self.sources = [Source(f"tools/{uv_wheel.name}", "tool", file=uv_wheel, sha256=sha256(b"uv"))]

    def add(
        self,
        name: str,
        files: dict[str, bytes],
        requires: tuple[str, ...] = (),
        below: str = "",
        tag: str = "py3-none-any",
    ) -> None:
        path = self.folder / f"{name}-1.0-{tag}.whl"
        path.write_bytes(wheel(name, files=files, requires=list(requires)))
        self.sources.append(Source(f"wheels/{below}{path.name}", "wheel", file=path))

    def add_package(self, path: Path) -> None:
        self.sources.append(Source(f"os-packages/{SYSTEM}/{path.name}", "os-package", file=path))

    def recipe(self, system: str = SYSTEM, python: str = PYTHON, arch: str = "x86_64") -> Recipe:
        targets = f'targets: [{{os: {system}, arch: {arch}, python: ["{python}"]}}]'
        return load_recipe(write_recipe(self.folder, "file:tiny.gguf", targets=targets))


@pytest.fixture
def bench(tmp_path: Path, uv_wheel: Path) -> Bench:
    return Bench(tmp_path, uv_wheel)


def test_closure_that_works_is_proved_once(bench: Bench, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add("alpha", {"alpha/__init__.py": b"import beta\n"}, ("beta",))
    bench.add("beta", {"beta.py": b""})
    assert prove(bench.recipe(), bench.sources, cache) == 1

    def again(*_: object) -> int:
        raise AssertionError("proved again")

    monkeypatch.setattr(closure_proof, "_prove", again)
    assert prove(bench.recipe(), bench.sources, cache) == 0
    bench.add("gamma", {"gamma.py": b""})
    with pytest.raises(AssertionError, match="proved again"):
        prove(bench.recipe(), bench.sources, cache)


def test_wheel_that_is_required_but_not_packed_is_named(bench: Bench, cache: Cache) -> None:
    bench.add("alpha", {"alpha/__init__.py": b""}, ("beta",))
    with pytest.raises(ApplianceError) as caught:
        prove(bench.recipe(), bench.sources, cache)
    assert caught.value.code == "closure.incomplete"
    assert "alpha" in caught.value.found
    assert "beta" in caught.value.found
    assert not list(cache.folder("proof").iterdir())


@pytest.mark.parametrize("tag", ["cp311-cp311-manylinux_2_34_aarch64", "cp312-cp312-manylinux_2_34_x86_64"])
def test_wheel_for_another_platform_or_python_is_named(bench: Bench, cache: Cache, tag: str) -> None:
    bench.add("alpha", {"alpha/__init__.py": b""}, ("beta",))
    bench.add("beta", {"beta.py": b""}, tag=tag)
    with pytest.raises(ApplianceError) as caught:
        prove(bench.recipe(), bench.sources, cache)
    assert (caught.value.code, caught.value.exit_code) == ("closure.incomplete", 1)
    assert "beta" in caught.value.found
    assert "no wheels with a matching" in caught.value.found
    assert not list(cache.folder("proof").iterdir())


def test_import_that_no_requirement_declares_is_named_with_all_others(bench: Bench, cache: Cache) -> None:
    bench.add("alpha", {"alpha/__init__.py": b"import OpenSSL\n"})
    bench.add("beta", {"beta.py": b"raise SystemExit(3)\n"})
    bench.add("gamma", {"gamma.py": b""})
    with pytest.raises(ApplianceError) as caught:
        prove(bench.recipe(), bench.sources, cache)
    assert [error.found for error in (caught.value, *caught.value.others)] == [
        "alpha: import alpha: ModuleNotFoundError: No module named 'OpenSSL'",
        "beta: import beta: SystemExit: 3",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(0)",
        "import os; os.remove('/work/answer.json'); os.symlink('/etc/passwd', '/work/answer.json')",
        pytest.param("import os; os.remove('/work/answer.json'); os.mkfifo('/work/answer.json')", marks=pytest.mark.ci),
        pytest.param(
            "import os; os.remove('/work/answer.json'); open('/work/answer.json', 'w').write('[' * 100000)",
            marks=pytest.mark.ci,
        ),
        "import os; os.remove('/work/answer.json'); open('/work/answer.json', 'w').write('{\"tried\": 1}')",
    ],
)
def test_wheel_that_ends_the_proof_or_changes_its_answer_is_not_proved(bench: Bench, cache: Cache, code: str) -> None:
    bench.add("alpha", {"alpha.py": code.encode()})
    with pytest.raises(ApplianceError) as caught:
        prove(bench.recipe(), bench.sources, cache)
    assert (caught.value.code, caught.value.exit_code) == ("closure.incomplete", 1)
    assert "a module ended the program" in caught.value.found
    assert not list(cache.folder("proof").iterdir())


def test_wheel_under_proof_cannot_change_what_lies_in_the_cache(bench: Bench, cache: Cache) -> None:
    code = "import glob\nfor path in glob.glob('/work/*/*'): open(path, 'r+b').write(b'changed')\n"
    bench.add("alpha", {"alpha.py": code.encode()})
    before = {source.file: source.file.read_bytes() for source in bench.sources if source.file}
    assert prove(bench.recipe(), bench.sources, cache) == 1
    assert {path: path.read_bytes() for path in before} == before


def test_wheel_whose_import_does_not_end_is_not_proved(
    bench: Bench, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.builder.proof.sandbox.TIMEOUT_S", 2)
    bench.add("alpha", {"alpha.py": b"import time\ntime.sleep(600)\n"})
    with pytest.raises(ApplianceError) as caught:
        prove(bench.recipe(), bench.sources, cache)
    assert caught.value.code == "closure.incomplete"
    assert "did not end within 2 s" in caught.value.found


def test_wheel_sees_no_network_no_other_process_and_no_file_of_this_machine(bench: Bench, cache: Cache) -> None:
    code = f"""
import os, socket
assert [name for _, name in socket.if_nameindex()] == ["lo"], socket.if_nameindex()
assert not os.path.exists({str(bench.folder)!r})
assert len([name for name in os.listdir("/proc") if name.isdigit()]) < 6
assert not [name for name in os.environ if name.startswith(("PIP_", "UV_INDEX", "SECRET"))]
open("/usr/lib/planted", "w").close()
"""
    bench.add("looker", {"looker.py": code.encode()})
    assert prove(bench.recipe(), bench.sources, cache) == 1
    assert not (tree_folder(DEBIAN_12) / "usr/lib/planted").exists()


@pytest.mark.ci
def test_packages_are_installed_by_path_before_the_wheels(bench: Bench, cache: Cache, tmp_path: Path) -> None:
    require_tools()
    pool = Pool(tmp_path)
    bench.add_package(pool.add("libgreet", files={"usr/share/greeting": "hello"}))
    bench.add_package(pool.add("greet", depends="libgreet"))
    bench.add("reader", {"reader.py": b"assert open('/usr/share/greeting').read() == 'hello'\n"})
    assert prove(bench.recipe(), bench.sources, cache) == 1


def test_package_that_is_required_but_not_packed_is_named(bench: Bench, cache: Cache, tmp_path: Path) -> None:
    require_tools()
    bench.add_package(Pool(tmp_path).add("greet", depends="libgreet"))
    bench.add("alpha", {"alpha.py": b""})
    with pytest.raises(ApplianceError) as caught:
        prove(bench.recipe(), bench.sources, cache)
    assert caught.value.code == "closure.incomplete"
    assert "libgreet" in caught.value.found


def test_python_that_the_system_does_not_have_is_the_recipes_mistake(bench: Bench, cache: Cache) -> None:
    bench.add("alpha", {"alpha.py": b""})
    with pytest.raises(UsageError) as caught:
        prove(bench.recipe(python="3.12"), bench.sources, cache)
    assert (caught.value.code, caught.value.exit_code) == ("closure.no-python", 2)
    assert "packages" in caught.value.hint


def test_each_python_gets_its_own_wheels_and_those_of_all(bench: Bench) -> None:
    for below in ("", "cp311/", "cp313/"):
        bench.add(f"only{below[2:5]}", {"only.py": b""}, below=below)
    bench.sources.append(Source("os-packages/debian-13/x.deb", "os-package", file=Path("/dev/null")))
    found = target_closure(bench.sources, SYSTEM, PYTHON)
    names = sorted(path.partition("/")[2].partition("-")[0] for path in found.files)
    assert names == ["only", "only311", "uv"]


@pytest.mark.parametrize(
    ("system", "arch", "words"),
    [("ubuntu-24.04", "x86_64", "take it out"), ("debian-12", "aarch64", "build on a machine of aarch64")],
)
def test_target_that_this_machine_cannot_prove_is_refused_with_the_remedy(
    bench: Bench, tmp_path: Path, system: str, arch: str, words: str
) -> None:
    with pytest.raises(HostUnfitError) as caught:
        prove(bench.recipe(system=system, arch=arch), bench.sources, Cache(tmp_path / "cache"))
    assert (caught.value.code, caught.value.exit_code) == ("closure.unproven", 6)
    assert words in caught.value.hint


REFUSING = """
for name in user mnt net pid; do echo 0 >/proc/sys/user/max_${name}_namespaces; done
exec "$@"
"""


def test_machine_that_refuses_namespaces_is_unfit_with_the_remedy(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from appliance.builder.proof.sandbox import run_in\n"
        "from signing.errors import HostUnfitError\n"
        f"try: run_in(Path('/'), Path({str(tmp_path)!r}), ['true'])\n"
        "except HostUnfitError as error: print(error.code, error.exit_code, error.hint); sys.exit(6)\n"
    )
    argv = ["unshare", "--user", "--map-root-user", "sh", "-euc", REFUSING, "sh", sys.executable, "-c", script]
    if subprocess.run([*argv[:3], "true"], capture_output=True).returncode:
        pytest.skip("this machine lacks user namespaces to take namespaces away in")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 6, done.stderr
    assert done.stdout.startswith("tree.machine 6 run it as root")


@pytest.mark.parametrize("said", ["E: unshare failed", "E: failed to parse /etc/subuid and /etc/subgid"])
def test_user_who_may_map_no_ids_gets_a_hint_about_that_and_not_about_the_network(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostUnfitError) as caught:
        rootfs._check(rootfs.TREES["debian-12"], 25, said)
    assert (caught.value.code, "/etc/subuid" in caught.value.hint) == ("tree.machine", True)
    with pytest.raises(ApplianceError, match=r"tree\.failed"):
        rootfs._check(rootfs.TREES["debian-12"], 100, "E: the mirror does not answer")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an ordinary user can reach."""
    with tempfile.TemporaryDirectory(prefix="proof-", dir="/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.ci
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests here are by an ordinary user already")
def test_ordinary_user_proves_it_too(uv_wheel: Path, open_folder: Path) -> None:
    tree, where = tree_folder(DEBIAN_12), open_folder / "tree"
    where.mkdir()
    cache = Cache(open_folder / "cache")
    (cache.folder(FOLDER) / DEBIAN_12.key()).symlink_to(where)
    tool = open_folder / uv_wheel.name
    shutil.copy(uv_wheel, tool)
    bench = Bench(open_folder, tool)
    bench.add("alpha", {"alpha.py": b"import os\nassert os.geteuid() == 0\n"})
    recipe = bench.recipe()
    for path in open_folder.rglob("*"):
        if path != where and not path.is_symlink():
            path.chmod(0o777 if path.is_dir() else 0o644)

    def act() -> None:
        subprocess.run(["mount", "--bind", tree, where], check=True)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        assert prove(recipe, bench.sources, cache) == 1

    assert in_own_mounts(act) == 0
    record = next(cache.folder("proof").glob("*.json"))
    assert record.stat().st_uid == NOBODY


def in_own_mounts(act: Callable[[], None]) -> int:
    """Run a function in a child process with mounts of its own; returns the child's exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert ctypes.CDLL(None).unshare(0x00020000) == 0
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            act()
            code = 0
        except BaseException:  # noqa: BLE001 -- the parent reads the code
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
