"""T119: a release is changed, or planted, between staging and the switch, which may be days."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.host.install.switching import switch_release
from appliance.host.layout.places import OK_FILE, STAGED_FILE
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site
from tests.attacks.harness import guard_off, refused, row
from tests.sim.kills import kept_tree

ROW = row(119)
LICENCE = "licences/toy/LICENSE"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A host that serves one release, and has a newer one staged."""
    folder = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patch:
        site = new_site(folder, patch)
        site.install()
        site.install(build_bundle(site.sim.workspace, "1.1.0", "two"), is_staging=True)
        yield site


@pytest.fixture
def site(base: Site, tmp_path: Path) -> Iterator[Site]:
    with kept_tree(base.sim.prefix, tmp_path / "kept") as put_back:
        yield base
        put_back()


def staged(site: Site) -> Path:
    [mark] = site.sim.prefix.releases.glob(f"*/{STAGED_FILE}")
    return mark.parent


def switch(site: Site) -> None:
    switch_release(None, site.machine)


def test_unattacked_a_staged_release_serves(site: Site) -> None:
    path = staged(site)
    switch(site)
    assert site.release == path


def test_attacked_by_a_changed_file(site: Site) -> None:
    before = site.release
    (staged(site) / LICENCE).write_text("not free\n")
    refused(ROW, lambda: switch(site), "contents.file-changed", LICENCE)
    assert site.release == before


def test_attacked_by_a_file_that_nothing_names(site: Site) -> None:
    (staged(site) / "config" / "engine-evil.json").write_text("{}")
    refused(ROW, lambda: switch(site), "release.unlisted", "config/engine-evil.json")


def test_attacked_by_a_planted_mark(site: Site) -> None:
    # Somebody marks a release that was never tried as one that is staged.
    path = staged(site)
    (path / STAGED_FILE).unlink()
    refused(ROW, lambda: switch(site), "switch.not-staged", str(site.sim.prefix.root))
    path.joinpath("RELEASE.json").write_text("{}")
    (path / STAGED_FILE).touch()
    refused(ROW, lambda: switch(site), "release.facts", "RELEASE.json")


def test_unguarded_the_changed_file_serves(site: Site) -> None:
    path = staged(site)
    (path / LICENCE).write_text("not free\n")
    with guard_off(ROW.guard, lambda *_: None):
        switch(site)
    assert site.release == path
    assert (path / OK_FILE).exists()
