"""`BOOT/`: exactly the signed files, the same bytes in every bundle of a root, anew when its verifier changes."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.builder.bare_host import boot_writer as making
from appliance.builder.bare_host.boot_writer import (
    boot_files,
    list_packages,
    newest,
    request_boot,
    unsigned,
    update_bundles,
)
from appliance.builder.bare_host.verifier_format import format_read_by
from appliance.builder.bare_host.verifier_zip import build_verifier
from appliance.keys.publication import publish
from appliance.keys.rotation import Change, rotate
from appliance.keys.signature_requests.request_text import progress
from appliance.keys.tuf_repository import published
from appliance.keys.workspace import Workspace, create_development
from bundles.bare_host.boot_check import LIST_FILE, MAX_FILE_BYTES, check_boot, parse_list
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import FORMAT, Contents, File, Needs, Serve
from bundles.contents.format_2 import SitePermission
from bundles.oci.layout import BOOT, Layout
from bundles.stick.writing.writer import write_stick
from signing.digest import sha256
from signing.errors import ApplianceError, NotTrustedError
from tests.attacks.harness import Stick, make_stick
from tests.sim.people import ROOT, TARGETS, finished
from tests.sim.tuf import keys
from tests.toy import NOW, build_toy

RELEASED = Path(__file__).parents[2] / "released" / "toy-0.1.0.tar.xz"
CONTENTS = Contents(
    name="toy",
    version="1.0.0",
    source_date_epoch=0,
    targets=(),
    needs=Needs("2.34", "3.4.30", "1.3.13", ("x64",), 0, 0),
    serve=Serve(),
    models=(),
    files=(File("runtime/r.whl", "runtime", 0o644, 0, sha256(b""), ()),),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    return build_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def stick(toy: tuple[Workspace, Path], tmp_path: Path) -> Stick:
    return make_stick(toy[1], tmp_path)


def root_of(workspace: Workspace) -> bytes:
    return published(workspace).walked.root_bytes


def files_in(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / BOOT).iterdir()}


def test_bundle_of_a_development_root_carries_it_signed(toy: tuple[Workspace, Path]) -> None:
    workspace, path = toy
    found = files_in(path)
    serial, listed = parse_list(found[LIST_FILE], LIST_FILE)
    key = workspace.key("root").public
    assert serial == 1
    assert next(iter(listed)) == "serial-1"
    assert set(found) == {*listed, LIST_FILE, f"{key.fingerprint}.sig"}
    assert found["verify.pyz"] == build_verifier()
    assert found["root.json"] == workspace.root_file.read_bytes()
    assert sha256(found[f"{key.fingerprint}.der"]) == key.fingerprint
    assert "boot       serial 1, signed by 1 of at least 1 root keys" in verified(workspace, path)


def verified(workspace: Workspace, path: Path) -> str:
    from tests.attacks.harness import command

    return command("verify", path, "--workspace", workspace.path).out


def test_every_bundle_of_a_root_carries_the_same_bytes(tmp_path: Path) -> None:
    _, first = build_toy(tmp_path)
    workspace, second = build_toy(tmp_path, "2.0.0", "another note")
    assert files_in(first) == files_in(second)
    before = {path: path.stat().st_mtime_ns for path in second.rglob("*") if path.is_file()}
    boot_files(workspace, root_of(workspace), ())
    build_toy(tmp_path, "2.0.0", "another note")
    assert {path: path.stat().st_mtime_ns for path in second.rglob("*") if path.is_file()} == before


def test_new_verifier_gets_the_next_serial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, path = build_toy(tmp_path)
    monkeypatch.setattr(making, "build_verifier", lambda: b"a newer one")
    build_toy(tmp_path)
    found = files_in(path)
    assert (found["verify.pyz"], found["serial-2"], "serial-1" in found) == (b"a newer one", b"2\n", False)
    assert verified(workspace, path) != ""
    monkeypatch.undo()
    build_toy(tmp_path)
    assert "serial-3" in files_in(path)


def test_what_an_interrupted_build_left_is_never_used(tmp_path: Path) -> None:
    workspace, _ = build_toy(tmp_path)
    kept = workspace.path / "trust/boot/1" / BOOT
    (kept / LIST_FILE).unlink()
    assert newest(workspace, root_of(workspace)) == {}
    assert f"{BOOT}/serial-2" in boot_files(workspace, root_of(workspace), ())


def test_without_the_development_roots_key_it_is_used_and_not_made(tmp_path: Path) -> None:
    workspace, _ = build_toy(tmp_path)
    (workspace.path / "keys/root.pem").unlink()
    assert boot_files(workspace, root_of(workspace), ())
    shutil.rmtree(workspace.path / "trust/boot")
    with pytest.raises(ApplianceError) as caught:
        boot_files(workspace, root_of(workspace), ())
    assert caught.value.code == "key.missing"


def test_under_a_root_of_several_people_none_is_carried_before_they_sign(tmp_path: Path) -> None:
    made = finished(tmp_path)
    workspace, root = made.workspace, root_of(made.workspace)
    assert boot_files(workspace, root) == {}
    items = request_boot(workspace, root, CONTENTS)
    assert request_boot(workspace, root, CONTENTS) == items  # asked once, however often one builds
    request = publish(workspace, "toy", "1.0.0", b"{}", NOW, items=items)
    assert request is not None
    assert "root: 0 of 2 signatures" in "\n".join(progress(request))
    assert not made.collect("targets-2", (*TARGETS[:2], ROOT[1])).is_complete
    assert boot_files(workspace, root) == {}
    assert made.collect("targets-2", (ROOT[2],)).is_complete
    update_bundles(workspace, root, [tmp_path / "bundle"])
    boot = check_boot(Layout(tmp_path / "bundle"), workspace.root().roles["root"])
    assert boot is not None
    assert {key.fingerprint for key in boot.signers} == {key.public.fingerprint for key in ROOT[1:]}
    assert files_in(tmp_path / "bundle")["verify.pyz"] == build_verifier()
    assert request_boot(workspace, root, CONTENTS) == ()


def test_people_are_not_asked_again_for_another_verifier_but_for_another_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = finished(tmp_path)
    workspace, root = made.workspace, root_of(made.workspace)
    publish(workspace, "toy", "1.0.0", b"{}", NOW, items=request_boot(workspace, root, CONTENTS))
    made.collect("targets-2", (*TARGETS[:2], *ROOT[:2]))
    before = boot_files(workspace, root)
    monkeypatch.setattr(making, "build_verifier", lambda: b"a newer one")
    assert (request_boot(workspace, root, CONTENTS), boot_files(workspace, root)) == ((), before)
    rotate(workspace, Change(), NOW)
    made.collect("root-2", ROOT[:2])
    [item] = request_boot(workspace, root_of(workspace), CONTENTS)
    assert b"  serial-2\n" in item.message
    assert boot_files(workspace, root_of(workspace)) == {}
    assert sha256(b"a newer one").encode() in item.message


def verifier_of_the_release_before() -> bytes:
    with tarfile.open(RELEASED) as archive:
        member = next(one for one in archive if one.name.endswith("BOOT/verify.pyz"))
        stream = archive.extractfile(member)
        assert stream is not None
        return stream.read()


def test_format_that_a_verifier_reads_stands_in_its_own_source() -> None:
    assert format_read_by(verifier_of_the_release_before()) == 1
    assert format_read_by(build_verifier()) == FORMAT
    for other in (b"", b"a newer one", b"PK"):
        assert format_read_by(other) == 0


def test_people_are_asked_again_for_the_first_bundle_that_the_signed_verifier_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = finished(tmp_path)
    workspace, root = made.workspace, root_of(made.workspace)
    with monkeypatch.context() as patch:
        patch.setattr(making, "build_verifier", verifier_of_the_release_before)
        publish(workspace, "toy", "1.0.0", b"{}", NOW, items=request_boot(workspace, root, CONTENTS))
        made.collect("targets-2", (*TARGETS[:2], *ROOT[:2]))
    before = boot_files(workspace, root)
    assert format_read_by(before[f"{BOOT}/verify.pyz"]) == 1
    assert request_boot(workspace, root, CONTENTS) == ()

    newer = replace(CONTENTS, site=SitePermission(("adapter",)))
    items = request_boot(workspace, root, newer)
    assert request_boot(workspace, root, newer) == items
    assert b"  serial-2\n" in items[0].message
    # Until they have signed, bundles carry what is signed; it refuses the newer format.
    assert boot_files(workspace, root) == before
    publish(workspace, "toy", "2.0.0", b"[]", NOW, items=items)
    made.collect("targets-3", (*TARGETS[:2], *ROOT[:2]))
    after = boot_files(workspace, root)
    assert (after[f"{BOOT}/verify.pyz"], f"{BOOT}/serial-2" in after) == (build_verifier(), True)
    assert request_boot(workspace, root, newer) == ()


def test_draft_of_another_program_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = finished(tmp_path).workspace
    first = request_boot(workspace, root_of(workspace), CONTENTS)
    monkeypatch.setattr(making, "build_verifier", lambda: b"a newer one")
    assert request_boot(workspace, root_of(workspace), CONTENTS) != first


def test_python_packages_of_a_bundle_are_named_by_path_and_digest(tmp_path: Path) -> None:
    digest = sha256(b"deb")
    deb = File("os-packages/debian-12/python3.deb", "os-package", 0o644, 3, digest, (Chunk(digest, 3),))
    assert list_packages([deb]) == f"{digest}  os-packages/debian-12/python3.deb\n".encode()
    workspace, _ = create_development(tmp_path, NOW)
    assert boot_files(workspace, root_of(workspace), ())[f"{BOOT}/python3.sha256"] == b""
    made = boot_files(workspace, root_of(workspace), [deb])
    assert made[f"{BOOT}/python3.sha256"] == list_packages([deb])
    # Another bundle, with other packages or none, carries the same bytes.
    assert boot_files(workspace, root_of(workspace), ()) == made
    assert boot_files(workspace, root_of(workspace), [replace(deb, sha256=sha256(b"other"))]) == made


def test_openssl_and_sha256sum_agree(stick: Stick) -> None:
    boot = stick.path / BOOT
    for name in boot.glob("*.sig"):
        key = name.with_suffix(".der").name
        argv = ["openssl", "dgst", "-sha256", "-keyform", "DER", "-verify", key, "-signature", name.name, LIST_FILE]
        assert subprocess.run(argv, cwd=boot, capture_output=True, text=True).stdout == "Verified OK\n"
    done = subprocess.run(["sha256sum", "--strict", "-c", LIST_FILE], cwd=boot, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count(": OK")) == (0, 7)


def change(name: str) -> Callable[[Stick], None]:
    def flip(stick: Stick) -> None:
        [path] = [path for path in (stick.path / BOOT).iterdir() if path.name.startswith(name)][:1]
        data = bytearray(path.read_bytes() or b"x")
        data[-1] ^= 1
        path.write_bytes(data)

    return flip


def remove(name: str) -> Callable[[Stick], None]:
    def unlink(stick: Stick) -> None:
        next(path for path in (stick.path / BOOT).iterdir() if path.name.startswith(name)).unlink()

    return unlink


def plant(name: str) -> Callable[[Stick], None]:
    def put(stick: Stick) -> None:
        (stick.path / BOOT / name).write_bytes(b"planted")

    return put


def remove_a_signature(stick: Stick) -> None:
    next((stick.path / BOOT).glob("*.sig")).unlink()


def swap_signatures(stick: Stick) -> None:
    one, two = sorted((stick.path / BOOT).glob("*.sig"))
    two.write_bytes(one.read_bytes())


def huge(stick: Stick) -> None:
    with (stick.path / BOOT / "verify.pyz").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)


@pytest.mark.parametrize(
    ("attack", "exit_code", "code"),
    [
        (change("verify.pyz"), 3, "boot.file-changed"),
        (change("root.json"), 3, "boot.file-changed"),
        (change("serial-1"), 3, "boot.file-changed"),
        (change("python3.sha256"), 3, "boot.file-changed"),
        (change("BOOT.sha256"), 4, "signature.invalid"),
        (remove("verify.pyz"), 3, "boot.missing"),
        (remove("BOOT.sha256"), 3, "boot.missing"),
        (remove_a_signature, 4, "signature.threshold"),
        (swap_signatures, 4, "signature.invalid"),
        (plant("serial-2"), 4, "layout.unlisted"),
        (plant(f"{'0' * 64}.der"), 4, "layout.unlisted"),
        (plant(f"{'0' * 64}.sig"), 4, "layout.unlisted"),
        (plant("json.py"), 4, "layout.unlisted"),
        (huge, 4, "boot.too-long"),
    ],
)
def test_whatever_differs_is_refused_by_name(
    stick: Stick, attack: Callable[[Stick], None], exit_code: int, code: str
) -> None:
    attack(stick)
    with pytest.raises(ApplianceError) as caught:
        stick.verify()
    assert (caught.value.exit_code, caught.value.code) == (exit_code, code)
    assert caught.value.subject.startswith(BOOT)
    assert stick.command().code == exit_code


def test_every_changed_byte_of_the_list_is_refused(stick: Stick) -> None:
    path, root = stick.path / BOOT / LIST_FILE, stick.open().evidence.root
    data = path.read_bytes()
    for at in range(len(data)):
        for new in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at] + data[at + 1 :]):
            path.write_bytes(new)
            with pytest.raises(NotTrustedError) as caught:
                check_boot(stick.layout, root)
            assert caught.value.subject.startswith(f"{BOOT}/{LIST_FILE}")
    path.write_bytes(data)
    assert check_boot(stick.layout, root) is not None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"%s  verify.pyz\n",
        b"%s  verify.pyz\n%s  serial-1\n",
        b"%s  serial-1",
        b"%s  serial-0\n",
        b"%s  serial-01\n",
        b"%s *serial-1\n",
        b"%s  serial-1\n# no comment\n",
        b"%s  serial-1\n%s  ../verify.pyz\n",
        b"%s  serial-1\n%s  a\n%s  a\n",
        b"%s  serial-1\r\n",
        b"\\%s  serial-1\n",
    ],
)
def test_malformed_list_is_refused_though_root_keys_signed_it(text: bytes) -> None:
    digest = sha256(b"x").encode()
    with pytest.raises(NotTrustedError) as caught:
        parse_list(text.replace(b"%s", digest), "list")
    assert caught.value.code == "boot.malformed"


def test_boot_of_another_root_is_refused(stick: Stick, toy: tuple[Workspace, Path]) -> None:
    shutil.rmtree(stick.path / BOOT)
    shutil.copytree(toy[1] / BOOT, stick.path / BOOT)
    with pytest.raises(NotTrustedError) as caught:
        stick.verify()
    assert caught.value.code == "signature.threshold"


@pytest.mark.parametrize("stay", [2, 0])
def test_boot_of_the_root_keys_of_before_is_refused_with_the_step_to_take(stick: Stick, stay: int) -> None:
    people = stick.repository.people
    stick.repository.rotate(replace(people, root=(*people.root[:stay], *keys("boot-new", 3 - stay))))
    stick.save()
    with pytest.raises(NotTrustedError) as caught:
        stick.verify()
    assert "write this stick or bundle again from the workspace" in caught.value.hint
    stick.put_boot(serial=2)
    stick.verify()


def test_list_that_leaves_out_a_root_key_is_refused(stick: Stick) -> None:
    root = stick.repository.people.root
    files = unsigned(stick.root, 1)
    del files[f"{root[2].public.fingerprint}.der"]
    from bundles.bare_host.boot_check import write_list

    files[LIST_FILE] = write_list({name: data for name, data in files.items() if name != LIST_FILE}, 1)
    shutil.rmtree(stick.path / BOOT)
    (stick.path / BOOT).mkdir()
    for name, data in making.signed(files, root[:2]).items():
        (stick.path / BOOT / name).write_bytes(data)
    with pytest.raises(NotTrustedError) as caught:
        stick.verify()
    assert caught.value.code == "boot.malformed"


def test_stick_carries_it_and_a_second_writing_replaces_it_whole(stick: Stick, tmp_path: Path) -> None:
    write_stick(stick.layout, stick.open(), tmp_path / "copy")
    assert files_in(tmp_path / "copy") == files_in(stick.path)
    stick.put_boot(serial=7)
    (tmp_path / "copy" / BOOT / "notes.txt").write_text("somebody's")
    with pytest.raises(NotTrustedError):
        write_stick(stick.layout, stick.open(), tmp_path / "copy")
    (tmp_path / "copy" / BOOT / "notes.txt").unlink()  # a person's file is never removed by us
    write_stick(stick.layout, stick.open(), tmp_path / "copy")
    assert files_in(tmp_path / "copy") == files_in(stick.path)


def test_bundle_of_an_earlier_version_has_none_and_verifies(stick: Stick) -> None:
    shutil.rmtree(stick.path / BOOT)
    answer = stick.command()
    assert (answer.code, "boot" in answer.out) == (0, False)
