"""Who builds, where, when and in which locale leaves no trace in a bundle; and the comparison would notice one."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.compare.rebuild import _differing, _standing
from signing.errors import ApplianceError
from tests.appliance import telltale
from tests.elsewhere import Elsewhere, elsewhere

pytestmark = pytest.mark.ci

TOY = Path("workspace/dist/toy-1.0.0")


def differences(one: Path, two: Path) -> dict[str, ApplianceError]:
    """What differs between two bundles, by name."""
    first, second = _standing(one), _standing(two)
    if first.manifest == second.manifest:
        return {}
    error = _differing(first, second)
    return {each.subject: each for each in (error, *error.others)}


def compare_toys(folder: Path, place: Elsewhere, leaks: tuple[str, ...]) -> dict[str, dict[str, ApplianceError]]:
    """Build the toy here and there, once for each leak."""
    here = [telltale.build(folder, leak) for leak in leaks]
    there = place.run("tests.appliance.telltale", place.work, *leaks).split()
    found = {leak: differences(folder / leak / TOY, place.work / leak / TOY) for leak in leaks}
    assert [one == two for one, two in zip(here, there, strict=True)] == [not found[leak] for leak in leaks]
    return found


def test_toy_of_another_folder_locale_zone_and_day_has_the_same_digest_and_each_leak_is_named(tmp_path: Path) -> None:
    leaks = tuple(leak for leak in telltale.LEAKS if leak != "user")
    with elsewhere(as_another_user=False) as place:
        found = compare_toys(tmp_path, place, leaks)
    assert found.pop("nothing") == {}
    for leak, named in found.items():
        assert next(iter(named)) == telltale.NOTE, leak
        assert "from line 2 on" in named[telltale.NOTE].found


def test_toy_of_another_user_has_the_same_digest_and_who_it_was_would_be_named(tmp_path: Path) -> None:
    with elsewhere() as place:
        found = compare_toys(tmp_path, place, ("nothing", "user"))
    assert found["nothing"] == {}
    assert next(iter(found["user"])) == telltale.NOTE
