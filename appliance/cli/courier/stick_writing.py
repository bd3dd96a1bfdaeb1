"""What `appliance stick write` asks: what is left out, what may be removed, and the next stick."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance import clock
from appliance.cli.console.agreement import ask_person
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.prefix import Prefix
from appliance.host.trust.metadata_store import judge_media
from appliance.host.trust.root_choice import choose_root
from appliance.keys.enrolled_hosts import held_digests
from appliance.keys.workspace import open_workspace
from bundles.report import format_size
from bundles.stick.media import OpenMedia
from bundles.stick.mounts import MountWatch, mount_of, read_mounts
from bundles.stick.ranges import find_ranges
from bundles.stick.writing.writer import MayRemove, NextSticks, ParityStick
from signing.digest import Digest
from signing.errors import UsageError

_MAX_NAMED = 10


def open_sources(terminal: Terminal, paths: Sequence[Path], trust: Path | None, workspace: Path | None) -> OpenMedia:
    """Verify who signed each of several bundles; the large files are not read."""
    host = Prefix.at(Path("/"))
    judged = judge_media(paths, choose_root(trust, host, workspace), clock.utc_now(), host)
    for notice in judged.select(_dashed(judged.media)).notices:
        terminal.message(f"notice: {notice}")
    return judged.media


@dataclass(frozen=True)
class OtherSide:
    """What the place holds to which a delta goes.

    Args:
        digests: of blobs that are there.
        reads: the newest format of contents that its program reads.
    """

    digests: frozenset[Digest]
    reads: int


def look_at_other_side(
    terminal: Terminal, since: Path | None, trust: Path | None, workspace: Path | None
) -> OtherSide | None:
    """Read what the other side holds.

    Args:
        since: a bundle, or the receipt of a host; None where nothing is known.
        trust, workspace: whose root counts; the host of a receipt is enrolled in the workspace.

    Raises:
        UsageError: a receipt without a workspace.
        NotTrustedError: the bundle or the receipt does not verify.
    """
    if since is None:
        return None
    if not since.is_dir():
        return _of_receipt(terminal, since, workspace)
    bundles = [found.value for found in open_sources(terminal, (since,), trust, workspace).bundles]
    digests = frozenset(chunk.sha256 for bundle in bundles for chunk in bundle.blobs)
    return OtherSide(digests, max(bundle.contents.min_reader for bundle in bundles))


def wanted_digests(media: OpenMedia, held: OtherSide | None, only: Sequence[str]) -> Collection[Digest] | None:
    """Which chunks are carried; None for all.

    Args:
        media: what is written.
        held: what the other side has; None where nothing is known.
        only: ranges with check words.

    Raises:
        UsageError: ranges that do not fit.
    """
    bundles = [found.value for found in media.bundles]
    if held is None and not only:
        return None
    wanted = {chunk.sha256 for bundle in bundles for chunk in bundle.blobs}
    if only:
        wanted = {chunk.sha256 for text in only for chunk in find_ranges(text, bundles)[1]}
    return wanted - held.digests if held else wanted


def confirm_removal(terminal: Terminal, *, is_agreed: bool) -> MayRemove:
    """List what is removed from a stick, and ask, where nobody has agreed in advance."""

    def ask(stick: Path, paths: Sequence[str], size: int) -> bool:
        terminal.message(f"to be removed from {stick}: {len(paths)} files of other bundles, {format_size(size)}")
        for path in paths[:_MAX_NAMED]:
            terminal.message(f"  {path}")
        if len(paths) > _MAX_NAMED:
            terminal.message(f"  and {len(paths) - _MAX_NAMED} more")
        if is_agreed:
            return True
        return ask_person(
            "stick.unasked",
            str(stick),
            "somebody at a terminal who agrees that these are removed, or --yes",
            "remove them?",
            ends=False,
        )

    return ask


def ask_for_sticks(terminal: Terminal, paths: Sequence[Path]) -> NextSticks:
    """Ask for a further stick, and wait until one is mounted where one of the sticks was."""
    points = [Path(os.path.realpath(path)) for path in paths]
    used = [point for point in points if any(mount.point == point for mount in read_mounts())]

    def ask(left_bytes: int) -> Sequence[Path]:
        if not used:  # ordinary folders: nothing will be mounted there
            return ()
        watch = MountWatch()
        before = {point: mount_of(point) for point in used}
        places = " or ".join(map(str, used))
        terminal.message(f"insert the next stick and mount it at {places}; {format_size(left_bytes)} to go")
        while True:
            watch.wait()
            for point in used:
                mount = mount_of(point)
                if mount != before[point] and mount is not None and mount.point == point and not mount.is_read_only:
                    watch.close()
                    return (point,)
                before[point] = mount

    return ask


def parity_place(path: Path, sticks: Sequence[Path], further: NextSticks | None) -> ParityStick:
    """Where the parity is written: at its own path, or on a further stick where another stick of the set lies there.

    Raises:
        UsageError: another stick of the set lies there, and nobody brings a further one (code `stick.twice`).
    """
    is_shared = os.path.realpath(path) in map(os.path.realpath, sticks)
    if is_shared and (further is None or not os.path.ismount(path)):
        raise UsageError(
            "stick.twice",
            str(path),
            expected="one stick more for the parity",
            found="a stick that is to hold blobs: who loses it would lose both",
            hint="name another stick with --parity, or add --wait to insert it when it is asked for",
        )

    def ask(size_bytes: int) -> Path | None:
        if not is_shared or further is None:
            return path
        return next(iter(further(size_bytes)), None)

    return ask


def _of_receipt(terminal: Terminal, path: Path, workspace: Path | None) -> OtherSide:
    if workspace is None:
        raise UsageError(
            "stick.since-workspace",
            str(path),
            expected="the workspace in which the receipt's host is enrolled",
            found="none",
            hint="name it with --workspace",
        )
    held = held_digests(path, open_workspace(workspace))
    for one in held.unknown:
        terminal.message(f"notice: this workspace does not know {one.name} {one.version}; nothing of it is left out")
    return OtherSide(held.digests, held.receipt.reads)


def _dashed(media: OpenMedia) -> str:
    first = media.bundles[0].value.contents
    return f"{first.name}-{first.version}"
