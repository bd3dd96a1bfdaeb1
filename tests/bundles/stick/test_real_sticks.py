"""Sticks of a real kernel: pulled out at a seeded byte, swapped while it waits, write-protected, and with exFAT.

The bundle is small and its environment cannot be made here: an install copies everything, and ends after that.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

import pytest

from appliance.builder.chunking.chunker import Source
from appliance.host.layout.places import place
from appliance.host.layout.prefix import Prefix
from appliance.keys.workspace import Workspace, create_development
from bundles.bundle import Bundle, open_bundle
from bundles.oci.layout import STICK_FILE
from bundles.stick.card import StickBundle, StickCard, name_set, runs_of, write_card
from signing.digest import Digest
from signing.floors import Floors
from tests.appliance.sim_host import build_bundle
from tests.bed import checkout, traced
from tests.bed.fixtures import fresh_guest, require
from tests.bed.guest import Guest
from tests.bed.host import Finished
from tests.bed.usb import UsbStick, make_exfat, make_stick
from tests.sim.gguf_files import gguf
from tests.sim.sticks import put
from tests.toy import NOW

pytestmark = [pytest.mark.bed, pytest.mark.vm, pytest.mark.timeout(900 + 4 * int(os.environ.get("BIG_MIB", "0")))]

SEED = 20260104
SMALL_FILES, SMALL_BYTES = 8, 256 << 10
TENSORS, WEIGHTS = 2, 2 << 20
"""Tensors of 8 MiB: each is a chunk of its own."""
BIG_MIB = int(os.environ.get("BIG_MIB", "0"))  # `make soak` has a file of 5 GiB
SLOWEST_S = 280 + BIG_MIB
SLOW_BYTES_PER_S = 3 << 20
ENDED_AFTER_THE_COPY, NEXT_STICK = 7, 5
RIGHT = """
import hashlib, json, os, sys
wrong, right = set(), set()
for path, start, size, digest in json.load(open(sys.argv[1])):
    found = next((name for name in (path, path + ".partial") if os.path.exists(name)), None)
    data = b""
    if found:
        with open(found, "rb") as stream:
            stream.seek(start)
            data = stream.read(size)
    (right if hashlib.sha256(data).hexdigest() == digest else wrong).add(digest)
print(json.dumps(sorted(right - wrong)))
"""


@dataclass
class Site:
    """A guest with the program of this checkout, and a bundle that was built here."""

    guest: Guest
    program: list[str]
    strace: list[str]
    workspace: Workspace
    bundle: Path
    value: Bundle

    @property
    def chunks(self) -> list[Digest]:
        """The digests of all chunks, in the order of the bundle."""
        return [chunk.sha256 for chunk in self.value.blobs[2:]]

    def command(self, *words: str) -> list[str]:
        """A command line of `appliance` there."""
        return [*self.program, "appliance", *words, "--trust", "/root/root.json"]

    def install(self, prefix: str, *sources: str) -> list[str]:
        """The command that installs from sticks."""
        return self.command("install", *sources, "--prefix", prefix, "--yes")

    def begin(self, unit: str, command: Sequence[str]) -> None:
        """Run something there as a unit, and do not wait for its end."""
        self.guest.run(["systemd-run", "--quiet", f"--unit={unit}", "--property=WorkingDirectory=/root", *command])

    def end(self, unit: str) -> int:
        """Wait for the end of a unit: its exit code."""
        loop = f"while systemctl is-active --quiet {unit}; do sleep 0.2; done"
        self.guest.run(["bash", "-c", loop], timeout_s=SLOWEST_S)
        return int(self.guest.run(["systemctl", "show", "--value", "--property=ExecMainStatus", unit]).out)

    def said(self, unit: str) -> str:
        """All that a unit has printed."""
        return self.guest.run(["journalctl", "-b", "-o", "cat", "-u", unit]).out

    def right(self, prefix: str, tmp_path: Path) -> set[str]:
        """The chunks that lie below a prefix in every place that needs them, in finished files or begun ones."""
        host = Prefix.at(Path(prefix))
        release = host.release_path(self.value.contents.version, self.value.manifest)
        places: list[tuple[str, int, int, str]] = []
        for file in self.value.contents.files:
            at = 0
            for chunk in file.chunks:
                places.append((str(place(host, release, file)), at, chunk.size, chunk.sha256))
                at += chunk.size
        (tmp_path / "places.json").write_text(json.dumps(places))
        self.guest.put(tmp_path / "places.json", "/var/tmp/places.json")
        found: list[str] = json.loads(self.guest.run(["python3", "-I", "-c", RIGHT, "/var/tmp/places.json"]).out)
        return set(found)

    def half(self, folder: Path, number: int) -> Path:
        """One of two sticks that together hold the bundle."""
        digests = self.chunks[number - 1 :: 2]
        head = (self.value.manifest, self.value.config.sha256)
        put(self.bundle, folder, (*head, *digests))
        named = StickBundle(self.value.contents.name, self.value.contents.version, self.value.manifest)
        runs = tuple((runs_of(self.value, {*head, *self.chunks[first::2]}),) for first in (0, 1))
        card = StickCard(name_set((self.value.manifest,)), number, 2, (named,), runs)
        (folder / STICK_FILE).write_bytes(write_card(card))
        return folder


def big_file(path: Path) -> Path:
    """A file of noise, of which no two parts are alike."""
    noise = random.Random(SEED)
    with path.open("wb") as file:
        for _ in range(BIG_MIB):
            file.write(noise.randbytes(1 << 20))
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for reason in (checkout.missing(), traced.missing()):
        require(reason)
    workspace, _ = create_development(tmp_path_factory.mktemp("people") / "workspace", NOW)
    noise = random.Random(SEED)
    extra = [Source(f"licences/x/{n}", "licence", data=noise.randbytes(SMALL_BYTES)) for n in range(SMALL_FILES)]
    if BIG_MIB:
        extra.append(Source("licences/x/big", "licence", file=big_file(tmp_path_factory.mktemp("big") / "file")))
    weights = gguf(tensors=[(f"blk.{number}.w.weight", WEIGHTS) for number in range(TENSORS)])
    bundle = build_bundle(workspace, extra=extra, weights=weights)
    found = open_bundle(bundle, workspace.root_file.read_bytes(), Floors(), datetime.now(timezone.utc)).value
    with fresh_guest() as guest:
        guest.put(workspace.root_file, "/root/root.json")
        yield Site(guest, checkout.put_checkout(guest), traced.put_strace(guest), workspace, bundle, found)


@pytest.fixture(autouse=True)
def _empty_sockets(site: Site) -> Iterator[None]:
    yield
    site.guest.yank()
    site.guest.run(["bash", "-c", "rm -rf /srv/*"])


def test_fat32_stick_yanked_at_a_seeded_byte_and_replugged_gives_no_chunk_twice(site: Site, tmp_path: Path) -> None:
    stick = make_stick("stick-1", tmp_path / "stick.img", site.bundle, bytes_per_s=SLOW_BYTES_PER_S)
    total = sum(chunk.size for chunk in site.value.blobs)
    instant = random.Random(SEED).randrange(total // 5, total * 3 // 5)
    site.begin("yanked", site.install("/srv/yanked", site.guest.plug(stick), "--no-wait"))
    loop = f"until [ $(du -s -B1 /srv/yanked 2>/dev/null | cut -f1) -ge {instant} ]; do sleep 0.1; done"
    site.guest.run(["bash", "-c", loop], timeout_s=SLOWEST_S)
    site.guest.yank()
    assert site.end("yanked") == NEXT_STICK, site.said("yanked")
    assert "(stick.unplugged)" in site.said("yanked")
    right = site.right("/srv/yanked", tmp_path)
    assert 0 < len(right) < len(site.chunks)
    folder = "/var/tmp/reads"
    site.guest.run(["mkdir", folder])
    command = [*traced.trace_reads(site.strace, folder), *site.install("/srv/yanked", site.guest.plug(stick))]
    again = site.guest.run(command, check=False, timeout_s=SLOWEST_S)
    assert again.code == ENDED_AFTER_THE_COPY, again.err
    read = traced.blob_bytes(site.guest.run(["bash", "-c", f"cat {folder}/*"]).out)
    # The head of a model is looked at before anything is copied: it shows how much memory the model needs.
    heads = {file.chunks[0].sha256 for file in site.value.contents.of_kind("model")}
    sizes = {chunk.sha256: chunk.size for chunk in site.value.blobs[2:] if chunk.sha256 not in heads}
    assert {digest: read.get(digest, 0) for digest in sizes} == {
        digest: 0 if digest in right else size for digest, size in sizes.items()
    }
    assert site.right("/srv/yanked", tmp_path) == set(site.chunks)


def test_two_sticks_are_swapped_while_it_waits(site: Site, tmp_path: Path) -> None:
    first, second = (
        make_stick(f"stick-{number}", tmp_path / f"{number}.img", site.half(tmp_path / str(number), number))
        for number in (1, 2)
    )
    command = site.install("/srv/swapped", site.guest.plug(first))
    # With a terminal it waits by itself.
    site.begin("swapped", ["python3", "-c", f"import os, pty; os._exit(pty.spawn({command!r}) >> 8)"])
    loop = "until journalctl -b -o cat -u swapped | grep -q 'to go'; do sleep 0.2; done"
    site.guest.run(["bash", "-c", loop], timeout_s=SLOWEST_S)
    right = site.right("/srv/swapped", tmp_path)
    assert right >= set(site.chunks[0::2]) - set(site.chunks[1::2])
    site.guest.yank()
    site.guest.plug(second)
    assert site.end("swapped") == ENDED_AFTER_THE_COPY, site.said("swapped")
    assert site.right("/srv/swapped", tmp_path) == set(site.chunks)


def test_one_of_two_sticks_ends_with_5_and_the_other_is_named(site: Site, tmp_path: Path) -> None:
    stick = make_stick("stick-2", tmp_path / "stick.img", site.half(tmp_path / "half", 2))
    done = verify(site, site.guest.plug(stick))
    assert done.code == NEXT_STICK, done.err
    assert "stick 1" in done.err


def test_write_protected_fat32_and_exfat_are_verified_and_nothing_is_written(site: Site, tmp_path: Path) -> None:
    stick = make_stick("stick-1", tmp_path / "stick.img", site.bundle, is_read_only=True)
    before = digest_of(stick.image)
    exfat = UsbStick("stick-2", tmp_path / "exfat.img", tmp_path, filesystem="exfat")
    make_exfat(exfat.image, 128 << 20)
    folders = [site.guest.plug(stick), site.guest.plug(exfat)]
    site.guest.run(["bash", "-c", f"cp -r {folders[0]}/. {folders[1]} && mount -o remount,ro {folders[1]}"])
    for folder, kind in zip(folders, ("vfat", "exfat"), strict=True):
        assert site.guest.run(["findmnt", "-no", "FSTYPE", folder]).out.strip() == kind
        done = verify(site, folder)
        assert done.code == 0, done.err
    site.guest.yank()
    assert digest_of(stick.image) == before


def verify(site: Site, *folders: str) -> Finished:
    return site.guest.run(site.command("verify", *folders), check=False, timeout_s=SLOWEST_S)


def digest_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
