"""An installed release is compared whole: what differs is damaged, what nothing names is not trusted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from appliance.host.activation.switch import point_at
from appliance.host.layout.places import check_places
from appliance.host.maintenance.status import read_status
from appliance.host.release.release import Release, current_target, open_current
from appliance.host.release.release_check import check_release
from bundles.contents.signed_wheel import read_record
from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, DriftError, NotTrustedError, UsageError
from signing.strictjson import load, to_file
from tests.appliance.sim_host import PYTHON, SimHost, build_bundle, new_host
from tests.toy import NOW

SITE = f"venv/lib/python{PYTHON}/site-packages"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = new_host(tmp_path_factory.mktemp("release"))
    made.install()
    return made


@pytest.fixture
def release(host: SimHost, tmp_path: Path) -> Release:
    """The installed release; changes of a test are undone afterwards."""
    return open_current(host.prefix, NOW)


def flip(path: Path) -> bytes:
    before = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    return before


def find(release: Release, pattern: str) -> Path:
    root = release.prefix.models if pattern.endswith(".gguf") else release.path
    return next(iter(sorted(root.glob(pattern))))


def test_release_is_what_was_signed(release: Release) -> None:
    check_release(release)


@pytest.mark.parametrize(
    ("pattern", "kind", "subject"),
    [
        ("*/toy.gguf", DamagedError, "models/toy/toy.gguf"),
        ("wheels/greeter-*.whl", DamagedError, "wheels/greeter-2.0-py3-none-any.whl"),
        ("wheels/llama_cpp_python-*.whl", DamagedError, "runtime/llama_cpp_python-0.0.1-py3-none-any.whl"),
        ("tools/uv-*.whl", DamagedError, "tools/uv-1.0-py3-none-any.whl"),
        ("playbooks/site.yml", DamagedError, "playbooks/site.yml"),
        ("licences/toy/LICENSE", DamagedError, "licences/toy/LICENSE"),
        ("config/recipe.yaml", DamagedError, "config/recipe.yaml"),
        ("config/gateway.json", DriftError, "config/gateway.json"),
        (
            "runtime/libggml.so",
            DamagedError,
            "runtime/llama_cpp_python-0.0.1-py3-none-any.whl: llama_cpp/lib/libggml.so",
        ),
        (f"{SITE}/greeter/__init__.py", DamagedError, "wheels/greeter-2.0-py3-none-any.whl: greeter/__init__.py"),
        (
            f"{SITE}/greeter-2.0.dist-info/RECORD",
            DamagedError,
            "wheels/greeter-2.0-py3-none-any.whl: greeter-2.0.dist-info/RECORD",
        ),
        ("venv/pyvenv.cfg", DriftError, "venv/pyvenv.cfg"),
    ],
)
def test_one_flipped_bit_is_found_and_named(
    release: Release, pattern: str, kind: type[ApplianceError], subject: str
) -> None:
    path = find(release, pattern)
    mode, before = path.stat().st_mode, flip(path)
    try:
        with pytest.raises(kind) as caught:
            check_release(release)
        assert subject in [error.subject for error in (caught.value, *caught.value.others)]
        failure = read_status(release.prefix, NOW).failure()
        assert failure is not None
        assert (failure.exit_code, failure.code) == (caught.value.exit_code, caught.value.code)
    finally:
        path.write_bytes(before)
        path.chmod(mode)
    check_release(release)


@pytest.mark.parametrize(
    "path",
    [
        "extra",
        "config/other.json",
        "runtime/libggml-cpu-x64.so",
        f"{SITE}/evil.pth",
        f"{SITE}/greeter/__pycache__/__init__.cpython-311.pyc",
        "venv/bin/pip",
        "playbooks/roles/x/tasks/main.yml",
        "bundle/metadata/note.txt",
        "bundle/extra",
    ],
)
def test_file_that_nothing_names_is_not_trusted(release: Release, path: str) -> None:
    extra = release.path / path
    made = [folder for folder in extra.parents if not folder.exists()]
    extra.parent.mkdir(parents=True, exist_ok=True)
    extra.write_text("planted")
    try:
        with pytest.raises(NotTrustedError) as caught:
            check_release(release)
        assert path.removeprefix("bundle/metadata") in caught.value.subject or path in caught.value.subject
    finally:
        extra.unlink()
        for folder in made:
            folder.rmdir()


@pytest.mark.parametrize(
    "path", ["wheels/greeter-2.0-py3-none-any.whl", f"{SITE}/greeter/__init__.py", "runtime/libggml.so"]
)
def test_file_that_is_missing_or_a_link_is_found(release: Release, tmp_path: Path, path: str) -> None:
    target, aside = release.path / path, tmp_path / "aside"
    shutil.copy2(target, aside)
    target.unlink()
    try:
        with pytest.raises(DamagedError):
            check_release(release)
        target.symlink_to(aside)
        with pytest.raises((DamagedError, NotTrustedError)):
            check_release(release)
    finally:
        target.unlink(missing_ok=True)
        shutil.copy2(aside, target)
    check_release(release)


def test_not_trusted_outranks_damaged_and_every_fault_is_reported_at_once(release: Release) -> None:
    (release.path / "extra").write_text("planted")
    before = flip(release.path / "playbooks" / "site.yml")
    try:
        with pytest.raises(NotTrustedError) as caught:
            check_release(release)
        assert [error.subject for error in (caught.value, *caught.value.others)] == ["extra", "playbooks/site.yml"]
    finally:
        (release.path / "extra").unlink()
        (release.path / "playbooks" / "site.yml").write_bytes(before)


def test_damaged_wheel_is_damaged_even_where_its_list_of_files_cannot_be_read(release: Release) -> None:
    for wheel in (release.path / "wheels").iterdir():
        before = wheel.read_bytes()
        wheel.write_bytes(before[:-30])
        try:
            with pytest.raises(DamagedError) as caught:
                check_release(release)
            assert wheel.name in caught.value.subject
        finally:
            wheel.write_bytes(before)


def test_any_changed_byte_of_a_wheel_is_damaged_and_never_a_bug(release: Release) -> None:
    wheel = min((release.path / "wheels").glob("*.whl"), key=lambda path: path.stat().st_size)
    file = next(file for file in release.contents.files if file.path.endswith(f"/{wheel.name}"))
    before = wheel.read_bytes()
    found = set()
    try:
        for at in range(0, len(before), 3):
            wheel.write_bytes(before[:at] + bytes([before[at] ^ 0xFF]) + before[at + 1 :])
            try:
                read_record(file, wheel)
            except ApplianceError as error:
                found.add(error.exit_code)
    finally:
        wheel.write_bytes(before)
    assert found == {3}


def test_facts_cannot_make_a_planted_file_known(host: SimHost) -> None:
    path = open_current(host.prefix, NOW).path
    planted = path / "playbooks" / "group_vars" / "all.yml"
    planted.parent.mkdir()
    planted.write_text("planted: true\n")
    facts, before = path / "RELEASE.json", (path / "RELEASE.json").read_bytes()
    value = load(before, "x")
    value["config"]["playbooks/group_vars/all.yml"] = sha256(planted.read_bytes())
    facts.write_bytes(to_file(value))
    try:
        with pytest.raises(DriftError) as caught:
            open_current(host.prefix, NOW)
        assert caught.value.code == "release.facts"
        facts.write_bytes(before)
        with pytest.raises(NotTrustedError):
            check_release(open_current(host.prefix, NOW))
    finally:
        facts.write_bytes(before)
        shutil.rmtree(planted.parent)


def test_index_that_is_not_signed_must_be_that_of_the_manifest(release: Release) -> None:
    path = release.path / "bundle" / "index.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"size":', b'"size":1'))
    try:
        with pytest.raises(DamagedError) as caught:
            check_release(release)
        assert caught.value.subject == "bundle/index.json"
    finally:
        path.write_bytes(before)


def test_check_can_leave_the_models_to_the_engines(release: Release) -> None:
    path = find(release, "*/toy.gguf")
    before = flip(path)
    try:
        check_release(release, models=False)
    finally:
        path.write_bytes(before)
        path.chmod(0o444)


def test_release_without_its_last_file_is_not_opened(host: SimHost) -> None:
    release = open_current(host.prefix, NOW)
    (release.path / "RELEASE.ok").unlink()
    try:
        with pytest.raises(DriftError) as caught:
            open_current(host.prefix, NOW)
        assert caught.value.code == "release.incomplete"
    finally:
        (release.path / "RELEASE.ok").touch()


def test_current_that_points_elsewhere_is_not_trusted_and_without_current_the_hint_is_to_install(
    host: SimHost, tmp_path: Path
) -> None:
    right = current_target(host.prefix)
    try:
        point_at(host.prefix, str(tmp_path))
        with pytest.raises(NotTrustedError):
            open_current(host.prefix, NOW)
        point_at(host.prefix, None)
        with pytest.raises(UsageError) as caught:
            open_current(host.prefix, NOW)
        assert "appliance install" in caught.value.hint
    finally:
        point_at(host.prefix, right)


@pytest.mark.parametrize(("old", "new"), [(b'"name":"toy"', b'"name":"tox"'), (b"netns", b"nutns"), (b"{", b"[")])
def test_facts_of_another_release_are_drift(host: SimHost, old: bytes, new: bytes) -> None:
    path = open_current(host.prefix, NOW).path / "RELEASE.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(old, new))
    try:
        with pytest.raises(DriftError) as caught:
            open_current(host.prefix, NOW)
        assert caught.value.code == "release.facts"
    finally:
        path.write_bytes(before)


def test_host_without_a_pinned_root_trusts_nothing_that_lies_on_it(host: SimHost) -> None:
    pinned = host.prefix.trust / "root.json"
    aside = pinned.rename(pinned.with_suffix(".aside"))
    try:
        with pytest.raises(NotTrustedError) as caught:
            open_current(host.prefix, NOW)
        assert caught.value.code == "trust.none-pinned"
    finally:
        aside.rename(pinned)


def test_bundle_may_not_name_the_places_that_the_installer_fills(host: SimHost) -> None:
    from dataclasses import replace

    contents = host.verify().value.contents
    for path in ("venv/bin/python", "RELEASE.ok", "runtime/libx.so", "bundle/index.json", "config/gateway.json"):
        files = tuple(
            replace(file, path=path) if file.path == "licences/toy/LICENSE" else file for file in contents.files
        )
        with pytest.raises(NotTrustedError) as caught:
            check_places(replace(contents, files=files))
        assert caught.value.code == "contents.place"


def test_two_versions_are_installed_side_by_side_and_the_newest_metadata_decide_about_both(tmp_path: Path) -> None:
    host = new_host(tmp_path)
    first = host.install()
    host.source = build_bundle(host.workspace, "2.0.0", "two")
    second = host.install()
    assert current_target(host.prefix) == f"releases/{second.path.name}"
    assert {path.name for path in host.prefix.releases.iterdir()} == {first.path.name, second.path.name}
    point_at(host.prefix, f"releases/{first.path.name}")
    # The floors have risen since; the first release carries the newer metadata, so it still opens.
    assert open_current(host.prefix, NOW).bundle.evidence.status == "allowed"
    assert os.listdir(first.path / "bundle" / "metadata")
