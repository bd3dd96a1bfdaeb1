"""`build --check`: the same recipe gives the same bytes, or what differs is named; what is published stays as it is."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from appliance.builder.assembly import packing
from appliance.builder.assembly.assembler import assemble
from appliance.builder.bills import writer
from appliance.builder.chunking.chunker import Source
from appliance.builder.compare.rebuild import rebuild
from bundles.oci.layout import blob_path
from bundles.progress import ignore
from signing.errors import ApplianceError, BusyError, DamagedError
from tests.appliance.tiny import TinyBuild, default_wheels
from tests.appliance.web import wheel
from tests.attacks.harness import Answer, command
from tests.journeys.conftest import snapshot


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBuild:
    return TinyBuild(tmp_path)


def refused(build: TinyBuild) -> dict[str, ApplianceError]:
    """Every difference that a check names, by subject."""
    with pytest.raises(ApplianceError) as caught:
        build.check()
    assert {error.code for error in (caught.value, *caught.value.others)} == {"build.differs"}
    assert caught.value.exit_code == 1
    return {error.subject: error for error in (caught.value, *caught.value.others)}


def ask(build: TinyBuild, monkeypatch: pytest.MonkeyPatch, *words: str) -> Answer:
    monkeypatch.setenv("AIRGAP_APPLIANCE_CACHE", str(build.cache.root))
    with build.staged() as recipe:
        return command("build", recipe, "--workspace", build.workspace.path, "--check", *words)


def test_the_same_bundle_is_the_same_and_nothing_in_the_workspace_is_touched(tiny: TinyBuild) -> None:
    built = tiny.build()
    before = snapshot(tiny.workspace.path)
    again = tiny.check()
    assert (again.manifest, again.standing) == (built.manifest, built.path)
    assert snapshot(tiny.workspace.path) == before
    assert list(tiny.cache.folder("rebuild").iterdir()) == []


def test_without_a_bundle_it_is_built_twice_and_none_is_left(tiny: TinyBuild) -> None:
    before = tiny.workspace.root().version
    again = tiny.check()
    assert again.standing is None
    assert not tiny.workspace.dist.exists()
    assert list(tiny.cache.folder("rebuild").iterdir()) == []
    assert tiny.build().manifest == again.manifest
    assert tiny.workspace.root().version == before


def test_the_command_reports_the_result_as_text_and_as_json(tiny: TinyBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = ask(tiny, monkeypatch)
    assert (twice.code, twice.out.count("built twice")) == (0, 1)
    built = tiny.build()
    shown = ask(tiny, monkeypatch)
    assert shown.code == 0
    assert f"sha256:{built.manifest}" in shown.out
    assert f"{built.path} has the same bytes" in shown.out
    answer = json.loads(ask(tiny, monkeypatch, "--json").out)
    assert (answer["same"], answer["manifest"], answer["bundle"]) == (True, built.manifest, str(built.path))
    both = ask(tiny, monkeypatch, "--install-by", "2030-01-01")
    assert (both.code, both.out) == (2, "")


def test_a_changed_wheel_is_named_with_its_member_before_the_bills_that_follow(
    tiny: TinyBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.build()
    before = snapshot(tiny.workspace.path)
    name = "alpha-1.0-py3-none-any.whl"
    changed = replace(tiny, wheels={**default_wheels(), name: wheel("alpha", requires=["beta>=2"])})
    found = refused(changed)
    assert list(found)[:2] == ["config/lock.json", f"wheels/{name}"]
    assert list(found)[2].startswith("bills/")
    assert found[f"wheels/{name}"].found.endswith("differs in its member alpha-1.0.dist-info/METADATA")
    assert "from line" in found["config/lock.json"].found
    shown = ask(changed, monkeypatch)
    assert (shown.code, shown.out) == (1, "")
    assert f"error: wheels/{name}: " in shown.talk
    assert "hint: the recipe or its lock has changed since" in shown.talk
    answer = json.loads(ask(changed, monkeypatch, "--json").out)
    assert (answer["same"], [one["what"] for one in answer["differences"]]) == (False, list(found))
    assert snapshot(tiny.workspace.path) == before


def test_what_is_new_gone_or_otherwise_described_is_named(tiny: TinyBuild) -> None:
    note = Source("playbooks/note.yml", "playbook", data=b"- name: a note\n")
    gone = Source("playbooks/gone.yml", "playbook", data=b"- name: gone\n")
    replace(tiny, extra=[note, gone]).build()
    found = refused(replace(tiny, extra=[replace(note, mode=0o755, bootstrap=True)]))
    assert found["playbooks/gone.yml"].found == "no such file"
    assert (found["playbooks/note.yml mode"].expected, found["playbooks/note.yml mode"].found) == ("420", "493")
    assert found["playbooks/note.yml bootstrap"].found == "True"
    # The sum of all files, and nothing else of what a host must be.
    assert [name for name in found if name.startswith("contents.json")] == ["contents.json needs disk_bytes"]


def test_a_time_that_leaks_into_a_file_is_found_with_a_bundle_and_without(tiny: TinyBuild) -> None:
    count = itertools.count()
    written = writer.write_bills

    def leaking(facts: object) -> list[Source]:
        return [replace(one, data=one.data + b" " * next(count)) for one in written(facts)]  # type: ignore[arg-type]

    with mock.patch.object(packing, "write_bills", leaking):
        assert set(refused(tiny)) >= {"bills/provenance.json", "bills/sbom.cdx.json", "bills/ml-bom.cdx.json"}
        tiny.build()
        found = refused(tiny)
    assert "a bug of this program" in found["bills/ml-bom.cdx.json"].hint
    assert found["bills/ml-bom.cdx.json"].found.rpartition(", ")[2].startswith("which differs from ")


def test_a_date_in_a_wheel_is_found(tiny: TinyBuild) -> None:
    def dated(year: int) -> bytes:
        data = default_wheels()["beta-1.0-py3-none-any.whl"]
        # Both places in a ZIP where the date of the first member stands: years are counted from 1980.
        for at in (data.index(b"PK\x03\x04") + 12, data.index(b"PK\x01\x02") + 14):
            data = data[:at] + ((year - 1980) << 9 | 0x21).to_bytes(2, "little") + data[at + 2 :]
        return data

    replace(tiny, wheels={**default_wheels(), "beta-1.0-py3-none-any.whl": dated(2020)}).build()
    found = refused(replace(tiny, wheels={**default_wheels(), "beta-1.0-py3-none-any.whl": dated(2021)}))
    assert found["wheels/beta-1.0-py3-none-any.whl"].found.endswith("in the date of its member beta.py")


def test_a_damaged_bundle_is_damaged_not_another_and_is_left_as_it_is(tiny: TinyBuild) -> None:
    built = tiny.build()
    [model] = built.contents.of_kind("model")
    blob = built.path / blob_path(model.chunks[-1].sha256)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    before = snapshot(tiny.workspace.path)
    with pytest.raises(DamagedError) as caught:
        tiny.check()
    assert (caught.value.code, caught.value.subject) == ("bundle.damaged", model.path)
    assert snapshot(tiny.workspace.path) == before
    tiny.build()
    assert tiny.check().manifest == built.manifest


@pytest.mark.parametrize("what", ["manifest", "contents"])
def test_a_bundle_whose_documents_are_gone_is_damaged(tiny: TinyBuild, what: str) -> None:
    built = tiny.build()
    assert built.bundle is not None
    digest = built.manifest if what == "manifest" else built.bundle.value.config.sha256
    (built.path / "blobs/sha256").chmod(0o755)
    (built.path / blob_path(digest)).unlink()
    with pytest.raises(DamagedError) as caught:
        tiny.check()
    assert (caught.value.subject, caught.value.found) == (blob_path(digest), "nothing")


def test_a_check_that_was_killed_leaves_nothing_that_the_next_one_keeps(tiny: TinyBuild) -> None:
    with (
        mock.patch.object(packing, "write_bills", side_effect=KeyboardInterrupt),
        mock.patch("appliance.builder.compare.rebuild.remove"),
        pytest.raises(KeyboardInterrupt),
    ):
        tiny.check()
    assert list(tiny.cache.folder("rebuild").iterdir()) != []
    tiny.check()
    assert list(tiny.cache.folder("rebuild").iterdir()) == []


def test_a_check_does_not_wait_for_a_build_and_is_refused(tiny: TinyBuild) -> None:
    with tiny.staged() as recipe, tiny.workspace.locked(), pytest.raises(BusyError):
        rebuild(recipe, tiny.workspace, tiny.cache, ignore)


def test_a_later_day_changes_nothing(tiny: TinyBuild) -> None:
    built = tiny.build()
    with mock.patch.object(time, "time", return_value=4_000_000_000.0):
        assert tiny.check().manifest == built.manifest


def test_a_local_source_that_changed_since_it_was_locked_has_a_way_out(tiny: TinyBuild) -> None:
    with tiny.staged() as recipe:
        model = tiny.folder / "sources/tiny.gguf"
        model.write_bytes(model.read_bytes()[:-1] + b"x")
        with pytest.raises(DamagedError) as caught:
            assemble(recipe, tiny.workspace, tiny.cache, tiny.now, ignore)
    assert (caught.value.code, caught.value.subject) == ("source.differs-from-lock", "models/tiny/tiny.gguf")
    assert caught.value.hint.endswith(f"where the change is intended: appliance lock {recipe} --upgrade")
    assert not (tiny.workspace.dist / "toy-1.0.0").exists()
