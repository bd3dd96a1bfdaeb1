"""What the connected side of a proof brings: a stick, and the digests that are known before the host has seen anything.

Owns the way from the bundle in a workspace to the image of a USB stick, by the program's own command. It never touches
the host.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from appliance.builder.lock.lockfile import lock_path
from appliance.builder.recipe.reader import load_recipe
from bundles.bundle import open_bundle
from bundles.contents.contents import File, Model
from signing.floors import Floors
from tests.bed.host import BedError
from tests.bed.usb import UsbStick, make_stick

RECIPE = Path("bundles/recipes/smollm2.yaml")


@dataclass(frozen=True)
class Material:
    """A stick, and what is known of it.

    Args:
        bundle: the folder that was built.
        stick: write-protected.
        manifest: the bundle's digest.
        fingerprint: of the root key, as it stands on paper.
        sheet: for a bare host, as it stands on paper.
        model: the bundle's model.
        file: of that model.
        newer: a stick with what the next version adds to this bundle.
        newer_manifest: the digest of that version.
    """

    bundle: Path
    stick: UsbStick
    manifest: str
    fingerprint: str
    sheet: str
    model: Model
    file: File
    newer: UsbStick
    newer_manifest: str


def prepare(workspace: Path, folder: Path) -> Material:
    """Write a stick from a workspace's bundle.

    Args:
        workspace: with the recipe's bundle in `dist/`.
        folder: empty; takes the stick's files and its image.

    Raises:
        BedError: there is no bundle, or the command failed.
    """
    recipe = load_recipe(RECIPE)
    bundle = workspace / "dist" / f"{recipe.name}-{recipe.version}"
    if not bundle.is_dir():
        raise BedError(f"there is no bundle at {bundle}\nhint: make runtime")
    _appliance("stick", "write", str(bundle), str(folder / "stick"), "--workspace", str(workspace))
    root = (workspace / "trust" / "root.json").read_bytes()
    found = open_bundle(folder / "stick", root, Floors(), datetime.now(timezone.utc))
    contents = found.value.contents
    (model,) = contents.models
    newer, newer_manifest = _next_version(workspace, bundle, folder)
    return Material(
        bundle=bundle,
        stick=make_stick("stick-1", folder / "stick.img", folder / "stick", is_read_only=True),
        manifest=found.value.manifest,
        fingerprint=found.evidence.root_fingerprints[0],
        sheet=_appliance("trust", "sheet", "--workspace", str(workspace)),
        model=model,
        file=contents.by_path[model.path],
        newer=newer,
        newer_manifest=newer_manifest,
    )


def _next_version(workspace: Path, bundle: Path, folder: Path) -> tuple[UsbStick, str]:
    """Build the next version in a copy of the workspace, and write what it adds to the bundle on a stick."""
    own, recipe = folder / "workspace", folder / RECIPE.name
    shutil.copytree(workspace, own, ignore=shutil.ignore_patterns("dist"))
    version = load_recipe(RECIPE).version
    start, _, last = version.rpartition(".")
    following = f"{start}.{int(last) + 1}"
    recipe.write_text(RECIPE.read_text().replace(f"version: {version}", f"version: {following}"))
    shutil.copy(lock_path(RECIPE), lock_path(recipe))
    _appliance("build", str(recipe), "--workspace", str(own))
    newer = own / "dist" / f"{load_recipe(recipe).name}-{following}"
    found = open_bundle(newer, (own / "trust/root.json").read_bytes(), Floors(), datetime.now(timezone.utc))
    _appliance("stick", "write", str(newer), str(folder / "newer"), "--since", str(bundle), "--workspace", str(own))
    return make_stick("stick-2", folder / "newer.img", folder / "newer", is_read_only=True), found.value.manifest


def _appliance(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "appliance", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise BedError(f"appliance {' '.join(words)} failed\n{done.stderr}")
    return done.stdout
