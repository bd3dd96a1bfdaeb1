"""A verified bundle as a value, of any number of blobs, with or without files behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import Contents, File, Needs, Serve, Target
from bundles.oci.layout import blob_path
from signing.digest import sha256


def plain_bundle(blobs: Sequence[bytes], name: str = "plain", version: str = "1.0.0") -> Bundle:
    """A bundle whose files are these blobs, each a file of one chunk; nobody has signed it.

    Its blobs 1 and 2 are a made-up manifest and `contents.json`: `document_blobs` gives their bytes.
    """
    chunks = [Chunk(sha256(data), len(data)) for data in blobs]
    files = tuple(
        File(f"files/{number:06}", "config", 0o644, chunk.size, chunk.sha256, (chunk,))
        for number, chunk in enumerate(chunks)
    )
    contents = Contents(
        name=name,
        version=version,
        source_date_epoch=1_700_000_000,
        targets=(Target("debian-12", "x86_64", ("3.11",)),),
        needs=Needs("2.34", "3.4.30", "1.3.13", ("x64",), 1 << 20, 1 << 20),
        serve=Serve(2),
        models=(),
        files=files,
    )
    manifest, config = document_blobs(name, version)
    return Bundle(sha256(manifest), len(manifest), Chunk(sha256(config), len(config)), contents)


def document_blobs(name: str = "plain", version: str = "1.0.0") -> tuple[bytes, bytes]:
    """What stands for the manifest and for `contents.json` of a plain bundle."""
    return f"manifest of {name} {version}".encode(), f"contents of {name} {version}".encode()


def put_blobs(folder: Path, blobs: Sequence[bytes]) -> None:
    """Write blobs where a layout in this folder has them."""
    for data in blobs:
        path = folder / blob_path(sha256(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
