"""T89: an index or a manifest that says more than the format gives, or says it otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from bundles.oci.layout import INDEX_FILE, TARGETS
from bundles.oci.manifest import write_index
from signing.digest import sha256
from signing.strictjson import Json, load, to_file
from tests.attacks.harness import MAX_JSON, Stick, guard_off, refused, row
from tests.attacks.media_faults import INDEX, Fault

ROW = row(89)


def sign_manifest(stick: Stick, change: Callable[[Json], object]) -> None:
    """Change the manifest and sign it again: what people with keys and bad intentions could publish."""
    old = stick.blob(stick.manifest)
    value = load(old.read_bytes(), "manifest", MAX_JSON)
    change(value)
    data = to_file(value)
    old.unlink()
    stick.blob(sha256(data)).write_bytes(data)
    shutil.rmtree(stick.path / TARGETS)
    (stick.path / INDEX_FILE).write_bytes(write_index(data))
    stick.publish()


def swap_layers(value: Json) -> None:
    value["layers"][:2] = value["layers"][1::-1]


MANIFESTS: dict[str, tuple[Callable[[Json], object], str]] = {
    "an unknown field": (lambda value: value.update(subject={}), "manifest.refused"),
    "another schema": (lambda value: value.update(schemaVersion=1), "manifest.refused"),
    "a schema that is true": (lambda value: value.update(schemaVersion=True), "manifest.refused"),
    "no schema": (lambda value: value.pop("schemaVersion"), "manifest.refused"),
    "another media type": (lambda value: value.update(mediaType="text/html"), "manifest.refused"),
    "no media type": (lambda value: value.pop("mediaType"), "manifest.refused"),
    "an unknown annotation": (lambda value: value["annotations"].update(run="x"), "manifest.refused"),
    "a field in a layer": (lambda value: value["layers"][0].update(urls=["x"]), "manifest.refused"),
    "another media type of the contents": (
        lambda value: value["config"].update(mediaType="text/html"),
        "manifest.refused",
    ),
    "a layer twice": (lambda value: value["layers"].append(value["layers"][0]), "manifest.refused"),
    "a layer twice with another size": (
        lambda value: value["layers"].insert(0, {**value["layers"][0], "size": 1}),
        "manifest.refused",
    ),
    "layers in another order": (swap_layers, "manifest.blobs"),
}


def test_unattacked_index_and_manifest_of_the_format_verify(stick: Stick) -> None:
    sign_manifest(stick, lambda _: None)
    stick.verify()


@pytest.mark.parametrize("fault", INDEX.values(), ids=INDEX)
def test_attacked_by_an_index_that_is_not_what_the_manifest_gives(stick: Stick, fault: Fault) -> None:
    fault.act(stick)
    refused(ROW, stick.verify, fault.code, INDEX_FILE)


@pytest.mark.parametrize(("change", "code"), MANIFESTS.values(), ids=MANIFESTS)
def test_attacked_by_a_signed_manifest_of_another_form(
    stick: Stick, change: Callable[[Json], object], code: str
) -> None:
    sign_manifest(stick, change)
    refused(ROW, stick.verify, code, "manifest")


def test_attacked_by_an_index_of_two_bundles(stick: Stick) -> None:
    value = load((stick.path / INDEX_FILE).read_bytes(), INDEX_FILE)
    value["manifests"] *= 2
    (stick.path / INDEX_FILE).write_bytes(to_file(value))
    refused(ROW, stick.verify, "manifest.refused", INDEX_FILE)


def test_unguarded_the_longer_index_passes(stick: Stick) -> None:
    INDEX["60 kB more"].act(stick)
    with guard_off(ROW.guard, lambda *_: None):
        stick.verify()
