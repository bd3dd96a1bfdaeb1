"""The lock notes when each project released last, as the index reports it, and no pin depends on that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.builder.lock.lockfile import Locked
from appliance.builder.lock.release_dates import add_release_dates
from appliance.builder.sources import download
from appliance.builder.sources.pypi import open_index
from signing.digest import sha256
from tests.appliance.web import PackageIndex, serve, wheel


@pytest.fixture
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    download.close()
    open_index.cache_clear()
    with serve() as site:
        yield PackageIndex(site, getattr(request, "param", "json"))
        download.close()


def offer(
    index: PackageIndex, name: str, version: str, uploaded: str = "", *, build: int = 1, yanked: str | bool = False
) -> None:
    marks = {"upload-time": uploaded, "yanked": yanked} if uploaded else {}
    index.add(name, f"{name}-{version}-{build}-py3-none-any.whl", wheel(name, version), **marks)


def pin(name: str, kind: str = "wheel", last_release: str | None = None) -> Locked:
    digest = sha256(name.encode())
    return Locked(kind, name, "1.0", f"{name}-1.0.whl", 1, digest, "MIT", last_release=last_release)


def days(index: PackageIndex, *entries: Locked) -> list[str | None]:
    return [entry.last_release for entry in add_release_dates(entries, {"UV_DEFAULT_INDEX": index.url})]


def test_day_is_that_of_the_newest_release_and_not_of_a_file_that_came_later(index: PackageIndex) -> None:
    offer(index, "alpha", "2.0", "2024-05-06T07:08:09.123456Z")
    offer(index, "alpha", "2.0", "2026-01-01T00:00:00Z", build=2)
    offer(index, "alpha", "1.0", "2020-01-01T00:00:00Z")
    offer(index, "alpha", "3.0", "2026-02-02T00:00:00Z", yanked="broken")
    assert days(index, pin("alpha")) == ["2024-05-06"]


def test_day_is_counted_in_utc_whatever_zone_the_index_writes(index: PackageIndex) -> None:
    offer(index, "alpha", "1.0", "2024-05-06T23:30:00-02:00")
    offer(index, "beta", "1.0", "2024-05-06T23:30:00")
    assert days(index, pin("alpha"), pin("beta")) == ["2024-05-07", "2024-05-06"]


def test_day_that_is_there_stays_and_no_index_is_asked(index: PackageIndex) -> None:
    offer(index, "alpha", "1.0", "2024-05-06T07:08:09Z")
    assert days(index, pin("alpha", last_release="2023-01-01")) == ["2023-01-01"]
    assert index.site.requests == []


def test_pins_of_an_older_lock_get_a_day_and_stay_as_they_are(index: PackageIndex) -> None:
    offer(index, "alpha", "2.0", "2024-05-06T07:08:09Z")
    [after] = add_release_dates([pin("alpha")], {"UV_DEFAULT_INDEX": index.url})
    assert after == pin("alpha")
    assert replace(after, last_release=None) == pin("alpha")


def test_models_and_packages_of_a_system_have_no_day(index: PackageIndex) -> None:
    assert days(index, pin("tiny", "model"), pin("bash", "os-package")) == [None, None]
    assert index.site.requests == []


def test_project_that_the_index_does_not_have_is_passed_over(index: PackageIndex) -> None:
    offer(index, "beta", "1.0", "2024-05-06T07:08:09Z")
    assert days(index, pin("alpha"), pin("beta")) == [None, "2024-05-06"]


@pytest.mark.parametrize("index", ["html", "json"], indirect=True)
def test_index_without_days_is_asked_for_one_page(index: PackageIndex) -> None:
    offer(index, "alpha", "1.0")
    offer(index, "beta", "1.0")
    assert days(index, pin("alpha"), pin("beta")) == [None, None]
    assert len(index.site.requests) == 1


def test_index_that_is_not_reached_is_no_error(index: PackageIndex, tmp_path: Path) -> None:
    index.url = "http://127.0.0.1:9/simple"
    assert days(index, pin("alpha"), pin("beta")) == [None, None]
