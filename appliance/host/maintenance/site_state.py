"""What the site has decided, where each value comes from, and whether it is what serves.

Owns what `appliance config check` and `config show` report, and the words for a file that was not applied. It changes
nothing.
"""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from appliance.host.layout.places import SITE_FILE
from appliance.host.release.release import Release
from appliance.host.site.config import FIELDS, MAX_BYTES, RESERVED, SiteConfig
from appliance.host.site.site_fields import read_values
from signing.errors import ApplianceError, DriftError

DEFAULT = "default"
BUNDLE = "the bundle"


@dataclass(frozen=True, slots=True)
class SiteValue:
    """A field of the site's file.

    Args:
        name: of the field.
        value: what holds; None where the bundle decides and none is installed.
        source: `FILE:LINE`, `default`, or `the bundle`.
        what: what the field decides.
    """

    name: str
    value: int | str | dict[str, Any] | None
    source: str
    what: str


def site_values(site: SiteConfig, path: Path) -> tuple[SiteValue, ...]:
    """List every field with its value and the place that it comes from.

    Args:
        site: parsed.
        path: of its file, for the places.
    """
    found = read_values(site.data, FIELDS, RESERVED, MAX_BYTES)
    rows = []
    for field in FIELDS:
        line = found.lines.get(field.name)
        source = f"{path}:{line}" if line else BUNDLE if field.default is None else DEFAULT
        rows.append(SiteValue(field.name, found.values[field.name], source, field.what))
    return tuple(rows)


def unused_values(site: SiteConfig, release: Release) -> tuple[str, ...]:
    """List values that have less effect than they say, for people: a context above that of a model."""
    context = site.context
    if context is None:
        return ()
    return tuple(
        f"context {context} is more than the {model.context} of model {model.name}: {model.context} is used"
        for model in release.contents.models
        if context > model.context
    )


def site_drift(release: Release, site: SiteConfig) -> tuple[ApplianceError, ...]:
    """Compare the site's file with the one that the release was rendered from.

    Returns:
        One error where they differ. It names who owns the file and when it was changed, for that person applies it.
    """
    if site.digest == release.facts.site:
        return ()
    option = release.prefix.option
    return (
        DriftError(
            "site.not-applied",
            str(release.prefix.site_file),
            expected=f"sha256 {release.facts.site}, as it was applied",
            found=f"sha256 {site.digest}; {describe_change(release.prefix.site_file)}",
            hint=f"appliance config apply{option}; or take it back: "
            f"the file that was applied is {release.path / SITE_FILE}",
        ),
    )


def describe_change(path: Path) -> str:
    """Who owns a file and when it was last changed, for people."""
    try:
        status = path.stat()
    except OSError as error:
        return f"no file can be read there ({error.strerror or error})"
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = f"number {status.st_uid}"
    moment = datetime.fromtimestamp(status.st_mtime, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"changed {moment} by this host's clock, owned by user {owner}"


def applied_values(release: Release) -> dict[str, Any]:
    """The value of each field that the release was rendered from, by name; empty where its copy is missing."""
    try:
        data = (release.path / SITE_FILE).read_bytes()
    except OSError:
        return {}
    return read_values(data, FIELDS, RESERVED, MAX_BYTES).values
