"""The four kinds of source that a recipe may name.

Owns the grammar of `source:` and the value of each kind. It must never use a network or a disk: the module of each
kind locates its bytes, and `download` fetches their bytes.

Rules:
- a source names exactly one file, fixed by a version, a commit, or the digest in the lock;
- a source holds no secret: a name or password in a URL is refused;
- the file's name follows the grammar of `bundles.contents.paths`, because the bundle keeps it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from bundles.contents.paths import GRAMMAR, check_path
from signing.errors import NotTrustedError

FORMS = "pypi:NAME==VERSION#path/in/wheel, hf:OWNER/REPO[@COMMIT]#path/in/repo, https://HOST/path or file:PATH"

_PYPI = re.compile(r"pypi:(?P<project>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^#=*\s]+)#(?P<member>\S+)\Z")
_HF = re.compile(r"hf:(?P<repo>[A-Za-z0-9._-]+/[A-Za-z0-9._-]+)(?:@(?P<commit>[0-9a-f]{40}))?#(?P<path>\S+)\Z")


@dataclass(frozen=True, slots=True)
class PypiSource:
    """A file inside a wheel of a package index."""

    text: str
    project: str
    version: str
    member: str

    @property
    def file(self) -> str:
        """The name of the file itself, without folders."""
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class HfSource:
    """A file of a model repository at one commit; an empty one is the newest, which the lock pins."""

    text: str
    repo: str
    commit: str
    path: str

    @property
    def file(self) -> str:
        """The name of the file itself, without folders."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class HttpsSource:
    """A file of a web server."""

    text: str

    @property
    def file(self) -> str:
        """The name of the file itself, from the path of its URL."""
        return unquote(urlsplit(self.text).path).rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of this machine; a relative path starts at the recipe's folder."""

    text: str
    path: str

    @property
    def file(self) -> str:
        """The name of the file itself, without folders."""
        return self.path.rsplit("/", 1)[-1]


RecipeSource = PypiSource | HfSource | HttpsSource | FileSource


def parse_source(text: str) -> RecipeSource:
    """Parse the text of a recipe's `source:`.

    Raises:
        ValueError: its text is what was expected.
    """
    source = _parse(text)
    try:
        check_path(source.file)
    except NotTrustedError:
        raise ValueError(f"a source whose file name has only {GRAMMAR}") from None
    return source


def source_beside(text: str, name: str) -> str:
    """The source of a file in the same place as another file.

    Args:
        text: the source of the other file.
        name: the path of the file, relative to the other's folder.
    """
    head, sharp, path = text.partition("#") if text.startswith(("pypi:", "hf:")) else ("", "", text)
    kind, colon, place = ("", "", path) if sharp else path.partition(":")
    folder, slash, _ = place.rpartition("/")
    return f"{head}{sharp}{kind}{colon}{folder}{slash}{name}"


def _parse(text: str) -> RecipeSource:
    if match := _PYPI.match(text):
        return PypiSource(text, match["project"], match["version"], _inner_path(match["member"]))
    if match := _HF.match(text):
        return HfSource(text, match["repo"], match["commit"] or "", _inner_path(match["path"]))
    if text.startswith("hf:"):
        raise ValueError("hf:OWNER/REPO[@COMMIT]#path/in/repo, where COMMIT is the whole 40 hex characters")
    if text.startswith("https://"):
        return HttpsSource(_plain_url(text))
    if text.startswith("file:") and not text.startswith("file://") and len(text) > len("file:"):
        return FileSource(text, text.removeprefix("file:"))
    raise ValueError(FORMS)


def _inner_path(path: str) -> str:
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("after the # a plain relative path, without empty parts, . or ..")
    return path


def _plain_url(text: str) -> str:
    parts = urlsplit(text)
    if not parts.hostname or "@" in parts.netloc or parts.fragment or any(letter.isspace() for letter in text):
        raise ValueError("https://HOST/path without a user, password, fragment or space")
    return text
