"""`verify` of what is no bundle shows what it is, and a reader that leaves early changes no exit code."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from appliance.builder.bare_host.verifier_zip import build_verifier
from appliance.keys.workspace import Workspace
from tests.attacks.harness import Answer, command
from tests.toy import build_toy

PROGRAM = [sys.executable, "-m", "appliance.cli.main"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    return build_toy(tmp_path_factory.mktemp("toy"))


def verify(path: Path, tmp_path: Path, *more: str | Path) -> Answer:
    return command("verify", path, "--prefix", tmp_path / "host", *more)


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("toy-1.0.0/oci-layout"))
    return buffer.getvalue()


OTHER = {
    "a tar archive": tar(),
    "a gzip file": gzip.compress(b"bundle"),
    "an xz file": b"\xfd7zXZ\x00 and more",
    "a ZIP file": b"PK\x03\x04 and more",
    "the image of a CD or DVD": bytes(0x8001) + b"CD001",
    "a web page": b"<!DOCTYPE html><title>log in</title>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "text": b"read me first\n",
    "an empty file": b"",
    "other first bytes": b"\x01\x02\x03\x04",
}


@pytest.mark.parametrize("what", OTHER)
def test_file_that_is_no_bundle_is_named_by_what_it_is(tmp_path: Path, toy: tuple[Workspace, Path], what: str) -> None:
    path = tmp_path / "given"
    path.write_bytes(OTHER[what])
    named: list[list[str | Path]] = [[], ["--bundle", toy[1], "--workspace", toy[0].path]]
    for more in named:
        answer = verify(path, tmp_path, *more)
        assert (answer.code, "verify.not-a-bundle" in answer.talk) == (2, True), answer.talk
        assert f"found {what}" in answer.talk
        assert "hint: " in answer.talk


def test_file_of_a_bundle_names_the_bundle(tmp_path: Path, toy: tuple[Workspace, Path]) -> None:
    for name in ("index.json", "metadata/1.root.json", "BOOT/verify.pyz"):
        answer = verify(toy[1] / name, tmp_path)
        assert (answer.code, f"hint: verify the whole: appliance verify {toy[1]}" in answer.talk) == (2, True)


def test_file_that_the_disk_does_not_give_back_is_damaged(tmp_path: Path, toy: tuple[Workspace, Path]) -> None:
    named: list[list[str | Path]] = [[], ["--bundle", toy[1], "--workspace", toy[0].path]]
    for more in named:
        answer = verify(Path("/proc/self/mem"), tmp_path, *more)  # its first page reads as EIO
        assert (answer.code, "file.unreadable" in answer.talk) == (3, True), answer.talk


def test_special_file_is_named_and_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "a pipe"), (Path("/dev/null"), "a character device")):
        answer = verify(path, tmp_path)
        assert (answer.code, f"found {what}" in answer.talk) == (2, True)


def test_wrong_folder_is_what_is_wrong_also_where_no_root_is_pinned(tmp_path: Path) -> None:
    answer = verify(tmp_path, tmp_path)
    assert (answer.code, "bundle.not-found" in answer.talk) == (2, True)


def test_model_file_is_still_judged_as_one(tmp_path: Path, toy: tuple[Workspace, Path]) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(b"GGUF" + bytes(99))
    answer = verify(path, tmp_path, "--bundle", toy[1], "--workspace", toy[0].path)
    assert (answer.code, "model.unknown" in answer.talk) == (4, True)


def without_reader(arguments: list[object]) -> int:
    """The exit code where both outputs are pipes that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        argv = [str(part) for part in arguments]
        return subprocess.run(argv, stdout=writer, stderr=writer, timeout=60).returncode
    finally:
        os.close(writer)


def damaged(bundle: Path, folder: Path) -> Path:
    copy = folder / "damaged"
    subprocess.run(["cp", "-r", bundle, copy], check=True)
    blob = max((copy / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    return copy


def test_reader_that_leaves_early_changes_no_exit_code(tmp_path: Path, toy: tuple[Workspace, Path]) -> None:
    workspace, bundle = toy
    trust = ["--workspace", workspace.path]
    stranger = build_toy(tmp_path / "stranger")[0].path
    assert without_reader([*PROGRAM, "verify", bundle, *trust]) == 0
    assert without_reader([*PROGRAM, "verify", damaged(bundle, tmp_path), *trust]) == 3
    assert without_reader([*PROGRAM, "verify", bundle, "--workspace", stranger]) == 4
    assert without_reader([*PROGRAM, "verify", bundle, "--workspace", stranger, "--json"]) == 4
    assert without_reader([*PROGRAM, "verify", "--nonsense"]) == 2


def test_reader_that_leaves_the_bare_host_s_verifier_early_changes_no_exit_code(
    tmp_path: Path, toy: tuple[Workspace, Path]
) -> None:
    workspace, bundle = toy
    verifier = tmp_path / "verify.pyz"
    verifier.write_bytes(build_verifier())
    run = [sys.executable, "-I", "-B", verifier]
    assert without_reader([*run, bundle, "--trust", workspace.root_file]) == 0
    assert without_reader([*run, damaged(bundle, tmp_path), "--trust", workspace.root_file]) == 3
    assert without_reader([*run, bundle]) == 4
