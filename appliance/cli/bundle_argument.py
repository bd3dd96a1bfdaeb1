"""The bundles and sticks that a person names on the command line, opened by the chain of trust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from appliance import clock
from appliance.host.layout.prefix import Prefix
from appliance.host.trust.metadata_store import judge_media
from appliance.host.trust.root_choice import choose_root
from bundles.bundle import Bundle
from bundles.stick.media import OpenMedia
from bundles.stick.media_set import Waiting
from signing.verified import Verified


def open_named_bundle(
    path: Path,
    trust: Path | None,
    prefix: Path | None,
    workspace: Path | None,
    report: Callable[[str], None],
    select: str = "",
) -> Verified[Bundle]:
    """Verify who signed a bundle, down to the list of its files; the large files are not read.

    Args:
        path: of a bundle or a stick; untrusted.
        trust, prefix, workspace, report: as for `open_named_media`.
        select: `NAME-VERSION` of the bundle that is meant, where several lie there.

    Raises:
        UsageError: as `open_named_media`; or several bundles lie there, and none is selected.
        DamagedError, NotTrustedError: as `open_named_media`.
    """
    return open_named_media((path,), trust, prefix, workspace, report).select(select)


def open_named_media(
    paths: Sequence[Path],
    trust: Path | None,
    prefix: Path | None,
    workspace: Path | None,
    report: Callable[[str], None],
    waiting: Waiting | None = None,
) -> OpenMedia:
    """Verify who signed every bundle of several media; no blob but the lists of files is read.

    Args:
        paths: of bundles and sticks, at least one; untrusted.
        trust: the root file of `--trust`.
        prefix: of the host whose root counts; None is the whole machine.
        workspace: whose root counts where neither of them gives one.
        report: gets one line for people about each circumstance of the judgement, such as a root that judged alone.
        waiting: how to wait for further media; None where nobody waits.

    Raises:
        UsageError: no root is known, or there is no bundle.
        DamagedError: a blob is not what was signed.
        NotTrustedError: the chain of trust does not cover it.
    """
    host = Prefix.at(prefix or Path("/"))
    judged = judge_media(paths, choose_root(trust, host, workspace), clock.utc_now(), host, waiting)
    notices = (notice for found in judged.media.bundles for notice in judged.of(found).notices)
    for notice in dict.fromkeys(notices):
        report(f"notice: {notice}")
    return judged.media
