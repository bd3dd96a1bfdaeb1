"""The figures of checking: a whole bundle, and its metadata alone."""

from __future__ import annotations

import sys
from pathlib import Path

from bundles.bundle import open_bundle
from signing.floors import Floors
from signing.p256 import pem_of
from tests.bench.figure import Figure, Taken, run, take_turns
from tests.bench.material import PROGRAM, Material, now
from tests.oracles.__main__ import MODEL_SIGNING, place

MB = 1_000_000
ROUNDS, STARTS = 7, 25
_VERIFY_MEMORY_MB = 100


def verify(material: Material) -> list[Figure]:
    """Verify every byte of a bundle whose bytes are in the page cache.

    With a model of 1 GiB a sixth of the time is the program's own start; one of 4 GiB has 7 to 8 billion parameters.
    """
    small, limit = _against_openssl(*material.big, ROUNDS), f"{_VERIFY_MEMORY_MB} MB"
    with material.huge() as bundle:
        large = _against_openssl(*bundle, 3)
    what, against = "verify a bundle of {} GiB, warm", "`openssl dgst -sha256` over the same bytes"
    return [
        Figure(what.format(1), against, small[0].wall_s, small[1].wall_s, 0.60),
        Figure(what.format(4), against, large[0].wall_s, large[1].wall_s, 0.60),
        Figure(f"{what.format(4)}: memory", limit, large[0].peak_bytes / MB, _VERIFY_MEMORY_MB, 1.0, "MB", 0),
    ]


def _against_openssl(workspace: Path, bundle: Path, rounds: int) -> list[Taken]:
    blobs = sorted((bundle / "blobs" / "sha256").iterdir())
    sides = (
        lambda: run(PROGRAM, "verify", bundle, "--workspace", workspace),
        lambda: run("openssl", "dgst", "-sha256", *blobs),
    )
    return take_turns(sides, rounds)


def model_signing(material: Material) -> list[Figure]:
    """The same model checked by the reference tool of OpenSSF model signing, with the signature that we made."""
    program = place(MODEL_SIGNING) / "bin" / "model_signing"
    if not program.exists():
        raise SystemExit("bench: the oracle model_signing is missing: make oracles")
    workspace, bundle = material.big
    folder, key = material.folder / "signed", material.folder / "targets.pem"
    folder.mkdir()
    (folder / "toy.gguf").hardlink_to(material.model)
    found = open_bundle(bundle, (workspace / "trust" / "root.json").read_bytes(), Floors(), now())
    key.write_text(pem_of(found.evidence.signers[0].spki))
    [signature] = bundle.glob("attestations/*/*.oms")
    theirs_words = ("verify", "key", folder, "--signature", signature, "--public_key", key)
    sides = (
        lambda: run(PROGRAM, "verify", bundle, "--workspace", workspace),
        lambda: run(program, *theirs_words),
    )
    ours, theirs = take_turns(sides, 3)
    against = "`model_signing verify key` of the model in it"
    return [Figure("verify a bundle of 1 GiB, warm", against, ours.wall_s, theirs.wall_s, 0.50)]


def metadata(material: Material) -> list[Figure]:
    """A bundle of a few kilobytes: what the chain of trust costs, in seconds of processor above Python's own start."""
    workspace, bundle = material.small
    sides = (
        lambda: run(PROGRAM, "verify", bundle, "--workspace", workspace),
        lambda: run(sys.executable, "-I", "-c", "pass"),
    )
    ours, start = take_turns(sides, STARTS)
    above_ms = (ours.cpu_s - start.cpu_s) * 1000
    what = "verify metadata alone, processor time above Python's start"
    return [Figure(what, "150 ms", above_ms, 150, 1.0, "ms", 0)]
