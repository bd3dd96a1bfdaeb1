"""What somebody can do to a medium beside its blobs: each fault as an act on a stick, with the codes of its refusal.

Every command that reads a medium refuses every one of them alike (row 88).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bundles.oci.layout import INDEX_FILE
from signing.digest import sha256
from signing.strictjson import Json, load, to_file
from tests.attacks.harness import Stick
from tests.sim.tuf import STRANGERS, TufRepository

Act = Callable[[Stick], object]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        act: does it to a stick.
        code: of the error that is reported first.
        exit: the exit code.
    """

    act: Act
    code: str
    exit: int = 4


def plant(path: str, data: bytes = b"planted") -> Act:
    """Put a file there."""

    def act(stick: Stick) -> None:
        place = stick.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    return act


def folder(path: str) -> Act:
    """Make an empty folder there."""
    return lambda stick: (stick.path / path).mkdir(parents=True)


def fifo(path: str) -> Act:
    """Put a FIFO there, in the place of what was there."""

    def act(stick: Stick) -> None:
        (stick.path / path).unlink(missing_ok=True)
        os.mkfifo(stick.path / path)

    return act


def link(path: str) -> Act:
    """Move a file away and put a link to it in its place; where there is none, link to a file that never ends."""

    def act(stick: Stick) -> None:
        outside = stick.path.parent / "outside"
        if (stick.path / path).exists():
            (stick.path / path).rename(outside)
        (stick.path / path).symlink_to(outside if outside.exists() else "/dev/zero")

    return act


def bound_socket(path: str) -> Act:
    """Put a socket there."""

    def act(stick: Stick) -> None:
        before = os.getcwd()
        os.chdir((stick.path / path).parent)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(Path(path).name)
        finally:
            os.chdir(before)

    return act


def index(change: Callable[[Json], object]) -> Act:
    """Change `index.json`, in canonical form."""

    def act(stick: Stick) -> None:
        value = load((stick.path / INDEX_FILE).read_bytes(), INDEX_FILE)
        change(value)
        (stick.path / INDEX_FILE).write_bytes(to_file(value))

    return act


def change_boot(name: str) -> Act:
    """Flip a bit of a file in `BOOT/`."""

    def act(stick: Stick) -> None:
        path = stick.path / "BOOT" / name
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.write_bytes(data)

    return act


def change_metadata(name: str) -> Act:
    """Raise the version that a metadata file states, and sign nothing."""

    def act(stick: Stick) -> None:
        path = stick.path / "metadata" / name
        path.write_bytes(path.read_bytes().replace(b'"version":', b'"version":9', 1))

    return act


def lengthen_manifest(stick: Stick) -> None:
    """Append a byte to the manifest's blob."""
    path = stick.blob(stick.manifest)
    path.write_bytes(path.read_bytes() + b" ")


def remove_root_signature(stick: Stick) -> None:
    """Leave `BOOT/` with one signature too few."""
    next((stick.path / "BOOT").glob("*.sig")).unlink()


def plant_manifest(stick: Stick) -> None:
    """Put another manifest among the targets, under a name as FORMAT gives them."""
    plant(f"targets/bundles/other/1.0.0/{sha256(b'planted')}.manifest.json")(stick)


HEX = "0" * 64
FOREIGN_ROOT = TufRepository(STRANGERS).pinned
NAMES: dict[str, Fault] = {
    "a blob that nothing needs": Fault(plant(f"blobs/sha256/{HEX}"), "layout.unlisted"),
    "a file among the blobs": Fault(plant("blobs/sha256/evil"), "layout.unlisted"),
    "a repository of git": Fault(plant("blobs/.git/hooks/post-checkout"), "layout.unlisted"),
    "metadata that nothing leads to": Fault(plant("metadata/77.targets.json"), "layout.unlisted"),
    "a snapshot that nothing leads to": Fault(plant("metadata/1.snapshot.json"), "layout.unlisted"),
    "a root beyond the newest": Fault(plant("metadata/9.root.json", FOREIGN_ROOT), "layout.unlisted"),
    "a manifest that is not on the medium's index": Fault(plant_manifest, "layout.unlisted"),
    "an empty folder of blobs": Fault(folder("blobs/sha256/ab"), "layout.unlisted"),
    "an empty folder of targets": Fault(folder("targets/bundles/other/1.0.0"), "layout.unlisted"),
    "an empty folder of attestations": Fault(folder(f"attestations/{HEX}"), "layout.unlisted"),
    "an empty folder in BOOT": Fault(folder("BOOT/empty"), "layout.unlisted"),
    "what a Mac left": Fault(plant("metadata/.DS_Store"), "layout.unlisted"),
    "a name that is no UTF-8": Fault(plant("blobs/sha256/\udcff"), "layout.unlisted"),
}
KINDS: dict[str, Fault] = {
    "a FIFO among the blobs": Fault(fifo("blobs/sha256/fifo"), "medium.hostile"),
    "a FIFO among the attestations": Fault(fifo(f"metadata/{HEX}.oms"), "medium.hostile"),
    "a link among the metadata": Fault(link("metadata/1.root.json"), "medium.hostile"),
    "a socket in BOOT": Fault(bound_socket("BOOT/verify.sock"), "medium.hostile"),
    "a link as STICK.json": Fault(link("STICK.json"), "medium.hostile"),
    "a FIFO as README.txt": Fault(fifo("README.txt"), "medium.hostile"),
    "9 MB as README.txt": Fault(plant("README.txt", bytes(9 << 20)), "file.too-long"),
    "a link as oci-layout": Fault(link("oci-layout"), "medium.hostile"),
}
INDEX: dict[str, Fault] = {
    "an unknown field": Fault(index(lambda value: value.update(annotations={})), "index.differs"),
    "60 kB more": Fault(index(lambda value: value.update(x="x" * 60_000)), "index.differs"),
    "another media type": Fault(index(lambda value: value.update(mediaType="text/html")), "index.differs"),
    "another schema": Fault(index(lambda value: value.update(schemaVersion=3)), "index.differs"),
    "no media type": Fault(index(lambda value: value.pop("mediaType")), "index.differs"),
    "an unknown field of the entry": Fault(
        index(lambda value: value["manifests"][0].update(platform={"os": "any"})), "index.differs"
    ),
    "another media type of the entry": Fault(
        index(lambda value: value["manifests"][0].update(mediaType="text/html")), "index.differs"
    ),
    "a larger size": Fault(
        index(lambda value: value["manifests"][0].update(size=value["manifests"][0]["size"] + 1)), "index.differs"
    ),
}
OTHERS: dict[str, Fault] = {
    "another verifier in BOOT": Fault(change_boot("verify.pyz"), "boot.file-changed", 3),
    "too few root keys": Fault(remove_root_signature, "signature.threshold"),
    "a list of another root": Fault(change_boot("BOOT.sha256"), "signature.invalid"),
    "a garbage attestation": Fault(plant(f"attestations/{HEX}/{HEX}.oms"), "attestation.refused"),
}
CHAIN: dict[str, Fault] = {
    "a changed timestamp": Fault(change_metadata("timestamp.json"), "signature.invalid"),
    "a changed root": Fault(change_metadata("1.root.json"), "signature.invalid"),
    "a changed targets file": Fault(change_metadata("2.targets.json"), "metadata.mixed"),
    "no timestamp": Fault(lambda stick: (stick.path / "metadata/timestamp.json").unlink(), "metadata.missing"),
    "another root": Fault(plant("metadata/1.root.json", FOREIGN_ROOT), "root.differs"),
    "another layout": Fault(plant("oci-layout", b'{"imageLayoutVersion":"2.0.0"}'), "layout.refused"),
    "a longer manifest": Fault(lengthen_manifest, "blob.too-long"),
    "a missing manifest": Fault(lambda stick: stick.blob(stick.manifest).unlink(), "blob.missing", 3),
    "another manifest": Fault(lambda stick: stick.blob(stick.manifest).write_bytes(b"{}"), "blob.differs", 3),
    "a revoked bundle": Fault(lambda stick: stick.publish("revoked"), "target.revoked"),
}
FAULTS = {**NAMES, **KINDS, **{f"{name} in the index": fault for name, fault in INDEX.items()}, **OTHERS, **CHAIN}
