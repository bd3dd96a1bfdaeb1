"""The search for secrets in what is about to be sealed (threat T33).

Owns the patterns of secrets, and which bytes are searched. It must never show one: an error names file, line and kind.

Rules:
- files that the build wrote are searched, and every member of a wheel;
- weights are searched for private keys alone, since random bytes match other patterns by chance;
- text is searched for private keys, tokens and folders of the person who builds; other bytes for private keys;
- a private key is its armour followed by base64: a program that searches for keys contains the armour alone;
- the size that an archive claims is not trusted: a member is read up to a limit, and refused beyond it (T24).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from appliance.builder.chunking.chunker import Source
from bundles.contents.wheel_record import BROKEN_ZIP
from signing.digest import sha256
from signing.errors import ApplianceError, NotTrustedError, worst

BLOCK_BYTES = 4 << 20
OVERLAP_BYTES = 8 << 10
MAX_MEMBER_BYTES = 1 << 30
_ARCHIVES = ("runtime", "tool", "wheel")
_FROM_A_RELEASE = ("os-package",)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of secret.

    Args:
        what: for people.
        anchors: every secret of this kind contains one; searching for them first is a hundred times faster.
        pattern: the whole of it.
    """

    what: str
    anchors: tuple[bytes, ...]
    pattern: re.Pattern[bytes]

    def find(self, data: bytes) -> Iterator[re.Match[bytes]]:
        """Every secret of this kind."""
        if any(anchor in data for anchor in self.anchors):
            yield from self.pattern.finditer(data)


def _kind(what: str, anchors: str, pattern: bytes) -> Kind:
    return Kind(what, tuple(anchor.encode() for anchor in anchors.split()), re.compile(pattern))


# After the armour of a key come headers, then base64. Inside a program, the end of a line may be written `\n`.
_END = rb"(?:\\n|\r?\n)"
_BODY = _END + rb"(?:[A-Za-z-]{1,40}: [^\n]{1,200}" + _END + rb"|\r?\n){0,8}[A-Za-z0-9+/=]{24}"
KEYS = (
    _kind("a private key in PEM", "KEY-----", rb"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY-----" + _BODY),
    _kind("a private key of PuTTY", "PuTTY-User-Key-File-", rb"PuTTY-User-Key-File-[1-9]: [^\n]{3,40}\nEncryption: "),
    _kind("a private key of age", "AGE-SECRET-KEY-", rb"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}"),
)
TOKENS = (
    _kind("a token of GitHub", "ghp_ gho_ ghu_ ghs_ ghr_", rb"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    _kind("a token of GitHub", "github_pat_", rb"\bgithub_pat_[A-Za-z0-9_]{60,90}\b"),
    _kind("a token of GitLab", "glpat-", rb"\bglpat-[A-Za-z0-9_-]{20}\b"),
    _kind("a token of a model hub", "hf_", rb"\bhf_[A-Za-z]{34}\b"),
    _kind("a token of a package index", "pypi-AgEI", rb"\bpypi-AgEI[A-Za-z0-9_-]{50,}"),
    _kind("an access key of AWS", "AKIA ASIA", rb"\b(?:AKIA|ASIA)(?!IOSFODNN7)[A-Z0-9]{16}\b"),
    _kind("a key of Google", "AIza", rb"\bAIza[A-Za-z0-9_-]{35}\b"),
    _kind("a token of Slack", "xox", rb"\bxox[abprs]-[0-9]{9,13}-[A-Za-z0-9-]{20,}"),
    _kind("a key of an API", "sk-proj- sk-ant-", rb"\bsk-(?:proj|ant-[a-z0-9]+)-[A-Za-z0-9_-]{32,}"),
    _kind("a key of an API", "k_live_", rb"\b[sr]k_live_[A-Za-z0-9]{24,}\b"),
    _kind("a token of npm", "npm_", rb"\bnpm_[A-Za-z0-9]{36}\b"),
    _kind("a password in an address", "://", rb"https?://[\w.%+-]{1,64}:[^\s/@:'\"<>{}$%\[\]]{6,128}@[a-z0-9.-]{4,}/"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret: which file of the bundle, which line of it (0: the file is no text), and what kind of secret."""

    path: str
    line: int
    what: str


def text_kinds(homes: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds of secrets that text is searched for.

    Args:
        homes: folders of the person who builds; one that is the same everywhere (`/root`) is left out.
    """
    folders = sorted({home.rstrip("/") for home in homes if home.rstrip("/").count("/") > 1})
    end = rb"(?=[/\s'\":;,)]|\Z)"
    places = [
        Kind("a folder of the person who builds", (home.encode(),), re.compile(re.escape(home.encode()) + end))
        for home in folders
    ]
    return (*KEYS, *TOKENS, *places)


def check_secrets(sources: Iterable[Source], homes: Iterable[str], clean: Path | None = None) -> None:
    """Search everything that goes into a bundle.

    Args:
        sources: of the whole bundle.
        homes: folders of the person who builds, as absolute paths.
        clean: a folder that records which locked files were searched by these rules and are clean; None for no record.

    Raises:
        NotTrustedError: code `secret.found`, for each secret; none of them is shown.
    """
    kinds = text_kinds(homes)
    with ThreadPoolExecutor(2) as pool:
        each = list(pool.map(lambda source: _search_once(source, kinds, clean), sources))
    if found := [finding for findings in each for finding in findings]:
        raise worst([_refuse(finding) for finding in found])


def _search_once(source: Source, kinds: tuple[Kind, ...], clean: Path | None) -> list[Finding]:
    if clean is None or source.file is None or source.sha256 is None:
        return list(_search(source, kinds))
    rules = "\n".join([source.sha256, source.path, *(repr(kind) for kind in (*KEYS, *kinds))])
    mark = clean / sha256(rules.encode())[:32]
    if mark.exists():
        return []
    found = list(_search(source, kinds))
    if not found:
        mark.touch()
    return found


def _search(source: Source, kinds: tuple[Kind, ...]) -> Iterator[Finding]:
    if source.kind in _FROM_A_RELEASE:
        return  # compressed, and covered by the signature of the release
    if source.file is None:
        yield from search_bytes(source.path, source.data, kinds)
    elif source.kind in _ARCHIVES:
        yield from _search_archive(source.path, source.file, kinds)
    else:
        with source.file.open("rb") as stream:
            yield from _search_stream(source.path, stream, kinds)


def search_bytes(path: str, data: bytes, kinds: tuple[Kind, ...]) -> Iterator[Finding]:
    """Search a file in memory: text for all kinds, with the line; other bytes for private keys."""
    is_text = b"\0" not in data
    for kind in kinds if is_text else KEYS:
        for match in kind.find(data):
            yield Finding(path, data.count(b"\n", 0, match.start()) + 1 if is_text else 0, kind.what)


def _search_archive(path: str, file: Path, kinds: tuple[Kind, ...]) -> Iterator[Finding]:
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                with archive.open(info) as stream:
                    yield from _search_stream(f"{path}!{info.filename}", stream, kinds)
    except BROKEN_ZIP as error:
        raise NotTrustedError("wheel.refused", path, expected="a wheel that can be read", found=str(error)) from None


def _search_stream(path: str, stream: IO[bytes], kinds: tuple[Kind, ...]) -> Iterator[Finding]:
    first = stream.read(BLOCK_BYTES)
    if len(first) < BLOCK_BYTES:
        yield from search_bytes(path, first, kinds)
        return
    # Long files are searched block by block, and for private keys only, even when they are text.
    rest, done = first, 0
    while rest:
        done += len(rest)
        if done > MAX_MEMBER_BYTES and "!" in path:
            raise NotTrustedError("wheel.refused", path, expected=f"at most {MAX_MEMBER_BYTES} bytes", found="more")
        if what := next((kind.what for kind in KEYS for _ in kind.find(rest)), None):
            yield Finding(path, 0, what)
            return
        block = stream.read(BLOCK_BYTES)
        rest = rest[-OVERLAP_BYTES:] + block if block else b""


def _refuse(finding: Finding) -> ApplianceError:
    where = f"{finding.path}:{finding.line}" if finding.line else finding.path
    return NotTrustedError(
        "secret.found",
        where,
        expected="nothing secret in a bundle",
        found=finding.what,
        hint="remove it from the source, and treat it as known to others: replace it wherever it gives access",
    )
