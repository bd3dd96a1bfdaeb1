"""T84: a model that the bundle's own engine does not load, in a bundle that is signed all the same."""

from __future__ import annotations

from pathlib import Path

from appliance.builder.debian.rootfs import DEBIAN_12, FOLDER
from tests.appliance.tiny import TinyBuild
from tests.attacks.harness import guard_off, refused, row
from tests.bed.fixtures import tree_folder
from tests.sim.engines import stand_in_for

ROW = row(84)
UNLOADABLE = b"BAD HEAD"


def build(folder: Path, tail: bytes = b"") -> TinyBuild:
    """A build whose engine is a stand-in, which refuses a model by its last bytes."""
    made = TinyBuild(folder, engine=stand_in_for("/usr/bin/python3"), tail=tail)
    (made.cache.folder(FOLDER) / DEBIAN_12.key()).symlink_to(tree_folder(DEBIAN_12))
    return made


def test_unattacked_model_is_loaded_once_and_signed(tmp_path: Path) -> None:
    made = build(tmp_path)
    assert made.build().bundle is not None
    assert len(list((made.cache.folder("proof")).glob("model-*.json"))) == 1


def test_attacked_by_a_model_that_does_not_load_nothing_is_written_or_signed(tmp_path: Path) -> None:
    made = build(tmp_path, UNLOADABLE)
    error = refused(ROW, made.build, "model.not-loaded", "model tiny")
    assert error.found == "invalid magic"
    assert list((tmp_path / "workspace" / "dist").glob("*")) == []
    assert not list((tmp_path / "workspace" / "trust" / "repository" / "metadata").glob("2.targets.json"))


def test_unguarded_the_bundle_is_signed_and_no_host_serves_it(tmp_path: Path) -> None:
    with guard_off(ROW.guard, lambda *_: 0):
        assert build(tmp_path, UNLOADABLE).build().bundle is not None
