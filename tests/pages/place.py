"""The place where the commands of a page are typed: a folder with everything that the pages speak of, in small.

It holds a publisher's workspace with two versions of a bundle of kilobytes, a stick, and a host that has installed a
third. Names on the pages are replaced by those of the place; `appliance` is `tests.pages.program`.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.keys.signers.host_key import host_public, make_host_key
from appliance.keys.signers.pem import create_key, public_pem
from appliance.keys.workspace import Workspace
from bundles.bundle import open_bundle
from bundles.oci.layout import Layout
from bundles.stick.writing.writer import write_stick
from signing.floors import Floors
from tests.appliance.serve.gateway.site import opened
from tests.appliance.sim_host import SimHost, build_bundle
from tests.appliance.tiny import TEMPLATE, TinyBuild
from tests.appliance.web import PackageIndex, sdist, serve, wheel, write_recipe
from tests.pages.blocks import PYTHON, TOP, Block
from tests.sim.gguf_models import Shape, write_model
from tests.sim.odd_models import servable
from tests.sim.registry import SimRegistry, serve_registry
from tests.sim.sets.stick_folders import deal_blobs
from tests.toy import NOW

TIMEOUT_S = 60
_LOCKED = {"cmake": "3.31.0", "ninja": "1.13.0", "uv": "0.9.1", "alpha": "1.0"}
_PEOPLE = ("alice", "bob", "carol", "dan", "eve", "frank", "grace")
_MODEL = Shape("llama", 2, 256, 4, 2, 64, 512, 2000)
_SHORT_FINGERPRINT = re.compile(r"\b[0-9a-f]{2}…[0-9a-f]{2}\b")


@dataclass
class Place:
    """A folder in which a page is followed.

    Args:
        folder: home and working directory of the person.
        host: the tree of the host that the page means.
        names: what a person puts in the place of a page's examples, in this order.
        env: further variables.
    """

    folder: Path
    host: Path
    names: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    def type(self, block: Block) -> subprocess.CompletedProcess[str]:
        """Type a block, as a script that ends at the first command that fails."""
        if block.kind == PYTHON:
            argv = [sys.executable, "-c", self._filled_in(block.text)]
        else:
            argv = ["bash", "-ec", "\n".join(self._filled_in(command) for command in block.commands)]
        env = {name: text for name, text in os.environ.items() if not name.startswith(("APPLIANCE_", "AIRGAP_"))}
        env |= {"HOME": str(self.folder), "NO_COLOR": "1", "TERM": "dumb", "NO_PROXY": "127.0.0.1"}
        env |= {"PYTHONPATH": str(TOP), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        env |= {
            "AIRGAP_APPLIANCE_CACHE": str(self.folder / "cache"),
            "PAGE_HOST": str(self.host),
            **self.env,
        }
        return subprocess.run(
            argv, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
        )

    def _filled_in(self, text: str) -> str:
        for example, name in self.names.items():
            text = text.replace(example, name)
        role = "host" if "evidence check" in text else "root"
        return _SHORT_FINGERPRINT.sub((self.folder / f"{role}.fingerprint").read_text(), text)


def make_template(folder: Path) -> None:
    """Fill the folder that each page gets a copy of."""
    tiny = TinyBuild(folder / "publisher")
    workspace = tiny.workspace
    # What is published first is installed: a stick brings metadata that are as new as the host's, or newer.
    sim = SimHost(Prefix.at(folder / "host"), workspace, build_bundle(workspace, "0.9.0"))
    sim.install()
    make_host_key(sim.prefix.trust)
    for version, template in (("1.0.0", TEMPLATE), ("1.1.0", f"{TEMPLATE}!")):
        TinyBuild(folder / "publisher", template, version=version).build()
    workspace.path.rename(folder / "appliance-workspace")
    bundle = folder / "appliance-workspace" / "dist" / "toy-1.0.0"
    root = folder / "appliance-workspace" / "trust" / "root.json"
    found = open_bundle(bundle, root.read_bytes(), Floors(), NOW)
    write_stick(Layout(bundle), found, folder / "stick")
    deal_blobs(bundle, found.value, [folder / "stick-1", folder / "stick-2"])
    shutil.copy(root, folder / "root.json")
    (folder / "dist").symlink_to("appliance-workspace/dist")
    roles = Workspace(folder / "appliance-workspace").root().roles
    for role in ("root", "targets"):
        [key] = roles[role].keys.values()
        (folder / f"{role}.fingerprint").write_text(key.fingerprint)
    own = host_public(sim.prefix.trust)
    assert own is not None
    (folder / "host.fingerprint").write_text(own.fingerprint)
    for person in _PEOPLE:
        (folder / f"{person}.pub").write_bytes(public_pem(create_key(folder / "keys" / f"{person}.pem").public))
    write_model(folder / "model.gguf", _MODEL)
    write_recipe(folder, "pypi:pack==1.0#pack/tiny.gguf")
    (folder / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    (folder / "bin").mkdir()
    program = folder / "bin" / "appliance"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.pages.program "$@"\n')
    program.chmod(0o755)


@contextmanager
def place_for(page: str, template: Path, folder: Path) -> Iterator[Place]:
    """A place for one page, with the servers that its commands reach."""
    # A host knows its own path, and no command of a page changes it: all pages share that of the template.
    shutil.copytree(template, folder, symlinks=True, ignore=shutil.ignore_patterns("host"))
    names = {
        "/media/stick": str(folder / "stick"),
        "plan bundles/recipes/smollm2.yaml": "plan model.gguf",
        "bundles/recipes/smollm2.yaml": "toy.yaml",
        "my.yaml": "toy.yaml",
        "dist/smollm2-": "dist/toy-",
        "--select smollm2-": "--select toy-",
        "/srv/spool": str(folder / "stick"),
        "smollm2 1.0.0": "toy 1.0.0",
        "3fe1a0c2": (template / "targets.fingerprint").read_text()[:8],
        "/srv/smollm2-1.0.0": str(folder / "fetched"),
        "/srv/appliance": str(template / "host"),
    }
    with SERVERS.get(page, _no_server)(folder) as (more, env):
        yield Place(folder, template / "host", {**names, **more}, env)


Added = tuple[dict[str, str], dict[str, str]]
"""Names to replace, and variables to set."""


@contextmanager
def _no_server(_folder: Path) -> Iterator[Added]:
    yield {}, {}


@contextmanager
def _gateway(folder: Path) -> Iterator[Added]:
    """A gateway before engines without weights."""
    with opened(folder / "serving", {"toy": 2, "embeds": 1, "ranks": 1}) as site:
        (folder / "key").write_text(site.keys["all"])
        yield (
            {
                "http://127.0.0.1:8443": f"http://127.0.0.1:{site.port}",
                "smollm2-135m": "toy",
                "all-minilm-l6-v2": "embeds",
                "a-reranker": "ranks",
            },
            {},
        )


@contextmanager
def _index_and_registry(folder: Path, login: tuple[str, str] | None = None) -> Iterator[Added]:
    """A package index for `lock`, and a registry, which asks for a login where there is one."""
    with serve() as site, serve_registry(SimRegistry()) as registry:
        registry.login = login
        token = base64.b64encode(":".join(login or ("", "")).encode()).decode()
        (folder / "auth.json").write_text(f'{{"auths": {{"{registry.host}": {{"auth": "{token}"}}}}}}')
        (folder / "auth.json").chmod(0o600)
        index = PackageIndex(site)
        index.add("pack", "pack-1.0-py3-none-any.whl", wheel("pack", files={"pack/tiny.gguf": servable()}))
        index.add("llama-cpp-python", "llama_cpp_python-0.3.36.tar.gz", sdist("llama_cpp_python", "0.3.36"))
        for name, version in _LOCKED.items():
            index.add(name, f"{name}-{version}-py3-none-any.whl", wheel(name, version))
        # The builder's page begins with an empty stick.
        shutil.rmtree(folder / "stick")
        env = {"UV_DEFAULT_INDEX": index.url, "APPLIANCE_WORKSPACE": str(folder / "appliance-workspace")}
        yield {"registry.example/models/smollm2": f"http://{registry.host}/models/toy"}, env


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Added]]] = {
    "docs/builder.md": partial(_index_and_registry, login=("builder", "several words")),
    "docs/operator.md": _gateway,
    "docs/user.md": _gateway,
    **dict.fromkeys(("appliance lock", "appliance bundle", "appliance bundle export"), _index_and_registry),
    "appliance bundle import": _index_and_registry,
}
