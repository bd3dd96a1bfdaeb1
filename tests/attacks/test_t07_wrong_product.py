"""T7: everything is signed, but it is another product, or meant for another machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.engine_program import PROGRAM
from appliance.host.install.bundle_admission import model_workloads
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Card
from appliance.host.preflight.host_check import PreflightResult, check_host
from appliance.host.preflight.inputs import Host
from appliance.host.runtime.variant_choice import BENCH
from bundles.contents.contents import Contents, Member
from bundles.oci.layout import Layout, target_name
from signing.digest import sha256
from tests.appliance.sim_card import CARD
from tests.attacks.harness import Agreeing, Stick, guard_off, refused, row
from tests.toy import NOW

ROW = row(7)
RIGHT = replace(CARD, cpu=replace(CARD.cpu, flags=()))
OTHER = "bundles/other/1.0.0/manifest.json"


def rename(stick: Stick) -> None:
    """Sign the toy's contents under the name of another product."""
    stick.forge(lambda _: None, title="other")


def with_programs(contents: Contents) -> Contents:
    """The contents with a runtime that claims to hold what an install runs."""
    nothing = sha256(b"")
    members = tuple(Member(f"llama_cpp/lib/{name}", 0, nothing, nothing, 0o755) for name in (PROGRAM, BENCH))
    files = tuple(replace(file, members=members) if file.kind == "runtime" else file for file in contents.files)
    return replace(contents, files=files)


def fit(stick: Stick, folder: Path, card: Card) -> PreflightResult:
    contents = with_programs(stick.open().value.contents)
    here = ".".join(map(str, sys.version_info[:2]))
    targets = tuple(replace(target, python=(here,)) for target in contents.targets)
    contents = replace(contents, targets=targets)
    host = Host(Prefix.at(folder / "host"), card, lambda: NOW, "")
    models = model_workloads(Layout(stick.path), contents)
    assert len(models) == len(contents.models)
    return check_host(contents, models, host, host.prefix.releases / "x", "")


def test_unattacked_bundle_of_the_right_name_on_the_right_machine_passes(stick: Stick, tmp_path: Path) -> None:
    stick.verify()
    assert fit(stick, tmp_path, RIGHT).variants == ("x64",)


def test_attacked_with_another_products_contents_under_a_signed_name(stick: Stick) -> None:
    rename(stick)
    refused(ROW, stick.verify, "bundle.wrong-name", OTHER)
    assert stick.command().code == 4


@pytest.mark.parametrize(
    ("part", "change", "subject"),
    [
        ("system", {"os": "debian-13"}, "system"),
        ("system", {"arch": "aarch64"}, "system"),
        ("system", {"glibc": "2.31"}, "glibc"),
        ("system", {"glibcxx": ""}, "libstdc++ GLIBCXX"),
        ("memory", {"ram_bytes": 1 << 10}, "memory"),
    ],
)
def test_attacked_on_another_machine(
    stick: Stick, tmp_path: Path, part: str, change: dict[str, Any], subject: str
) -> None:
    card = replace(RIGHT, **{part: replace(getattr(RIGHT, part), **change)})
    error = refused(ROW, lambda: fit(stick, tmp_path, card), "host.unfit", subject)
    assert error.exit_code == 6
    assert not (tmp_path / "host").exists()


def test_unguarded_the_wrong_machine_takes_it(stick: Stick, tmp_path: Path) -> None:
    with guard_off(ROW.guard, lambda *_: []):
        fit(stick, tmp_path, replace(RIGHT, system=replace(RIGHT.system, arch="aarch64")))


def test_unguarded_the_wrong_name_is_taken(stick: Stick) -> None:
    rename(stick)
    with guard_off("bundles.oci.layout.target_name", lambda name, version: Agreeing(target_name(name, version))):
        assert stick.verify().value.contents.name == "toy"
