"""`status`, `verify` and `serve` find the same in an installed release: the same codes, exit codes and hints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.serve.supervisor.serving import serving
from bundles.progress import ignore
from signing.errors import ApplianceError
from tests.appliance.sim_host import new_host
from tests.attacks.harness import command
from tests.toy import NOW


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Prefix:
    host = new_host(tmp_path_factory.mktemp("judgement"))
    host.install()
    return host.prefix


@dataclass(frozen=True)
class Judgement:
    """What a command finds: its exit code, and of each error the code, the subject and the hint, in any order."""

    exit_code: int
    errors: frozenset[tuple[str, str, str]]

    def codes(self) -> set[str]:
        return {code for code, _, _ in self.errors}


def judged_by(name: str, prefix: Prefix) -> Judgement:
    """What `status` or `verify` finds."""
    answer = command(name, "--prefix", prefix.root, "--json")
    report = json.loads(answer.out)
    assert report["exit_code"] == answer.code
    return Judgement(
        answer.code, frozenset((error["code"], error["subject"], error["hint"]) for error in report["errors"])
    )


def judged_by_serve(prefix: Prefix) -> Judgement:
    """What `serve` refuses to serve."""
    with pytest.raises(ApplianceError) as caught, serving(prefix, 0, lambda: NOW, lambda _event: None, ignore):
        pass
    errors = (caught.value, *caught.value.others)
    return Judgement(caught.value.exit_code, frozenset((error.code, error.subject, error.hint) for error in errors))


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def unlink(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


def point_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def plant(path: Path) -> None:
    path.write_text("planted")


def test_copy_of_a_prefix_is_drift_for_each_command(installed: Prefix, tmp_path: Path) -> None:
    copy = Prefix.at(Path(shutil.copytree(installed.root, tmp_path / "other", symlinks=True)))
    found = judged_by("status", copy)
    assert (found.exit_code, found.codes()) == (9, {"release.config-changed"})
    assert {subject for _, subject, _ in found.errors} == {"config/engine-toy.json"}
    assert judged_by("verify", copy) == found
    assert judged_by_serve(copy) == found
    shown = command("status", "--prefix", copy.root)
    assert "everything is as it was signed" not in shown.out
    # Only the fields that differ, each with its name.
    assert f"expected store '{copy.root}/" in shown.talk
    assert f"found store '{installed.root}/" in shown.talk
    assert "name 'toy'" not in shown.talk


@pytest.mark.parametrize(
    ("damage", "name", "exit_code", "code"),
    [
        (flip, "playbooks/site.yml", 3, "contents.file-changed"),
        (flip, "runtime/libggml.so", 3, "release.file-changed"),
        (plant, "playbooks/extra", 4, "release.unlisted"),
        (plant, "venv/bin/pip", 4, "release.unlisted"),
        (flip, "config/gateway.json", 9, "release.config-changed"),
        (unlink, "config/gateway.json", 9, "release.config-changed"),
        (unlink, "config/engine-toy.json", 9, "release.config-changed"),
        (flip, "RELEASE.json", 9, "release.facts"),
        (unlink, "RELEASE.json", 9, "release.facts"),
        (plant, "site.yaml", 9, "release.config-changed"),
        (point_elsewhere, "site.yaml", 9, "release.config-changed"),
        (unlink, "RELEASE.ok", 9, "release.incomplete"),
        (flip, "venv/pyvenv.cfg", 9, "release.environment-changed"),
        (unlink, "venv/pyvenv.cfg", 9, "release.environment-changed"),
        (point_elsewhere, "venv/bin/python3", 9, "release.environment-changed"),
        (unlink, "venv/lib64", 9, "release.environment-changed"),
    ],
)
def test_signed_files_are_damaged_unnamed_ones_not_trusted_and_those_of_the_host_drift(
    installed: Prefix, tmp_path: Path, damage: Callable[[Path], None], name: str, exit_code: int, code: str
) -> None:
    path, aside = installed.current / name, tmp_path / "aside"
    if path.exists():
        shutil.copy2(path, aside, follow_symlinks=False)
    damage(path)
    try:
        found = judged_by("status", installed)
        assert (found.exit_code, found.codes()) == (exit_code, {code})
        assert judged_by("verify", installed) == found
        assert judged_by_serve(installed) == found
    finally:
        path.unlink(missing_ok=True)
        if aside.exists() or aside.is_symlink():
            shutil.copy2(aside, path, follow_symlinks=False)
    assert judged_by("verify", installed).exit_code == 0


@pytest.mark.parametrize(
    ("damage", "exit_code", "code"),
    [
        (flip, 3, "contents.file-changed"),
        (unlink, 3, "contents.file-changed"),
        (truncate, 3, "contents.file-changed"),
        (point_elsewhere, 4, "file.hostile"),
    ],
)
def test_damaged_model_is_the_same_for_each_command(
    installed: Prefix, tmp_path: Path, damage: Callable[[Path], None], exit_code: int, code: str
) -> None:
    [model] = installed.models.rglob("*.gguf")
    aside = shutil.copy2(model, tmp_path / "aside")
    damage(model)
    try:
        found = judged_by("status", installed)
        assert (found.exit_code, found.codes()) == (exit_code, {code})
        assert judged_by("verify", installed) == found
        assert judged_by_serve(installed) == found
    finally:
        model.unlink(missing_ok=True)
        shutil.copy2(aside, model)


def test_configuration_that_cannot_be_read_hides_nothing_graver(installed: Prefix) -> None:
    config, signed = installed.current / "config" / "gateway.json", installed.current / "playbooks" / "site.yml"
    flip(config)
    flip(signed)
    try:
        found = judged_by("status", installed)
        assert (found.exit_code, found.codes()) == (3, {"contents.file-changed", "release.config-changed"})
        assert judged_by("verify", installed) == found
        assert judged_by_serve(installed) == found
    finally:
        flip(config)
        flip(signed)


def test_gravest_of_three_kinds_decides_for_each_command(installed: Prefix) -> None:
    config, signed = installed.current / "config" / "gateway.json", installed.current / "playbooks" / "site.yml"
    extra = installed.current / "playbooks" / "extra"
    flip(config)
    flip(signed)
    plant(extra)
    try:
        found = judged_by("status", installed)
        assert found.exit_code == 4
        assert found.codes() == {"release.unlisted", "contents.file-changed", "release.config-changed"}
        assert judged_by("verify", installed) == found
        assert judged_by_serve(installed) == found
    finally:
        flip(config)
        flip(signed)
        extra.unlink()


def test_site_file_that_is_not_applied_is_shown_by_status_and_stops_no_serving(installed: Prefix) -> None:
    installed.site_file.write_text("port: 9443\n")
    try:
        found = judged_by("status", installed)
        assert (found.exit_code, found.codes()) == (9, {"site.not-applied"})
        installed.site_file.write_text("port: nonsense\nslots: 0\n")
        found = judged_by("status", installed)
        assert (found.exit_code, found.codes(), len(found.errors)) == (9, {"site.refused"}, 2)
        assert judged_by("verify", installed).exit_code == 0
    finally:
        installed.site_file.unlink()
