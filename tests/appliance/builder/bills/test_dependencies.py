"""The page of dependencies lists what a host gets, and why; what nobody maintains is reported at the build."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from appliance.builder.bills.dependencies import NOT_RECORDED, dependencies, format_dependencies, unmaintained
from appliance.builder.bills.dependency_reasons import BY_ANOTHER, REASONS
from appliance.builder.lock.lockfile import DISTRIBUTIONS, Lock, Locked, LockedSystem, lock_path, read_lock
from appliance.resources import recipes_path
from signing.digest import sha256

DEMO = read_lock(lock_path(recipes_path() / "smollm2.yaml"))


def entry(kind: str, name: str, version: str = "1.0", licence: str = "MIT", **more: Any) -> Locked:
    return Locked(kind, name, version, f"{name}.whl", 1, sha256(name.encode()), licence, **more)


def rows(lock: Lock) -> list[list[str]]:
    lines = format_dependencies(lock, "toy 1.0.0").splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ") and "---" not in line]


def test_every_distribution_of_the_demo_has_a_reason() -> None:
    names = {one.name for one in DEMO.of_kind(*DISTRIBUTIONS)}
    assert names - REASONS.keys() == set()
    assert [name for name, reason in REASONS.items() if not reason or "\n" in reason or "|" in reason] == []


def test_demo_records_the_last_release_of_every_distribution() -> None:
    assert [one.name for one in dependencies(DEMO) if one.last_release is None] == []


def test_page_has_version_licence_day_and_reason_and_what_only_the_build_uses_apart() -> None:
    lock = Lock(
        0,
        (),
        (
            entry("build-tool", "cmake", "4.0", last_release="2026-01-02"),
            entry("model", "tiny"),
            entry("sdist", "llama-cpp-python", "0.3.36"),
            entry("tool", "uv", licence="MIT OR Apache-2.0"),
            entry("wheel", "click", "8.5", last_release="2025-03-04"),
            entry("wheel", "unknown-thing", licence=""),
        ),
    )
    head = ["name", "version", "licence", "last release", "why it is there"]
    assert rows(lock) == [
        head,
        ["click", "8.5", "MIT", "2025-03-04", REASONS["click"]],
        ["llama-cpp-python", "0.3.36", "MIT", NOT_RECORDED, REASONS["llama-cpp-python"]],
        ["unknown-thing", "1.0", "not declared", NOT_RECORDED, BY_ANOTHER],
        ["uv", "1.0", "MIT OR Apache-2.0", NOT_RECORDED, REASONS["uv"]],
        head,
        ["cmake", "4.0", "MIT", "2026-01-02", REASONS["cmake"]],
    ]
    assert "toy 1.0.0 brings to a host" in format_dependencies(lock, "toy 1.0.0")


def test_parts_of_the_cuda_toolkit_that_a_host_gets_stand_with_what_it_gets() -> None:
    lock = Lock(0, (), (entry("build-tool", "nvidia-cublas"), entry("build-tool", "nvidia-nvvm")))
    assert [(one.name, one.is_for_host) for one in dependencies(lock)] == [
        ("nvidia-cublas", True),
        ("nvidia-nvvm", False),
    ]


def test_packages_of_a_system_are_listed_with_who_needs_them() -> None:
    packages = [entry("os-package", name, system="debian-12") for name in ("openssl", "zlib1g")]
    lock = Lock(0, (), tuple(packages), (LockedSystem("debian-12", "x86_64", ("openssl",)),))
    assert rows(lock)[1:] == [
        ["openssl", "1.0", "the recipe asks for it"],
        ["zlib1g", "1.0", "needed by another package"],
    ]


def test_text_of_an_author_cannot_break_the_table() -> None:
    lock = Lock(0, (), (entry("wheel", "click", licence="MIT |\n| evil"),))
    assert "| click | 1.0 | MIT \\| \\| evil | " in format_dependencies(lock, "toy")


def test_wheel_that_two_pythons_take_in_other_files_stands_once() -> None:
    lock = Lock(0, (), tuple(entry("wheel", "numpy", python=python) for python in ("3.11", "3.13")))
    assert [one.name for one in dependencies(lock)] == ["numpy"]


@pytest.mark.parametrize(
    ("last", "today", "is_old"),
    [
        ("2024-05-06", date(2026, 5, 6), False),
        ("2024-05-05", date(2026, 5, 6), True),
        ("2026-02-28", date(2028, 2, 29), False),
        ("2022-02-27", date(2024, 2, 29), True),
        ("2022-02-28", date(2024, 2, 29), False),
        (None, date(2026, 5, 6), False),
    ],
)
def test_project_without_a_release_for_more_than_24_months_is_reported(
    last: str | None, today: date, is_old: bool
) -> None:
    found = dependencies(Lock(0, (), (entry("wheel", "click", last_release=last),)))
    assert bool(unmaintained(found, today)) is is_old


def test_page_of_an_older_lock_shows_what_is_not_recorded() -> None:
    older = replace(DEMO, entries=tuple(replace(one, last_release=None) for one in DEMO.entries))
    assert {row[3] for row in rows(older) if row[0] in REASONS} == {NOT_RECORDED}
