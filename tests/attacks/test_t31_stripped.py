"""T31: a bundle without the statements that its signers require of it: the bill of materials, the provenance."""

from __future__ import annotations

import pytest

from bundles.attestation.required_statements import REQUIRED, STATEMENTS
from bundles.oci.layout import target_name
from signing.roles import TargetEntry
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import Signed

ROW = row(31)
TARGET = target_name("toy", "1.0.0")


def require(stick: Stick, *names: str) -> None:
    """The signers require statements of the bundle."""
    repository = stick.repository
    repository.edit(
        repository.targets_name, lambda targets: targets["targets"][TARGET]["custom"].update(statements=list(names))
    )
    stick.save()


def strip(stick: Stick, path: str) -> None:
    """Take a file out of the contents, and have it all signed again."""

    def change(contents: Signed) -> None:
        contents["files"] = [file for file in contents["files"] if file["path"] != path]

    stick.forge(change)
    require(stick, *REQUIRED)


def test_unattacked_every_required_statement_is_there(stick: Stick) -> None:
    require(stick, *REQUIRED)
    stick.verify()


@pytest.mark.parametrize("name", REQUIRED)
def test_attacked_by_stripping_one(stick: Stick, name: str) -> None:
    [path] = [statement.path for statement in STATEMENTS if statement.name == name]
    strip(stick, path)
    error = refused(ROW, stick.verify, "target.statements", TARGET)
    assert error.found == f"no {name}"
    assert stick.command().code == 4


def test_attacked_by_a_file_of_another_kind_in_its_place(stick: Stick) -> None:
    def change(contents: Signed) -> None:
        for file in contents["files"]:
            if file["kind"] == "provenance":
                file["kind"] = "licence"

    stick.forge(change)
    require(stick, *REQUIRED)
    refused(ROW, stick.verify, "target.statements", TARGET)


def test_attacked_by_a_requirement_that_this_version_does_not_know(stick: Stick) -> None:
    require(stick, *REQUIRED, "export-licence")
    refused(ROW, stick.verify, "target.statements", TARGET)


def test_unguarded_nothing_is_required(stick: Stick) -> None:
    strip(stick, STATEMENTS[0].path)
    with guard_off(ROW.guard, lambda _entry, _made, _target: None):
        stick.verify()


def test_unguarded_the_signed_list_is_what_decides(stick: Stick) -> None:
    strip(stick, STATEMENTS[0].path)
    entry = stick.repository.walk().targets.entries[TARGET]
    assert isinstance(entry, TargetEntry)
    assert set(entry.statements) == set(REQUIRED)


@pytest.mark.parametrize("name", ["dataset", "evaluation"])
def test_attacked_by_stripping_a_statement_that_only_later_versions_write(stick: Stick, name: str) -> None:
    require(stick, *REQUIRED, name)
    error = refused(ROW, stick.verify, "target.statements", TARGET)
    assert error.found == f"no {name}"


@pytest.mark.parametrize("name", ["dataset", "evaluation"])
def test_unattacked_statement_of_a_later_version_is_found_by_its_path(stick: Stick, name: str) -> None:
    def change(contents: Signed) -> None:
        file = next(one for one in contents["files"] if one["path"] == "provenances/provenance.txt")
        file["path"] = f"bills/{name}.json"
        contents["files"].sort(key=lambda one: one["path"])

    stick.forge(change)
    require(stick, *REQUIRED, name)
    stick.verify()
