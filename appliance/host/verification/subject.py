"""The subject of `appliance verify`: a bundle or stick, an installed release, or a single model.

Owns finding out which of these a path is, and which bytes are to be checked against which signed contents. It changes
nothing. What only installed releases need is imported where it is used, so that `verify` of a stick starts fast.

Rules:
- the caller chooses the root of trust; a tree that is verified never brings its own (threat T40);
- a model is checked against the signed contents of the installed release, or of a bundle that the user names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.metadata_store import JudgedMedia, Judgement, judge_media
from appliance.host.trust.root_choice import choose_root
from appliance.host.verification.other_files import is_gguf, not_verifiable
from bundles.bundle import Bundle, not_found
from bundles.chunks.check import check_file, files_by_chunk
from bundles.contents.contents import Contents, File
from bundles.oci.layout import LAYOUT_FILE
from bundles.progress import OnProgress
from bundles.stick.media import OpenMedia
from bundles.stick.media_check import check_media, describe_checked
from bundles.stick.media_set import Waiting
from signing.errors import NotTrustedError, UsageError
from signing.verified import Verified

if TYPE_CHECKING:
    from appliance.host.release.release import Release

BUNDLE, RELEASE, MODEL = "bundle", "release", "model"


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject whose chain of trust holds, and whose bytes are not compared yet.

    Args:
        kind: `bundle` (also of a stick), `release` or `model`.
        path: of the subject; of media, the first.
        bundle: what was signed.
        files: the number of expected files.
        size_bytes: their size.
        check: compares every byte, and returns further members for the report; raises all differences as one error.
        blobs: the number of distinct expected blobs; None but for a bundle.
        file: the model's path in the bundle; empty but for a model.
        notices: what a person should know about how it was judged.
        is_alone: whether a root of another chain than this host's judged it, and nothing of this host.
        more: further bundles that lie on the same media; all of them are checked as one.
    """

    kind: str
    path: Path
    bundle: Verified[Bundle]
    files: int
    size_bytes: int
    check: Callable[[OnProgress], dict[str, object]]
    blobs: int | None = None
    file: str = ""
    notices: tuple[str, ...] = ()
    is_alone: bool = False
    more: tuple[Verified[Bundle], ...] = ()


@dataclass(frozen=True, slots=True)
class Trust:
    """The choice of the root: a file that the user names, the pinned one of a host, or that of a workspace.

    Args:
        host: the host's tree.
        file: of `--trust`, or None.
        workspace: of `--workspace`, or None.
    """

    host: Prefix
    file: Path | None = None
    workspace: Path | None = None

    def open(self, paths: Sequence[Path], now: datetime, waiting: Waiting | None = None) -> JudgedMedia:
        """Verify the chain of trust of bundles and sticks.

        Args:
            paths: untrusted; at least one.
            now: the clock, in UTC.
            waiting: how to wait for further media; None where nobody waits.

        Raises:
            NotTrustedError, DamagedError, UsageError: as `open_media` and `choose_root`.
        """
        return judge_media(paths, choose_root(self.file, self.host, self.workspace), now, self.host, waiting)


def open_subject(
    paths: Sequence[Path],
    trust: Trust,
    now: datetime,
    bundle: Path | None = None,
    waiting: Waiting | None = None,
) -> Subject:
    """Find out what paths are, and verify their chain of trust down to the signed contents.

    Args:
        paths: untrusted; none is the installed release. Several are media that together hold bundles.
        trust: the choice of the root.
        now: the clock, in UTC; see `signing.verify`.
        bundle: for a model: the bundle or stick that it should be from; None is the installed release.
        waiting: how to wait for further media; None where nobody waits.

    Returns:
        The subject; its `check` compares the bytes.

    Raises:
        UsageError: a path is none of these kinds, or nothing is installed.
        NotTrustedError, DamagedError: the chain of trust does not hold.
        DriftError: the installed release cannot be opened; see `open_release`.
    """
    if not paths:
        from appliance.host.release.release import open_current

        return _release(open_current(trust.host, now))
    if len(paths) == 1 and (found := _no_medium(paths[0], trust, now, bundle, waiting)) is not None:
        return found
    for path in paths:
        if waiting is None or not waiting.is_filling:
            _require_folder(path, bundle)
            _require_layout(path)
    return _media(trust.open(paths, now, waiting), trust.host)


def _no_medium(path: Path, trust: Trust, now: datetime, bundle: Path | None, waiting: Waiting | None) -> Subject | None:
    """The subject where a path is a model's file or an installed release; None where it should be a medium."""
    if path.is_file():
        return _model(path, trust, now, bundle)
    if waiting is not None and waiting.is_filling:
        return None
    _require_folder(path, bundle)
    real = Path(os.path.realpath(path))
    if real.parent == trust.host.releases:
        from appliance.host.release.release import open_release

        return _release(open_release(trust.host, real, now))
    if (real / "RELEASE.json").is_file() and not (real / LAYOUT_FILE).exists():
        import shlex

        prefix = real.parents[3] if len(real.parents) > 3 else real.parent
        raise UsageError(
            "verify.other-host",
            str(path),
            expected=f"a bundle, a stick, or a release below {trust.host.releases}",
            found="an installed release of another tree",
            hint=f"name the host whose pinned root counts: appliance verify --prefix {shlex.quote(str(prefix))}",
        )
    return None


def _media(judged: JudgedMedia, host: Prefix) -> Subject:
    media = judged.media
    first, *more = media.bundles
    chunks = files_by_chunk(*(found.value for found in media.bundles))

    def check(on_progress: OnProgress) -> dict[str, object]:
        return _check_media(media, host, on_progress)

    notices = dict.fromkeys(notice for found in media.bundles for notice in judged.of(found).notices)
    return Subject(
        BUNDLE,
        media.media[0].layout.path,
        first,
        sum(len(found.value.contents.files) for found in media.bundles),
        sum(chunk.size for chunk in chunks),
        check,
        blobs=len(chunks),
        notices=tuple(notices),
        is_alone=judged.is_alone,
        more=tuple(more),
    )


def _require_folder(path: Path, bundle: Path | None) -> None:
    if bundle is not None:
        raise UsageError(
            "verify.not-a-model",
            str(path),
            expected="a GGUF file with --bundle",
            found="no file",
            hint="check the path; a bundle or stick is verified without --bundle",
        )
    if not path.exists():
        raise not_found(path)
    if not path.is_dir():
        raise not_verifiable(path)


def _require_layout(path: Path) -> None:
    # Before a root is chosen: where no root is pinned, a wrong folder is still what is wrong.
    try:
        os.lstat(path / LAYOUT_FILE)
    except FileNotFoundError:
        raise not_found(path) from None


def _check_media(media: OpenMedia, host: Prefix, on_progress: OnProgress) -> dict[str, object]:
    if not any(map(media.source.missing, media.source.bundles)):
        return describe_checked(media, check_media(media, on_progress, {}))
    from appliance.host.release.held_chunks import held_chunks  # for deltas alone: the start of a check is to be short

    return describe_checked(media, check_media(media, on_progress, held_chunks(host)))


def _release(release: Release) -> Subject:
    from appliance.host.release.release_check import check_release
    from appliance.host.trust.expiry_exemption import describe_recorded

    def check(on_progress: OnProgress) -> dict[str, object]:
        check_release(release, on_progress)
        return {"override": describe_recorded(release.prefix, release.bundle)}

    contents = release.contents
    return Subject(
        RELEASE,
        release.path,
        release.bundle,
        len(contents.files),
        contents.size_bytes,
        check,
    )


def _model(path: Path, trust: Trust, now: datetime, bundle: Path | None) -> Subject:
    judged: Judgement | None = None
    if bundle is not None:
        judged = trust.open((bundle,), now).select()
        found = judged.bundle
        place: Callable[[File], Path | None] = lambda _file: None  # noqa: E731 - a bundle holds chunks, not files
    else:
        from appliance.host.release.release import open_current

        try:
            release = open_current(trust.host, now)
        except UsageError as error:
            if not is_gguf(path):
                raise not_verifiable(path) from None
            error.hint = "a file is checked as a model; to check one without an installed release, add: --bundle DIR"
            raise
        found, place = release.bundle, release.place
    file = _find_model(path, found.value.contents, place)

    def check(on_progress: OnProgress) -> dict[str, object]:
        check_file(file, path, on_progress)
        return {}

    if judged is None:
        return Subject(MODEL, path, found, 1, file.size, check, file=file.path)
    return Subject(
        MODEL,
        path,
        found,
        1,
        file.size,
        check,
        file=file.path,
        notices=judged.notices,
        is_alone=judged.is_alone,
    )


def _find_model(path: Path, contents: Contents, place: Callable[[File], Path | None]) -> File:
    files = [contents.by_path[model.path] for model in contents.models]
    here = os.path.realpath(path)
    for file in files:
        placed = place(file)
        if placed is not None and os.path.realpath(placed) == here:
            return file
    size = path.stat().st_size
    fitting = [file for file in files if file.size == size] or [
        file for file in files if Path(file.path).name == path.name
    ]
    if not fitting and not is_gguf(path):
        raise not_verifiable(path)
    if not fitting:
        raise NotTrustedError(
            "model.unknown",
            str(path),
            expected="a model of "
            + contents.name
            + ": "
            + ", ".join(f"{file.path}, {file.size} bytes" for file in files),
            found=f"{size} bytes",
            hint="it is not from this bundle; name the one that it should be from: --bundle DIR",
        )
    return fitting[0]
