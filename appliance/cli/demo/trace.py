"""The files behind the digests that an answer carries.

Owns the comparison of an answer's digests with the files on the disk, by hashing the files themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.cli.demo.chat import ChatAnswer
from signing.digest import sha256_stream
from signing.errors import DriftError


@dataclass(frozen=True)
class TracedFile:
    """One digest of an answer.

    Args:
        name: what it is of: release, model, template, engine or policy.
        sha256: as the answer gave it.
        file: has exactly this digest; None for the chat template, which lies inside the model.
    """

    name: str
    sha256: str
    file: Path | None

    def __str__(self) -> str:
        return f"{self.sha256}  {self.file or f'({self.name}, inside the model)'}"


def trace(answer: ChatAnswer, host: Path, model: Path) -> list[TracedFile]:
    """Find and hash the files that an answer's digests name.

    Args:
        answer: from the endpoint of this host.
        host: the prefix that serves.
        model: the installed model.

    Raises:
        DriftError: a file has another digest than the answer.
    """
    release = (host / "opt/appliance/current").resolve()
    digests = answer.appliance
    files = {
        "release": release / "bundle/blobs/sha256" / str(digests["release"]),
        "model": model,
        "template": None,
        "engine": next((release / "wheels").glob("llama_cpp_python-*.whl")),
        "policy": release / "config/gateway.json",
    }
    for name, file in files.items():
        found = digests[name] if file is None else _digest(file)
        if found != digests[name]:
            raise DriftError(
                "demo.digest", str(file), expected=f"sha256 {digests[name]}, as the answer states", found=found
            )
    return [TracedFile(name, digests[name], _shown(file)) for name, file in files.items()]


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return sha256_stream(stream)[0]


def _shown(file: Path | None) -> Path | None:
    here = Path.cwd()
    return file.relative_to(here) if file is not None and file.is_relative_to(here) else file
