"""The figures of building, and of what a change makes somebody carry."""

from __future__ import annotations

import shutil
from pathlib import Path

from appliance.builder.chunking.bundle_writer import remove_bundle
from bundles.bundle import Bundle, open_bundle
from signing.floors import Floors
from tests.appliance.big_build import TEMPLATE
from tests.bench.figure import Figure, best, run
from tests.bench.material import RECIPE, Material, appliance, now, write_model
from tests.toy import build_toy

KB, MB = 1_000, 1_000_000
ROUNDS = 3
_MEMORY_MB = 250
_PACK = "tar -cf - files | zstd -1 -q -f -o packed.tar.zst && sha256sum files/* > sums && sync packed.tar.zst"


def build(material: Material) -> list[Figure]:
    """Build a bundle with a model of 1 GiB, every source and the runtime in the cache."""
    return _build(material, material.big_recipe, "big-1.0.0", "build a bundle with a model of 1 GiB")


def build_demo(material: Material) -> list[Figure]:
    """Build the bundle of the demo, every source and the runtime in the cache."""
    return _build(material, RECIPE, "smollm2-1.0.0", "build the bundle of the demo, 150 MB")


def _build(material: Material, recipe: Path, name: str, what: str) -> list[Figure]:
    place = material.folder / f"build-{name}"
    workspace, files = place / "workspace", place / "files"
    files.mkdir(parents=True)
    appliance("init", workspace)
    appliance("build", recipe, "--workspace", workspace)
    for number, blob in enumerate(sorted((workspace / "dist" / name / "blobs" / "sha256").iterdir())):
        shutil.copy(blob, files / str(number))
    rounds = []
    for _ in range(ROUNDS):
        remove_bundle(workspace / "dist" / name)
        rounds.append((appliance("build", recipe, "--workspace", workspace), run(shell=_PACK, cwd=place)))
    ours, theirs = best(*zip(*rounds, strict=True))
    remove_bundle(workspace / "dist" / name)
    shutil.rmtree(place)
    against = "`tar`, `zstd -1`, `sha256sum` of the same files"
    return [
        Figure(f"{what}, from cached sources", against, ours.wall_s, theirs.wall_s, 0.70),
        Figure(f"{what}: memory", f"{_MEMORY_MB} MB", ours.peak_bytes / MB, _MEMORY_MB, 1.0, "MB", 0),
    ]


def delta(material: Material) -> list[Figure]:
    """What goes to a host that has a bundle: where the chat template changed, and where nothing did."""
    workspace, old = material.big
    model = write_model(material.folder / "changed.gguf", f"{TEMPLATE} ")
    _, new = build_toy(workspace, "1.0.1", model=model)
    model.unlink()
    figures = [
        _carried("delta for a changed chat template, model of 1 GiB", workspace, old, new),
        _carried("delta where nothing changed, model of 1 GiB", workspace, old, old),
        _carried("delta where nothing changed, the demo", material.demo[0], *(material.demo[1],) * 2),
    ]
    remove_bundle(new)
    return figures


def _carried(what: str, workspace: Path, old: Path, new: Path) -> Figure:
    """All that lies on a stick that was written for a place with the old bundle.

    Args:
        what: changed.
        workspace: of both bundles.
        old, new: their folders.
    """
    stick = workspace / "stick"
    appliance("stick", "write", new, stick, "--since", old, "--workspace", workspace)
    carried = sum(path.stat().st_size for path in stick.rglob("*") if path.is_file())
    shutil.rmtree(stick)
    before, after = _opened(old, workspace), _opened(new, workspace)
    base = 200 if after.manifest == before.manifest else 1000
    chunks = len(after.blobs) - 2
    limit = base + chunks / 2
    against = f"{base} kB and 0.5 kB for each of {chunks} chunks"
    return Figure(what, against, carried / KB, limit, 1.0, "kB", 0)


def _opened(bundle: Path, workspace: Path) -> Bundle:
    return open_bundle(bundle, (workspace / "trust" / "root.json").read_bytes(), Floors(), now()).value
