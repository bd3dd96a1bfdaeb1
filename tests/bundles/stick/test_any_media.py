"""Whatever lies on three media of one bundle: `verify` gives the right verdict, and `install` never a wrong byte."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.host.install.importer import import_files
from appliance.host.layout.places import place
from appliance.host.layout.prefix import Prefix
from bundles.bundle import Bundle, open_bundle
from bundles.chunks.check import check_file
from bundles.chunks.chunk import Chunk
from bundles.oci.layout import blob_path
from bundles.progress import ignore
from bundles.stick.media import OpenMedia, by_newest, open_media
from bundles.stick.media_check import check_media
from signing.errors import ApplianceError
from signing.floors import Floors
from tests.sim.sets.stick_folders import deal_as
from tests.sim.sets.stick_sets import BLOB_FAULTS, damage
from tests.sim.sticks import SimStick, plugged
from tests.toy import NOW, build_toy

pytestmark = pytest.mark.ci

STICKS = 3
CASES = settings(max_examples=15, deadline=None)
Deal = Sequence[frozenset[int]]
"""For each chunk the sticks that hold it, by their numbers."""


@dataclass(frozen=True)
class Made:
    """A bundle and the root that it is signed under."""

    root: bytes
    dist: Path
    value: Bundle

    @property
    def chunks(self) -> list[Chunk]:
        return self.value.blobs[2:]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    workspace, dist = build_toy(tmp_path_factory.mktemp("made"))
    root = workspace.root_file.read_bytes()
    return Made(root, dist, open_bundle(dist, root, Floors(), NOW).value)


class Try:
    """Three sticks in one place, and a host."""

    def __init__(self, made: Made, folder: Path, deal: Deal) -> None:
        self.made, self.host = made, Prefix.at(folder / "host")
        self.host.create()
        self.release = self.host.release_path(made.value.contents.version, made.value.manifest)
        self.release.mkdir()
        held = [[chunk for chunk, on in zip(made.chunks, deal, strict=True) if at in on] for at in range(STICKS)]
        roots = deal_as(made.dist, made.value, [folder / f"stick{at}" for at in range(STICKS)], held)
        self.sticks = [SimStick(root) for root in roots]

    def opened(self, order: Sequence[int]) -> OpenMedia:
        """The media, named in an order."""
        return open_media([self.sticks[at].root for at in order], by_newest(self.made.root, Floors(), NOW))

    def verify(self, order: Sequence[int]) -> int:
        """The exit code of `verify`."""
        with plugged(*self.sticks):
            try:
                check_media(self.opened(order))
            except ApplianceError as error:
                return error.exit_code
        return 0

    def install(self, order: Sequence[int]) -> int:
        """The exit code of the copy of an install; what has a name then is what was signed."""
        with plugged(*self.sticks):
            try:
                import_files(self.host, self.opened(order).source, self.release, self.made.value, ignore)
            except ApplianceError as error:
                code = error.exit_code
            else:
                code = 0
        for file in self.made.value.contents.files:
            path = place(self.host, self.release, file)
            if code == 0 or path.exists():
                check_file(file, path)
        return code


def some_deal(made: Made, data: st.DataObject, fewest: int) -> Deal:
    some = st.frozensets(st.integers(0, STICKS - 1), min_size=fewest)
    most = st.just(frozenset(range(STICKS)))
    return data.draw(st.lists(st.one_of(some, most), min_size=len(made.chunks), max_size=len(made.chunks)))


ORDERS = st.permutations(range(STICKS))


@CASES
@given(data=st.data(), order=ORDERS, other_order=ORDERS)
def test_any_deal_in_any_order_has_one_verdict(
    made: Made, data: st.DataObject, order: list[int], other_order: list[int]
) -> None:
    deal = some_deal(made, data, fewest=0)
    with tempfile.TemporaryDirectory() as name:
        found = Try(made, Path(name), deal)
        expected = 0 if all(deal) else found.verify(order)
        assert expected in ((0,) if all(deal) else (3, 5))
        assert found.verify(other_order) == expected
        assert found.install(order) == expected


@CASES
@given(data=st.data(), order=ORDERS)
def test_damaged_blobs_are_found_by_verify_and_passed_over_where_another_medium_has_them(
    made: Made, data: st.DataObject, order: list[int]
) -> None:
    deal = some_deal(made, data, fewest=1)
    copies = [(chunk, at) for chunk, on in zip(made.chunks, deal, strict=True) for at in sorted(on)]
    faults: Mapping[tuple[Chunk, int], str] = data.draw(
        st.dictionaries(st.sampled_from(copies), st.sampled_from(BLOB_FAULTS), min_size=1, max_size=3)
    )
    with tempfile.TemporaryDirectory() as name:
        found = Try(made, Path(name), deal)
        for (chunk, at), fault in faults.items():
            damage(found.sticks[at], chunk, fault)
        verdict = 4 if "lengthened" in faults.values() else 3
        assert found.verify(order) == verdict
        # Copies of a blob are read until one is right; one that is longer than signed ends the install.
        held = zip(made.chunks, deal, strict=True)
        read = [[faults.get((chunk, at), "") for at in order if at in on] for chunk, on in held]
        codes = {next((4 if one else 0 for one in copies if one in ("", "lengthened")), 3) for copies in read} - {0}
        assert found.install(order) in (codes or {0})
        for stick in found.sticks:
            stick.heal()
        assert found.install(order) == 0


@CASES
@given(data=st.data(), order=ORDERS)
def test_medium_that_answers_the_second_read_differently_is_passed_over_or_refused(
    made: Made, data: st.DataObject, order: list[int]
) -> None:
    deal = some_deal(made, data, fewest=1)
    liar = data.draw(st.integers(0, STICKS - 1))
    with tempfile.TemporaryDirectory() as name:
        found = Try(made, Path(name), deal)
        lies = [chunk for chunk, on in zip(made.chunks, deal, strict=True) if liar in on]
        for chunk in lies:
            found.sticks[liar].give(blob_path(chunk.sha256), None, b"E" * chunk.size)
        assert found.verify(order) == 0
        assert found.install(order) == (3 if any(on == {liar} for on in deal) else 0)
