"""What `appliance stick write` answers: what was written to which stick, what was not, and what to type to go on."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.cli.console.terminal import Terminal
from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.report import escape, fault_fields, format_size
from bundles.stick.media import OpenMedia
from bundles.stick.ranges import format_ranges
from bundles.stick.writing.filling import Unwritten, Written, gravest
from bundles.stick.writing.writer import WrittenSet
from signing.errors import ApplianceError, NextStickError


def answer(terminal: Terminal, media: OpenMedia, written: WrittenSet, before: int = 0) -> None:
    """Report what was written, for people; `before` sticks of the set were written by earlier calls."""
    for found in media.bundles:
        terminal.answer(f"{found.value.label}  manifest sha256:{found.value.manifest}")
    count = before + len(written.sticks) + len(written.failed)
    sticks: list[Written | Unwritten] = [*written.sticks, *written.failed]
    for one in sorted(sticks, key=lambda one: one.filling.number):
        if count > 1:
            more = " or more" if written.left else ""
            terminal.answer(f"stick {one.filling.number} of {count}{more}  {one.path}")
        for line in _lines(one) if isinstance(one, Written) else (f"failed    {one.error.code}: not whole",):
            terminal.answer(line)
    if written.parity_bytes:
        terminal.answer(f"parity    {written.parity_bytes} bytes on the last stick: any one of the others may be lost")


def describe(media: OpenMedia, written: WrittenSet) -> dict[str, object]:
    """Report what was written, as a JSON object."""
    bundles = [found.value for found in media.bundles]
    return {
        "manifest": bundles[0].manifest,
        "manifests": [bundle.manifest for bundle in bundles],
        "blobs_written": sum(one.blobs for one in written.sticks),
        "bytes_written": sum(one.size_bytes for one in written.sticks),
        "blobs_checked": sum(one.checked.blobs for one in written.sticks),
        "bytes_checked": sum(one.checked.size_bytes for one in written.sticks),
        "parity_bytes": written.parity_bytes,
        "sticks": [_members(one) for one in written.sticks],
        "failed": [_failed_members(bundles, one) for one in written.failed],
        "left": {"blobs": len(written.left), "bytes": written.left_bytes, "ranges": _ranges(bundles, written.left)},
    }


def raise_unwritten(media: OpenMedia, written: WrittenSet, before: int, *, has_parity: bool) -> None:
    """Raise an error where something has yet to be written; it has the options for the next call.

    Args:
        media, written: what was written.
        before: how many sticks of the set earlier calls have written.
        has_parity: whether a parity was asked for; it is written after the last stick.

    Raises:
        NextStickError: blobs fit on none of the sticks (code `stick.more-to-write`).
        UsageError: the stick of the parity could not be used.
        ApplianceError: a stick could not be filled, while others were: its own error, with the words for that stick.
    """
    if written.failed:
        raise _failure([bundle.value for bundle in media.bundles], written, before, has_parity=has_parity)
    if written.parity_error:
        raise written.parity_error
    if not written.left:
        return
    bundles = [found.value for found in media.bundles]
    only = _only(bundles, written.left)
    raise NextStickError(
        "stick.more-to-write",
        ", ".join(bundle.label for bundle in bundles),
        expected=f"room for {len(written.left)} blobs more, {format_size(written.left_bytes)}",
        found="full sticks",
        hint=f"insert the next stick, and run the same command for it with {only} "
        f"--number {before + len(written.sticks) + 1}"
        + "; no parity was written: for that, name all sticks in one command, or add --wait"
        * has_parity,
    )


def _failure(bundles: Sequence[Bundle], written: WrittenSet, before: int, *, has_parity: bool) -> ApplianceError:
    """The gravest error of the sticks that failed, each with the words that write this stick alone."""
    done = ", ".join(str(one.path) for one in written.sticks)
    for one in written.failed:
        filling = one.filling
        words = f"{filling.name}, is not whole; done: {done}"
        if filling.parity is None:
            words += (
                "; the command for this stick alone, or another one in its place: as before, with this folder and no "
                f"other, {_only(bundles, filling.share)} --number {filling.number}"
            )
            # The sticks that are done may be unmounted: the same command would write into their empty folders.
            one.error.hint = one.error.hint.replace("the same command", "the command for this stick alone")
        one.error.hint = f"{one.error.hint}; {words}" if one.error.hint else words
    error = gravest(written.failed)
    if written.left:
        number = before + len(written.sticks) + len(written.failed) + 1
        error.hint += f"; then for one stick more with {_only(bundles, written.left)} --number {number}"
    if has_parity:
        error.hint += "; no parity was written: for that, mount all sticks, and name them in one command"
    return error


def _only(bundles: Sequence[Bundle], chunks: Sequence[Chunk]) -> str:
    return " ".join(f"--only '{text}'" for text in _ranges(bundles, chunks))


def _ranges(bundles: Sequence[Bundle], chunks: Sequence[Chunk]) -> list[str]:
    digests = {chunk.sha256 for chunk in chunks}
    return [text for bundle in bundles if (text := format_ranges(bundle, digests))]


def _lines(one: Written) -> list[str]:
    removal = one.removal
    lines = [f"removed   {len(one.filling.removed)} files of other bundles"] if one.filling.removed else []
    lines.append(f"written   {one.blobs} blobs, {one.size_bytes} bytes")
    lines.append(f"read back {one.checked.blobs} blobs, {one.checked.size_bytes} bytes: as signed")
    lines.append(
        "device    every byte was read back from the device"
        if one.is_proven
        else "device    could not be proven here: the kernel did not count every byte as read from a device"
    )
    lines.append(f"removal   {removal.words}")
    if removal.is_dirty:
        lines.append(
            f"file system was pulled out without unmounting at some time: mend it with {removal.check_command}"
        )
    return lines


def _members(one: Written) -> dict[str, object]:
    return {
        "path": escape(str(one.path)),
        "blobs_written": one.blobs,
        "bytes_written": one.size_bytes,
        "blobs_checked": one.checked.blobs,
        "bytes_checked": one.checked.size_bytes,
        "removed": list(one.filling.removed),
        "is_proven": one.is_proven,
        "removal": {
            "state": one.removal.state,
            "safe": one.removal.is_safe,
            "command": one.removal.command,
            "is_dirty": one.removal.is_dirty,
            "check_command": one.removal.check_command,
        },
    }


def _failed_members(bundles: Sequence[Bundle], one: Unwritten) -> dict[str, object]:
    return {
        "path": escape(str(one.path)),
        "number": one.filling.number,
        "ranges": _ranges(bundles, one.filling.share),
        "error": fault_fields(one.error),
    }
