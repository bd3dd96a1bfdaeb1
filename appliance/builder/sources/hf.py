"""Files of a model hub, each at one commit.

Owns the address of a `hf:` source and the token for it. It must never follow a branch or a tag: only a new
lock looks up the newest commit.

Rules:
- the address and the person's token come from `huggingface_hub` (HF_ENDPOINT, HF_TOKEN and its login are honoured);
- the bytes come through `download`, like all others: continued, limited, hashed;
- the hub must name the requested commit in its answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from appliance.builder.sources import HfSource
from appliance.builder.sources.download import Remote, head
from signing.digest import Digest
from signing.errors import ApplianceError

_HEX = frozenset("0123456789abcdef")


def locate(source: HfSource, env: Mapping[str, str], size: int | None = None) -> Remote:
    """Where a file of the hub is.

    Args:
        source: the parsed source.
        env: the environment, for HF_ENDPOINT.
        size: in bytes, from the lock; None while the lock is made.

    Raises:
        ApplianceError: unreachable, no such file, a login is needed, or the hub answers for another commit.
    """
    url, headers = _address(source, source.commit, env)
    answer = head(url, source.text, headers).headers
    commit = answer.get("X-Repo-Commit", "")
    if commit != source.commit:
        raise ApplianceError(
            "source.wrong-commit",
            source.text,
            expected=source.commit,
            found=commit or "an answer that names no commit",
            hint="check HF_ENDPOINT: it does not speak for this repository",
        )
    linked_size = answer.get("X-Linked-Size", "")
    if size is None and re.fullmatch(r"[0-9]{1,15}", linked_size):
        size = int(linked_size)
    return Remote(url=url, subject=source.file, headers=headers, size=size, sha256=_digest(answer))


def newest(source: HfSource, env: Mapping[str, str]) -> HfSource:
    """The same source at the commit that its repository's main branch has now.

    Args:
        source: without a commit.
        env: the environment, for HF_ENDPOINT.

    Raises:
        ApplianceError: as `locate`, or the hub names no commit.
    """
    url, headers = _address(source, "main", env)
    commit = head(url, source.text, headers).headers.get("X-Repo-Commit", "")
    if len(commit) != 40 or not set(commit) <= _HEX:
        raise ApplianceError(
            "source.wrong-commit",
            source.text,
            expected="the commit of its main branch",
            found=commit[:80] or "an answer that names no commit",
            hint="check HF_ENDPOINT, or name a commit in the recipe",
        )
    return replace(source, commit=commit)


def _address(source: HfSource, revision: str, env: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    from huggingface_hub import get_token, hf_hub_url

    endpoint = env.get("HF_ENDPOINT", "").rstrip("/") or None
    url = hf_hub_url(source.repo, source.path, revision=revision, endpoint=endpoint)
    token = get_token()
    return url, {"Authorization": f"Bearer {token}"} if token else {}


def _digest(headers: Mapping[str, str]) -> Digest | None:
    # Big files carry their SHA-256 as the linked entity tag; small ones a git hash, which is no SHA-256 of the bytes.
    tag = headers.get("X-Linked-Etag", "").strip('W/"')
    return Digest(tag) if len(tag) == 64 and set(tag) <= _HEX else None
