"""The private words of a host: names of machines and people, keys, and words that its operator has listed.

Owns their collection, and the search for them in what is about to leave the host (threat T129). An error must never
show such a word, only what kind it is and where it stands.

Rules:
- a word counts from six characters on, and upper and lower case are the same;
- text that the program itself writes into every file is not searched: a user may be called `memory`;
- words that an operator lists in `/etc/appliance/private-words`, one a line, count as well. A canary that was
  planted in prompts or names is found by them.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.host.layout.prefix import Prefix
from appliance.host.machine.proc_file import read_text
from appliance.host.site.api_keys import AccessStore
from appliance.host.site.config import read_site
from signing.errors import ApplianceError, NotTrustedError
from signing.strictjson import load

MIN_LENGTH = 6
WORDS_FILE = "private-words"
_FIRST_PERSON = 1000
_STANDARD_HOSTS = ("localhost", "ip6-localhost", "ip6-loopback", "ip6-allnodes", "ip6-allrouters", "localdomain")
_OWN_USERS = ("nobody", "appliance-engine", "appliance-gateway")
_PARTS = re.compile(r"[^0-9A-Za-z\u0080-\U0010ffff_+-]+")


@dataclass(frozen=True, slots=True)
class PrivateWord:
    """A word that must not leave: in lower case, and what it is, for people."""

    text: str
    kind: str


def private_words(prefix: Prefix, root: Path = Path("/")) -> tuple[PrivateWord, ...]:
    """Collect the private words of this host.

    Args:
        prefix: the host.
        root: `/`, or a folder in its place, for the names of machines.

    Raises:
        ApplianceError: the list of the operator is there, and cannot be read.
    """
    found = [*_host_names(root), *_people(), *_keys(prefix), *_site(prefix)]
    longest = {word.text: word for word in found if len(word.text) >= MIN_LENGTH}
    return tuple(longest.values())


def check_private(data: bytes, words: Collection[PrivateWord], fixed: Collection[str]) -> None:
    """Refuse bytes that hold a private word outside fixed text.

    Args:
        data: JSON that is about to leave the host.
        words: of this host.
        fixed: texts of the program; where a name or a value is one of these, it is not searched.

    Raises:
        NotTrustedError: naming the place and the kind of each word, never the word.
    """
    errors = []
    for place, text in _texts(load(data, "support"), ""):
        if text in fixed:
            continue
        lower = text.lower()
        for kind in sorted({word.kind for word in words if word.text in lower}):
            errors.append(
                NotTrustedError(
                    "support.private",
                    place or "the file",
                    expected="nothing that names a machine, a person or a key",
                    found=kind,
                    hint=f"nothing was written; to leave this fact out: --without {place}",
                )
            )
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, one in value.items():
            inner = f"{place}.{name}".lstrip(".")
            yield inner, name
            yield from _texts(one, inner)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, place)
    else:
        yield place, str(value)


def _host_names(root: Path) -> Iterator[PrivateWord]:
    names = [os.uname().nodename] if root == Path("/") else []
    names += [read_text(root / path).strip() for path in ("proc/sys/kernel/hostname", "etc/hostname")]
    names.append(read_text(root / "proc/sys/kernel/domainname").strip())
    for line in read_text(root / "etc/hosts").splitlines():
        names += [name for name in line.partition("#")[0].split()[1:] if name not in _STANDARD_HOSTS]
    for line in read_text(root / "etc/resolv.conf").splitlines():
        if line.split()[:1] in (["search"], ["domain"]):
            names += line.split()[1:]
    for name in names:
        for part in (name, *name.split(".")):
            if part not in _STANDARD_HOSTS and part != "(none)":
                yield PrivateWord(part.lower(), "the name of a machine")
    yield PrivateWord(read_text(root / "etc/machine-id").strip().lower(), "the number of this machine")
    for path in sorted((root / "sys/class/net").glob("*/address")):
        yield PrivateWord(read_text(path).strip().lower(), "the address of a network card")


def _people() -> Iterator[PrivateWord]:
    names = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")} - {"root"}
    for entry in pwd.getpwall():
        if entry.pw_uid >= _FIRST_PERSON and entry.pw_name not in _OWN_USERS:
            names |= {entry.pw_name, Path(entry.pw_dir).name, *_PARTS.split(entry.pw_gecos)}
    for name in sorted(names):
        yield PrivateWord(name.lower(), "the name of a person")


def _keys(prefix: Prefix) -> Iterator[PrivateWord]:
    for part in read_text(prefix.default_key).strip().split("-", 2):
        yield PrivateWord(part.lower(), "a part of a user's key")
    if not prefix.access.exists():
        return
    try:
        for key in AccessStore(prefix.access, is_read_only=True).list():
            yield PrivateWord(key.name.lower(), "the name of a user's key")
    except (ApplianceError, OSError):
        return  # another user's database: its names cannot be in what this user gathers


def _site(prefix: Prefix) -> Iterator[PrivateWord]:
    with suppress(ApplianceError):  # a file that is wrong: its name is not gathered
        yield PrivateWord(read_site(prefix.site_file).site, "the name of the site")
    path = prefix.etc / WORDS_FILE
    for line in _listed(path).splitlines():
        yield PrivateWord(line.strip().lower(), f"a word of {path}")


def _listed(path: Path) -> str:
    # A list that cannot be read must not count as an empty one. Some editors begin a text with a byte order mark.
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ApplianceError(
            "support.words-unreadable",
            str(path),
            expected="a list of words in UTF-8, which this user may read",
            found=error.strerror or type(error).__name__ if isinstance(error, OSError) else "other bytes",
            hint="nothing was written; mend the list, or run this as the user who may read it",
        ) from None
