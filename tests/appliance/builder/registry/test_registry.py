"""A bundle goes through a registry, which has no authority."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.builder.registry.reference import may_connect, parse_reference
from appliance.builder.registry.signatures_artifact import EVIDENCE_TYPE
from appliance.keys.workspace import create_development
from bundles.oci.layout import INDEX_FILE, blob_path
from signing.digest import Digest, sha256
from signing.errors import UsageError
from signing.strictjson import load, to_file
from tests.attacks.harness import Answer, Stick, command, make_stick
from tests.sim.registry import SimRegistry, serve_registry
from tests.toy import NOW, build_toy

TAG = "1.0.0"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy(tmp_path_factory.mktemp("toy"))[1]


@pytest.fixture
def stick(toy: Path, tmp_path: Path) -> Stick:
    return make_stick(toy, tmp_path)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimRegistry]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve_registry(SimRegistry()) as made:
        yield made


def place(registry: SimRegistry) -> str:
    return f"http://{registry.host}/models/toy"


def export(stick: Stick, registry: SimRegistry, *more: str | Path) -> Answer:
    return command("bundle", "export", stick.path, place(registry), "--trust", stick.root_file, *more)


def fetch(stick: Stick, registry: SimRegistry, folder: Path, *more: str | Path) -> Answer:
    return command("bundle", "import", f"{place(registry)}:{TAG}", folder, "--trust", stick.root_file, *more)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.glob(f"*{folder.name}*"))


@pytest.mark.parametrize("has_referrers", [True, False], ids=["referrers", "fallback tag"])
def test_imported_bundle_verifies_and_has_the_same_bytes(
    stick: Stick, registry: SimRegistry, tmp_path: Path, has_referrers: bool
) -> None:
    registry.has_referrers = has_referrers
    assert export(stick, registry).code == 0
    assert fetch(stick, registry, tmp_path / "back").code == 0
    assert command("verify", tmp_path / "back", "--trust", stick.root_file).code == 0
    sent = {str(path.relative_to(stick.path)): path.read_bytes() for path in stick.path.rglob("*") if path.is_file()}
    back = {path: (tmp_path / "back" / path).read_bytes() for path in sent if (tmp_path / "back" / path).exists()}
    assert back == sent
    assert (f"sha256-{stick.manifest}" in registry.manifests) is not has_referrers


def test_second_export_sends_nothing_and_an_interrupted_one_continues(stick: Stick, registry: SimRegistry) -> None:
    registry.breaks_after = 20
    answer = export(stick, registry)
    assert (answer.code, TAG in registry.manifests) == (1, False)
    assert "it goes on where it stopped" in answer.talk
    there = len(registry.blobs)
    assert there > 2
    registry.breaks_after = 1 << 30
    assert export(stick, registry).code == 0
    uploads = registry.sent("POST", "/uploads/")
    assert "sent 0 of" in export(stick, registry).out
    assert registry.sent("POST", "/uploads/") == uploads


def test_interrupted_import_continues_where_it_stopped(stick: Stick, registry: SimRegistry, tmp_path: Path) -> None:
    export(stick, registry)
    registry.asked, registry.breaks_after = [], 30
    assert fetch(stick, registry, tmp_path / "back").code == 1
    assert left(tmp_path / "back") == [".back.importing"]
    chunks = {layer["digest"] for layer in load(registry.manifests[TAG], "manifest", 1 << 20)["layers"]}
    kept = {f"sha256:{path.name}" for path in (tmp_path / ".back.importing" / "blobs" / "sha256").iterdir()} & chunks
    registry.asked, registry.breaks_after = [], 1 << 30
    assert fetch(stick, registry, tmp_path / "back").code == 0
    assert left(tmp_path / "back") == ["back"]
    assert 2 < len(kept) < len(chunks)
    assert {path.rpartition("/")[2] for _, path in registry.asked} & chunks == chunks - kept


def change_blob(path: str, data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:] if "/blobs/" in path and data else data


def lengthen_blob(path: str, data: bytes) -> bytes:
    return data + b"more" if "/blobs/" in path else data


def shorten_blob(path: str, data: bytes) -> bytes:
    return data[:-1] if "/blobs/" in path else data


def another_manifest(path: str, data: bytes) -> bytes:
    if not path.endswith(f"/manifests/{TAG}"):
        return data
    value = load(data, "manifest", 1 << 20)
    value["annotations"]["org.opencontainers.image.version"] = "9.9.9"
    return to_file(value)


def another_digest(path: str, data: bytes) -> bytes:
    return b"{}" if "/manifests/sha256:" in path else data


def foreign_referrers(path: str, data: bytes) -> bytes:
    return b'{"manifests":[]}' if "/referrers/" in path else data


def no_json(path: str, data: bytes) -> bytes:
    return b'{"manifests":[{"digest":NaN}]}' if "/referrers/" in path else data


@pytest.mark.parametrize(
    ("lie", "code", "error"),
    [
        (change_blob, 3, "registry.blob-differs"),
        (shorten_blob, 3, "registry.blob-differs"),
        (lengthen_blob, 4, "registry.hostile"),
        (another_manifest, 4, "registry.no-evidence"),
        (another_digest, 4, "registry.hostile"),
        (foreign_referrers, 4, "registry.no-evidence"),
        (no_json, 4, "json.refused"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_lying_registry_is_refused_and_nothing_is_kept(
    stick: Stick, registry: SimRegistry, tmp_path: Path, lie: object, code: int, error: str
) -> None:
    export(stick, registry)
    registry.lie = lie  # type: ignore[assignment]
    answer = fetch(stick, registry, tmp_path / "back")
    assert (answer.code, f"({error})" in answer.talk) == (code, True), answer.talk
    assert left(tmp_path / "back") == []


def test_endless_answer_is_cut_off(stick: Stick, registry: SimRegistry, tmp_path: Path) -> None:
    export(stick, registry)
    registry.is_endless = True
    began = time.monotonic()
    answer = fetch(stick, registry, tmp_path / "back")
    assert (answer.code, "registry.hostile" in answer.talk) == (4, True)
    assert left(tmp_path / "back") == []
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("token", ["\u00e9", "a b", " ", "\u2028", "a\r\nX-Other: b"])
def test_token_that_no_header_can_hold_is_a_refused_login(
    stick: Stick, registry: SimRegistry, tmp_path: Path, token: str
) -> None:
    registry.token = token
    answer = fetch(stick, registry, tmp_path / "back")
    assert answer.code == 1
    assert "registry.denied" in answer.talk


@pytest.mark.parametrize("place", ["http://[::1", "\x7f", "http://xn--/"])
def test_upload_location_that_is_no_url_is_a_failure_with_a_next_step(
    stick: Stick, registry: SimRegistry, place: str
) -> None:
    registry.upload = place
    answer = export(stick, registry)
    assert answer.code == 1
    assert "registry.unreachable" in answer.talk


@pytest.mark.parametrize("target", ["http://192.0.2.1/blob", "ftp://127.0.0.1/blob", "http://user:word@127.0.0.1/"])
def test_redirect_to_a_place_without_https_is_refused(
    stick: Stick, registry: SimRegistry, tmp_path: Path, target: str
) -> None:
    export(stick, registry)
    registry.redirect = target
    answer = fetch(stick, registry, tmp_path / "back")
    assert answer.code in (1, 4)
    assert left(tmp_path / "back") in ([], [".back.importing"])
    assert not (tmp_path / "back").exists()


def test_bundle_under_another_root_is_not_trusted(stick: Stick, registry: SimRegistry, tmp_path: Path) -> None:
    export(stick, registry)
    other = create_development(tmp_path / "other", NOW)[0].root_file
    answer = command("bundle", "import", f"{place(registry)}:{TAG}", tmp_path / "back", "--trust", other)
    assert answer.code == 4
    assert left(tmp_path / "back") == []


def test_newest_metadata_counts_and_forged_metadata_is_ignored(
    stick: Stick, registry: SimRegistry, tmp_path: Path
) -> None:
    export(stick, registry)
    stick.publish()
    export(stick, registry)
    forged: dict[str, object] = {
        "artifactType": EVIDENCE_TYPE,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "layers": [],
    }
    forged["subject"] = {"digest": f"sha256:{stick.manifest}"}
    registry.manifests[f"sha256:{sha256(to_file(forged))}"] = to_file(forged)
    assert len(json.loads(registry.referrers(f"sha256:{stick.manifest}"))["manifests"]) == 3
    assert fetch(stick, registry, tmp_path / "back").code == 0
    newest = sorted(path.name for path in (stick.path / "metadata").glob("*.targets.json"))
    assert sorted(path.name for path in (tmp_path / "back" / "metadata").glob("*.targets.json")) == newest


@pytest.mark.parametrize("path", ["../../etc/x", "blobs/sha256/x", "metadata/../x", "/etc/x", "STICK.json"])
def test_second_artifact_cannot_write_elsewhere(stick: Stick, registry: SimRegistry, tmp_path: Path, path: str) -> None:
    export(stick, registry)

    def lie(asked: str, data: bytes) -> bytes:
        return registry.manifests.get(asked.rpartition("/")[2], data)

    [key] = [key for key, data in registry.manifests.items() if EVIDENCE_TYPE.encode() in data]
    value = json.loads(registry.manifests.pop(key))
    value["layers"][0]["annotations"]["org.opencontainers.image.title"] = path
    changed = to_file(value)
    registry.manifests[f"sha256:{sha256(changed)}"] = changed
    registry.lie = lie
    answer = fetch(stick, registry, tmp_path / "back")
    assert answer.code == 4
    assert left(tmp_path / "back") == []


@pytest.mark.parametrize("token", ["", "abc.def"], ids=["basic", "bearer"])
def test_login_comes_from_a_file_of_its_owner(stick: Stick, registry: SimRegistry, tmp_path: Path, token: str) -> None:
    registry.login, registry.token = ("someone", "a word"), token
    answer = export(stick, registry)
    assert (answer.code, "--credentials FILE" in answer.talk) == (1, True)
    file = tmp_path / "auth.json"
    auth = base64.b64encode(b"someone:a word").decode()
    file.write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    file.chmod(0o644)
    assert export(stick, registry, "--credentials", file).code == 2
    file.chmod(0o600)
    assert export(stick, registry, "--credentials", file).code == 0
    file.write_text(json.dumps({"auths": {registry.host: {"auth": "\u00e9"}}}))
    assert export(stick, registry, "--credentials", file).code == 2
    file.write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    assert fetch(stick, registry, tmp_path / "back", "--credentials", file).code == 0


def test_credentials_stay_with_the_registry_where_another_server_takes_its_blobs(
    stick: Stick, registry: SimRegistry, tmp_path: Path
) -> None:
    registry.login = ("someone", "a word")
    file = tmp_path / "auth.json"
    auth = base64.b64encode(b"someone:a word").decode()
    file.write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    file.chmod(0o600)
    with serve_registry(SimRegistry()) as other:
        other.token = "of-the-other"
        registry.upload = f"http://{other.host}/v2/upload/1"
        answer = export(stick, registry, "--credentials", file)
    assert (answer.code, "registry.denied" in answer.talk) == (1, True)
    assert other.sent("PUT", "/upload/") > 0
    assert other.sent("GET", "/token") == 0


def test_folder_that_exists_already_is_left_alone(stick: Stick, registry: SimRegistry, tmp_path: Path) -> None:
    export(stick, registry)
    (tmp_path / "back").mkdir()
    answer = fetch(stick, registry, tmp_path / "back")
    assert (answer.code, list((tmp_path / "back").iterdir())) == (2, [])


def test_registry_that_does_not_listen_is_a_failure_with_a_next_step(stick: Stick, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        there = f"http://127.0.0.1:{silent.getsockname()[1]}/models/toy:1"
        answer = command("bundle", "import", there, tmp_path / "back", "--trust", stick.root_file)
    assert (answer.code, "registry.unreachable" in answer.talk) == (1, True)


@pytest.mark.parametrize(
    "text",
    [
        "http://registry.example/a:1",
        "registry.example",
        "https://user:word@registry.example/a",
        "a b/c",
        "h/A:1",
        "h/a:",
    ],
)
def test_reference_is_refused_without_repeating_a_password(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert "word" not in str(caught.value)


def test_reference_is_read() -> None:
    reference = parse_reference("registry.example:5000/team/models/smollm2:1.0.0-rc.1")
    assert reference.base == "https://registry.example:5000/v2/team/models/smollm2"
    assert reference.tag == "1.0.0-rc.1"
    assert may_connect("http", "[::1]:5000")
    assert may_connect("http", "127.9.9.9")
    assert not may_connect("http", "127.0.0.1.example")


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def debian_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    program = shutil.which("docker-registry")
    if program is None or shutil.which("skopeo") is None:
        pytest.skip("no docker-registry or skopeo on this machine")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    settings = (
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    (tmp_path / "registry.yml").write_text(settings)
    with (tmp_path / "registry.log").open("wb") as log:
        child = subprocess.Popen([program, "serve", tmp_path / "registry.yml"], stdout=log, stderr=log)
        try:
            until = time.monotonic() + 20
            while not answers(int(host.partition(":")[2])) and time.monotonic() < until:
                time.sleep(0.05)
            yield host
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()


@pytest.mark.ci
def test_debians_registry_and_skopeo_carry_a_bundle_that_then_verifies(
    stick: Stick, debian_registry: str, tmp_path: Path
) -> None:
    there = f"http://{debian_registry}/models/toy"
    assert command("bundle", "export", stick.path, there, "--trust", stick.root_file).code == 0
    answer = command("bundle", "import", f"{there}:{TAG}", tmp_path / "back", "--trust", stick.root_file)
    assert answer.code == 0, answer.talk
    assert command("verify", tmp_path / "back", "--trust", stick.root_file).code == 0
    layout = f"oci:{tmp_path}/skopeo"
    copied = ["skopeo", "copy", "-q", "--preserve-digests", "--src-tls-verify=false"]
    subprocess.run([*copied, f"docker://{debian_registry}/models/toy:{TAG}", layout], check=True, timeout=60)
    blobs = {path.name for path in (tmp_path / "skopeo" / "blobs" / "sha256").iterdir()}
    assert blobs == {path.name for path in (stick.path / "blobs" / "sha256").iterdir()}
    # Another tool pushes the same bundle, but not the artifact that proves who signed it.
    pushed = ["skopeo", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", f"oci:{stick.path}"]
    subprocess.run([*pushed, f"docker://{debian_registry}/other/toy:{TAG}"], check=True, timeout=60)
    other = f"http://{debian_registry}/other/toy:{TAG}"
    answer = command("bundle", "import", other, tmp_path / "other", "--trust", stick.root_file)
    assert (answer.code, "registry.no-evidence" in answer.talk) == (4, True)


def test_blob_that_is_damaged_on_the_builders_disk_is_not_sent(stick: Stick, registry: SimRegistry) -> None:
    index = load((stick.path / INDEX_FILE).read_bytes(), INDEX_FILE)
    manifest = Digest(index["manifests"][0]["digest"].removeprefix("sha256:"))
    [first, *_] = load((stick.path / blob_path(manifest)).read_bytes(), "manifest", 1 << 20)["layers"]
    path = stick.path / blob_path(Digest(first["digest"].removeprefix("sha256:")))
    os.chmod(path, 0o644)
    path.write_bytes(b"X" + path.read_bytes()[1:])
    answer = export(stick, registry)
    assert (answer.code, TAG in registry.manifests) == (3, False)
