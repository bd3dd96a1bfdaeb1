"""The program `appliance` on a bare host, put there by the bed.

Owns the choice of wheels that make the program, and how it starts. It stands for the operator's own copy of the
program: how a bare host gets one that it may believe is not proven by a test that uses this.

Rules:

- Nothing is taken but the wheels of the bundle that the host is about to install, each compared with its digest.
- What only an installed release needs (Ansible, the runtime, the gateway) is left out, so that a test shows when a
  command needs it.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bundles.contents.contents_json import parse_contents
from bundles.oci.layout import Layout
from signing.digest import sha256
from tests.bed.host import BedError, Host

FOLDER = "/root/tool"
WHEELS = (
    *("airgap_appliance", "click", "rich", "pygments", "markdown_it_py", "mdurl", "pyyaml"),
    *("cryptography", "cffi", "pycparser", "typing_extensions"),
)
_START = f"""#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "{FOLDER}/lib")
from appliance.cli.main import main

main()
"""


def put_tool(host: Host, bundle: Path, python: str = "3.11") -> list[str]:
    """Put the program onto a host that has nothing but `python3`.

    Args:
        host: of the version of Python that the bundle is for.
        bundle: a folder that `appliance build` made here, or a stick with all of it.
        python: the host's version, of those that the bundle is for.

    Returns:
        The words that run `appliance` there, for `Host.run`.

    Raises:
        BedError: a wheel is missing or differs from its digest.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for wheel in _wheels(bundle, python):
            with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
                archive.extractall(folder / "lib")
        program = folder / "appliance"
        program.write_text(_START)
        program.chmod(0o755)
        host.put(folder, FOLDER)
    return [f"{FOLDER}/appliance"]


def _wheels(bundle: Path, python: str) -> Iterator[bytes]:
    layout = Layout(bundle)
    manifest = json.loads(_read(layout, json.loads((bundle / "index.json").read_bytes())["manifests"][0]["digest"]))
    contents = parse_contents(_read(layout, manifest["config"]["digest"]))
    folders = (PurePosixPath("wheels"), PurePosixPath("wheels", f"cp{python.replace('.', '')}"))
    own = [file for file in contents.of_kind("wheel") if PurePosixPath(file.path).parent in folders]
    found = {PurePosixPath(file.path).name.partition("-")[0].lower(): file for file in own}
    if missing := set(WHEELS) - set(found):
        raise BedError(f"{bundle} has no wheel of {' '.join(sorted(missing))}")
    for name in WHEELS:
        yield b"".join(_read(layout, f"sha256:{chunk.sha256}") for chunk in found[name].chunks)


def _read(layout: Layout, digest: str) -> bytes:
    path = layout.path / "blobs" / digest.replace(":", "/")
    data = path.read_bytes()
    if f"sha256:{sha256(data)}" != digest:
        raise BedError(f"{path} is not what its name says")
    return data
