"""`appliance inspect --kiosk`: the list that a scanning station is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from appliance.builder.compare.allow_list import format_csv, list_allowed
from appliance.builder.compare.inspection import inspect
from appliance.cli.console.terminal import Terminal
from bundles.bundle import Bundle
from bundles.medium_check import check_medium
from bundles.oci.layout import Layout
from signing.verified import Verified


def show_allowed(terminal: Terminal, layout: Layout, found: Sequence[Verified[Bundle]], *, as_json: bool) -> None:
    """Answer with every file that may lie on a medium: path, size, sha256, kind, licence.

    Args:
        terminal: gets CSV, or one JSON object.
        layout: of the medium, untrusted.
        found: every bundle that lies there.
        as_json: whether a program reads the answer.

    Raises:
        NotTrustedError: something lies there that does not belong there; it must not get into such a list.
        DamagedError: a file beside the blobs is missing or differs.
    """
    check_medium(layout, found)
    bundles = [one.value for one in found]
    packages = [package for bundle in bundles for package in inspect(layout, bundle.contents).packages]
    rows = list_allowed(layout, bundles, {package.path: package.licence for package in packages})
    if as_json:
        terminal.answer_json({"files": [asdict(row) for row in rows]})
        return
    for line in format_csv(rows):
        terminal.answer(line)
