"""Discs: images with Rock Ridge or long Joliet names keep a bundle; shorter names are recognised and named."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bundles.bundle import open_bundles
from bundles.chunks.check import check_all
from bundles.oci.layout import Layout
from signing.errors import ApplianceError, DamagedError, UsageError
from signing.floors import Floors
from tests.attacks.harness import command
from tests.toy import NOW, build_toy

needs_xorriso = pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    workspace, path = build_toy(tmp_path_factory.mktemp("workspace"))
    return workspace.root_file, path


def burnt(path: Path, folder: Path, options: list[str], reads: str) -> Path:
    """Make a disc image of a bundle and take its files out, seen through one of its trees of names."""
    image, out = folder / "disc.iso", folder / "disc"
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", *options, "-o", image, path], check=True, text=True)
    arguments = ["-osirrox", "on", "-read_fs", reads, "-indev", f"stdio:{image}", "-extract", "/", out]
    subprocess.run(["xorriso", *map(str, arguments)], check=True, capture_output=True)
    for place in (out, *out.rglob("*")):
        place.chmod(0o755 if place.is_dir() else 0o644)
    return out


def fault(root: Path, path: Path) -> ApplianceError:
    with pytest.raises(ApplianceError) as refused:
        open_bundles(path, root.read_bytes(), Floors(), NOW)
    return refused.value


@needs_xorriso
@pytest.mark.parametrize(
    ("options", "reads"),
    [
        (["-R", "-joliet-long"], "any"),
        (["-R", "-J", "-joliet-long"], "norock"),
        (["-R"], "any"),
    ],
)
def test_a_disc_image_with_long_names_is_the_bundle(
    made: tuple[Path, Path], tmp_path: Path, options: list[str], reads: str
) -> None:
    root, path = made
    disc = burnt(path, tmp_path, options, reads)
    (found,) = open_bundles(disc, root.read_bytes(), Floors(), NOW)
    check_all(Layout(disc), found)


@needs_xorriso
@pytest.mark.parametrize(
    ("options", "reads"),
    [
        (["-J"], "norock"),
        ([], "ecma119"),
        (["-iso-level", "3"], "ecma119"),
    ],
)
def test_a_disc_image_with_shortened_names_is_damaged_and_named(
    made: tuple[Path, Path], tmp_path: Path, options: list[str], reads: str
) -> None:
    root, path = made
    error = fault(root, burnt(path, tmp_path, options, reads))
    assert (error.code, error.exit_code) == ("medium.short-names", 3)
    assert "without Rock Ridge" in error.found
    assert "xorriso" in error.hint


def joliet(path: Path, folder: Path) -> Path:
    """The bundle as Joliet shows it: names of at most 64 characters."""
    disc = shutil.copytree(path, folder / "disc")
    for file in [file for file in disc.rglob("*") if len(file.name) > 64]:
        file.rename(file.with_name(f"{file.name[:60]}{file.suffix[:4]}"))
    return disc


def test_verify_names_the_missing_rock_ridge(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, path = made
    answer = command("verify", joliet(path, tmp_path), "--trust", root)
    assert answer.code == 3
    assert "burnt without Rock Ridge (medium.short-names)" in answer.talk


@pytest.mark.parametrize("name", ["OCI_LAYO", "OCI_LAYO.;1", "oci_layout", "OCI-LAYOUT.;1"])
def test_the_layout_file_under_a_name_of_iso_9660_is_recognised(
    made: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    root, path = made
    disc = shutil.copytree(path, tmp_path / "disc")
    (disc / "oci-layout").rename(disc / name)
    assert fault(root, disc).code == "medium.short-names"
    assert command("verify", disc, "--trust", root).code == 3


def test_other_folders_and_missing_files_keep_their_errors(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, path = made
    assert isinstance(fault(root, tmp_path), UsageError)
    disc = shutil.copytree(path, tmp_path / "disc")
    next((disc / "targets").rglob("*.json")).unlink()
    error = fault(root, disc)
    assert (isinstance(error, DamagedError), error.code) == (True, "target.missing")


def test_nothing_is_read_under_a_shortened_name(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, path = made
    disc = joliet(path, tmp_path)
    # Even with the bytes of the right file the name does not count, and a longer name is no shortened one.
    short = next((disc / "targets").rglob("*.jso"))
    short.rename(short.with_name(f"{short.name[:60]}0000000.manifest.json"))
    assert fault(root, disc).code == "target.missing"
