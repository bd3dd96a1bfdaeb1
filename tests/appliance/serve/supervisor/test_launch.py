"""The rendered configuration chooses among signed models, and does not decide where bytes come from."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.host.release.release import Release
from appliance.serve.supervisor.launch_plan import make_plan, read_launch
from signing.digest import sha256
from signing.errors import ApplianceError, DriftError
from signing.strictjson import load
from tests.sim.releases import install_toy, write_config


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return install_toy(tmp_path_factory.mktemp("launch"))


def changed(release: Release, name: str, /, **fields: Any) -> Release:
    """The release with other fields in one file; `write_config` with the old ones restores it."""
    value = load((release.config / name).read_bytes(), name)
    write_config(release, name, {key: item for key, item in {**value, **fields}.items() if item is not None})
    return release


@pytest.fixture(autouse=True)
def _restored(release: Release) -> Any:
    kept = {path: path.read_bytes() for path in release.config.iterdir()}
    yield
    for path, data in kept.items():
        path.write_bytes(data)


def test_a_launch_names_the_signed_digests_and_the_chosen_numbers(release: Release) -> None:
    launch = read_launch(release, threads=3)
    served = launch.models[0]
    assert (launch.bind, launch.port) == ("127.0.0.1", 0)
    assert launch.policy == sha256((release.config / "gateway.json").read_bytes())
    assert launch.engine == release.contents.of_kind("runtime")[0].sha256
    assert (served.spec.name, served.spec.context, served.spec.slots, served.spec.threads) == ("toy", 16, 2, 3)
    assert served.spec.file == release.contents.by_path["models/toy/toy.gguf"]
    assert sha256(served.spec.store.read_bytes()) == served.spec.file.sha256


@pytest.mark.parametrize(
    ("fields", "kinds", "task"),
    [({}, (False, False), ""), ({"embedding": 8}, (True, False), ""), ({"task": "rerank"}, (False, True), "rerank")],
)
def test_signed_task_decides_how_an_engine_runs_and_what_the_gateway_offers(
    release: Release, fields: dict[str, Any], kinds: tuple[bool, bool], task: str
) -> None:
    [model] = release.contents.models
    contents = replace(release.contents, models=(replace(model, **fields),))
    verified = copy(release.bundle)
    verified.value = replace(release.bundle.value, contents=contents)
    launch = read_launch(replace(release, bundle=verified), 1)
    [served] = launch.models
    assert (served.spec.is_embedding, served.spec.is_ranking) == kinds
    [planned] = make_plan(launch, Path).models
    assert (planned.task, planned.embedding) == (task, fields.get("embedding", 0))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gateway.json", {"models": []}),
        ("gateway.json", {"models": ["other"]}),
        ("gateway.json", {"models": ["toy", "toy"]}),
        ("gateway.json", {"models": [["toy"]]}),
        ("gateway.json", {"models": None}),
        ("gateway.json", {"port": 70_000}),
        ("gateway.json", {"port": "80"}),
        ("gateway.json", {"port": True}),
        ("gateway.json", {"bind": None}),
        ("engine-toy.json", {"store": "/tmp/other.gguf"}),
        ("engine-toy.json", {"runtime": "/usr/bin"}),
        ("engine-toy.json", {"model": "models/toy/other.gguf"}),
        ("engine-toy.json", {"name": "other"}),
        ("engine-toy.json", {"context": 0}),
        ("engine-toy.json", {"slots": 1000}),
    ],
)
def test_a_configuration_that_leaves_the_signed_contents_is_drift(
    release: Release, name: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(DriftError) as caught:
        read_launch(changed(release, name, **fields), 1)
    assert (caught.value.subject, caught.value.exit_code) == (f"config/{name}", 9)


@pytest.mark.parametrize("data", [None, b"", b"{", b"[]", b'{"bind":"127.0.0.1","bind":"0.0.0.0"}'])
def test_a_configuration_that_cannot_be_read_is_drift(release: Release, data: bytes | None) -> None:
    path = release.config / "gateway.json"
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with pytest.raises(DriftError) as caught:
        read_launch(release, 1)
    assert (caught.value.code, caught.value.subject) == ("release.config-changed", "config/gateway.json")


def test_every_file_of_the_configuration_that_does_not_fit_is_named(release: Release) -> None:
    changed(release, "gateway.json", port=-1)
    with pytest.raises(DriftError) as caught:
        read_launch(changed(release, "engine-toy.json", store="/tmp/other.gguf"), 1)
    subjects = [error.subject for error in (caught.value, *caught.value.others)]
    assert subjects == ["config/gateway.json", "config/engine-toy.json"]


def test_every_refusal_states_what_to_do(release: Release) -> None:
    with pytest.raises(ApplianceError) as caught:
        read_launch(changed(release, "gateway.json", port=-1), 1)
    assert "appliance install" in caught.value.hint


def test_the_folder_of_the_toy_is_where_a_release_lies(release: Release) -> None:
    assert release.path == Path(release.prefix.releases, release.path.name)
