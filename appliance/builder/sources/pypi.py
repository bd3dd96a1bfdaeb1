"""Files of a Python package index: wheels, sdists, and the models that some wheels carry.

Owns which index is used, how its pages are read and where a named file is. It must never choose between wheels: which
of several fits a target is decided in `appliance.builder.resolve.wheel_closure`.

Rules:
- the index is the one that pip or uv would use (environment, then pip's configuration, then the library's default), and
  only that one: further indexes are left out, since the same name may be somebody else's there;
- both forms of a page work, HTML and JSON; sizes and digests that a page lacks are measured after the download;
- errors name the package, never the URL of the index: it may hold a password.
"""

from __future__ import annotations

import configparser
import json
import os
import sys
from collections.abc import Mapping
from datetime import date, datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.builder.cache.content_store import home_folder
from appliance.builder.sources.download import Remote, get
from signing.digest import Digest, parse_digest
from signing.errors import ApplianceError

if TYPE_CHECKING:  # a build whose cache is warm needs no index, and this library takes half a second to load
    from pypi_simple import DistributionPackage, ProjectPage

VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")


def index_url(env: Mapping[str, str]) -> str:
    """The address of the package index that this machine is set up for, without a slash at its end.

    Args:
        env: the environment; may hold a user and a password within the address.
    """
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    for variable in VARIABLES:
        if chosen := env.get(variable, "").strip():
            return chosen.rstrip("/")
    return (_configured(env) or PYPI_SIMPLE_ENDPOINT).rstrip("/")


def _configured(env: Mapping[str, str]) -> str | None:
    # pip reads these in this order, the later wins.
    home = home_folder(env) or Path(os.devnull)
    files = [
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    if named := env.get("PIP_CONFIG_FILE"):
        files = [] if named == "/dev/null" else [*files, Path(named)]
    parser = configparser.RawConfigParser()
    try:
        parser.read(files, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return None
    return parser.get("global", "index-url", fallback=None)


class Index:
    """A package index; each page is fetched once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._pages: dict[str, ProjectPage] = {}

    def files(self, project: str) -> list[DistributionPackage]:
        """Everything that the index offers under a project's name.

        Raises:
            ApplianceError: unreachable, no such project, or not a page of an index.
        """
        if project not in self._pages:
            self._pages[project] = self._read(project)
        return self._pages[project].packages

    def locate(self, project: str, file: str, size: int | None = None) -> Remote:
        """Where one file is.

        Args:
            project: the name of the package.
            file: the name of the file.
            size: in bytes, from the lock; None while the lock is made.

        Raises:
            ApplianceError: the index does not offer it, or cannot be reached.
        """
        for package in self.files(project):
            if package.filename == file:
                return remote(package, size)
        raise ApplianceError(
            "source.gone",
            file,
            expected=f"a file of the package {project} in the package index",
            found=f"{len(self.files(project))} other files",
            hint="check the name and version; when upstream has removed it: appliance lock --upgrade RECIPE",
        )

    def last_release(self, project: str) -> date | None:
        """The day, in UTC, of a project's newest release that was not withdrawn; None where the index reports no days.

        A release is as old as its first file: one that is added later makes no new release.

        Raises:
            ApplianceError: as `files`.
        """
        first: dict[str | None, date] = {}
        for package in self.files(project):
            if package.upload_time is not None and not package.is_yanked:
                day = _day(package.upload_time)
                first[package.version] = min(day, first.get(package.version, day))
        return max(first.values(), default=None)

    def _read(self, project: str) -> ProjectPage:
        from pypi_simple import ACCEPT_ANY, ProjectPage, UnsupportedRepoVersionError

        subject = f"the page of {project} in the package index"
        answer = get(f"{self.url}/{project}/", subject, {"Accept": ACCEPT_ANY})
        base = str(answer.url)
        try:
            if answer.headers.get("Content-Type", "").partition(";")[0].strip().endswith("+json"):
                return ProjectPage.from_json_data(json.loads(answer.body), base)
            return ProjectPage.from_html(project, answer.body, base, answer.charset)
        except (ValueError, LookupError, TypeError, RecursionError, UnsupportedRepoVersionError) as error:
            raise ApplianceError(
                "source.refused", subject, expected="a page of a simple repository", found=str(error)[:200]
            ) from None


@cache
def open_index(url: str) -> Index:
    """The index at an address; the same one for the whole process, so that no page is fetched twice."""
    return Index(url)


def remote(package: DistributionPackage, size: int | None = None) -> Remote:
    """A file of the index as something that `download` can fetch, with the size and digest that the index states."""
    return Remote(
        url=package.url,
        subject=package.filename,
        size=size if size is not None else package.size,
        sha256=_claimed(package),
    )


def _day(when: datetime) -> date:
    # A time without a zone is one in UTC, as the specification of the page asks for.
    return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).astimezone(timezone.utc).date()


def _claimed(package: DistributionPackage) -> Digest | None:
    digest = package.digests.get("sha256")
    return None if digest is None else parse_digest(digest.lower(), f"the index's digest of {package.filename}")
