"""`RELEASE.json`: what this host decided while it installed a release.

Owns the value and its one form as bytes. The file is not signed. It records what was chosen here, such as the CPU
variant and the Python, and the digests of the configuration that was written here. A later check compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from appliance.host.layout.places import FACTS_FILE, REPAIR_HINT
from appliance.host.process.child import NETNS, NONE
from signing.digest import Digest, parse_digest
from signing.errors import DriftError, NotTrustedError
from signing.strictjson import load_canonical, to_file


@dataclass(frozen=True, slots=True)
class Facts:
    """The decisions of an install.

    Args:
        name, version: of the bundle.
        manifest: the sha256 of its manifest.
        cpu_variant: the variant that the trial chose, for example `haswell`.
        tokens_per_s: whole generated tokens per second in the trial; a figure for people.
        isolation: `netns` where the children of the install ran without any network, else `none`.
        python: the interpreter that the environment links to, absolute.
        python_version: for example `3.11.2`.
        site: sha256 of the site's file that the configuration was rendered from.
        config: sha256 of each rendered file, by its path below the release.
    """

    name: str
    version: str
    manifest: Digest
    cpu_variant: str
    tokens_per_s: int
    isolation: str
    python: str
    python_version: str
    site: Digest
    config: Mapping[str, Digest]


def write_facts(facts: Facts) -> bytes:
    """Serialize facts as canonical JSON."""
    return to_file(asdict(facts))


def read_facts(path: Path) -> Facts:
    """Read the facts of a release.

    Args:
        path: the release's folder.

    Raises:
        DriftError: the file is missing, or holds something that no install writes.
    """
    file = path / FACTS_FILE
    try:
        value = load_canonical(file.read_bytes(), str(file))
        return _parse(value, str(file))
    except OSError as error:
        raise _changed(file, error.strerror or "") from None
    except (NotTrustedError, TypeError, ValueError) as error:
        raise _changed(file, str(error)[:120]) from None


def _parse(value: object, subject: str) -> Facts:
    names = {spec.name for spec in fields(Facts)}
    if not isinstance(value, dict) or set(value) != names or not isinstance(value["config"], dict):
        raise ValueError("other fields")
    texts = names - {"tokens_per_s", "config"}
    if not all(isinstance(value[name], str) for name in texts) or type(value["tokens_per_s"]) is not int:
        raise ValueError("a field of another type")
    if value["isolation"] not in (NETNS, NONE):
        raise ValueError("another isolation")
    for name in ("manifest", "site"):
        parse_digest(value[name], subject)
    config = {path: parse_digest(digest, subject) for path, digest in value["config"].items()}
    return Facts(**{**value, "config": config})


def _changed(file: Path, found: str) -> DriftError:
    return DriftError(
        "release.facts", file.name, expected=f"{file} as the install wrote it", found=found, hint=REPAIR_HINT
    )
