"""Where each file of a bundle lies on a host.

Owns the one mapping from paths in the contents to paths on disk, used by import, repair and every check.

Rules:
- models and adapters lie in the store that releases share, by the sha256 of the file;
- a runtime is a wheel and lies with the wheels; what is extracted from it lies in `runtime/`;
- a wheel in a folder of its own, such as `wheels/cp311/`, is for that Python only;
- a bundle may not name a place that the installer fills itself.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import EGRESS_RULES, RENDERED, has_egress, unit_names
from bundles.contents.contents import Contents, File
from signing.digest import Digest
from signing.errors import NotTrustedError

STORED = ("model", "adapter")
PACKED = ("wheel", "runtime")
FACTS_FILE, OK_FILE = "RELEASE.json", "RELEASE.ok"
SITE_FILE = "site.yaml"
"""The copy of the site's file that a release was rendered from, so that a return to the release can restore it."""
STATE_FILE = "STATE"
"""Which formats of the host's stored state a release reads and writes, as lines that a shell reads."""
REVOKED_FILE = "REVOKED"
"""The mark of a release that newer metadata do not allow."""
STAGED_FILE = "RELEASE.staged"
"""The mark of a release that is complete and tried, and that waits for the switch; it has no `RELEASE.ok` yet."""
RECORDS = (FACTS_FILE, OK_FILE, STAGED_FILE, SITE_FILE, STATE_FILE, REVOKED_FILE)
"""The files that a host writes into the top of a release."""
OWN = ("bundle", "venv", "runtime", *RECORDS)
"""Names in a release folder that no file of a bundle may take."""
REPAIR_HINT = "run the same `appliance install` again: it repairs the release"
"""The next step where a file of a release, or one of its models, is not as it was installed."""


def place(prefix: Prefix, release: Path, file: File) -> Path:
    """Compute where a file of the bundle lies on this host.

    Args:
        prefix: the host.
        release: the release's folder.
        file: verified.
    """
    name = PurePosixPath(file.path).name
    if file.kind in STORED:
        return prefix.model_path(file.sha256, name)
    if file.kind in PACKED:
        return release / "wheels" / _own_folder(file) / name
    return release / file.path


def wheels_for(contents: Contents, python: str) -> tuple[File, ...]:
    """List the wheels, with the runtime, that belong into an environment of one Python.

    Args:
        contents: verified.
        python: its minor version, for example `3.11`.
    """
    own = python_folder(python)
    return tuple(file for file in contents.of_kind(*PACKED) if _own_folder(file) in ("", own))


def python_folder(python: str) -> str:
    """The folder below `wheels/` with the wheels of one Python version: `cp311` for `3.11`."""
    return "cp" + python.replace(".", "")


def _own_folder(file: File) -> str:
    parts = PurePosixPath(file.path).parts
    return parts[1] if file.kind == "wheel" and len(parts) == 3 else ""


def rendered_names(prefix: Prefix, contents: Contents, manifest: Digest) -> tuple[str, ...]:
    """List the files that Ansible renders, by path below the release; units only where systemd runs them."""
    configs = ("config/gateway.json", *(f"config/engine-{model.name}.json" for model in contents.models))
    if not prefix.is_system:
        return configs
    rules = (EGRESS_RULES,) if has_egress(contents) else ()
    return (*configs, *rules, *(f"{RENDERED}/{name}" for name in unit_names(contents, manifest)))


def is_rendered(path: str) -> bool:
    """Whether a path below the release is one that Ansible renders."""
    is_engine = path.startswith("config/engine-") and path.endswith(".json")
    return is_engine or path in ("config/gateway.json", EGRESS_RULES) or path.startswith(f"{RENDERED}/")


def check_places(contents: Contents) -> None:
    """Refuse a bundle with a file at a path of the installer, or two files at one path.

    Raises:
        NotTrustedError: naming the file.
    """
    taken: set[str] = set()
    for file in contents.files:
        key = str(place(Prefix(Path("/")), Path("/release"), file))
        top = file.path.split("/")[0]
        is_own = file.kind not in (*STORED, *PACKED) and (top in OWN or is_rendered(file.path))
        if is_own or (key in taken and file.kind not in STORED):
            raise NotTrustedError(
                "contents.place",
                file.path,
                expected="a path that the installer does not fill itself",
                found=f"{file.kind} at {file.path}",
                hint="this bundle was built wrongly; ask its builder",
            )
        taken.add(key)
