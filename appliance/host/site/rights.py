"""What a key may do beyond its list of models: the table `rights` of `access.db`.

Owns the columns, and their values as Python types. Which keys there are is for `appliance.host.site.api_keys`.

Rules:
- a key without a row has the rights of `Rights()`;
- a restriction that this version does not enforce is never ignored: the key may use no model then;
- a release that does not know this table reads the column `models` of `keys` alone, where NULL means all. A restricted
  key has an empty list there, and its own list here: a return to that release never gives it more;
- a later version that adds a restriction gives such a key an empty list here, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

Role = Literal["user", "auditor", "operator"]
KeyKind = Literal["person", "agent"]
SCHEMA = """
CREATE TABLE IF NOT EXISTS rights (
    key      TEXT PRIMARY KEY,
    role     TEXT NOT NULL,
    labels   TEXT,
    kind     TEXT NOT NULL,
    policy   TEXT,
    quotas   TEXT NOT NULL,
    priority INTEGER NOT NULL,
    strict   INTEGER NOT NULL,
    models   TEXT
)
"""
"""`key` is the id of the key; `labels` and `models` are JSON lists or NULL, `quotas` is a JSON object of numbers."""
ENFORCED = frozenset({"role", "quotas", "priority"})
"""The restrictions that this version enforces, by name of the field."""
TOKENS_PER_DAY, CONCURRENCY = "tokens_per_day", "concurrency"
QUOTAS = frozenset({TOKENS_PER_DAY, CONCURRENCY})
"""The quotas that this version enforces: tokens of prompts and answers from midnight to midnight UTC, and requests that
are answered at once."""
MAX_PRIORITY = 9
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key may do.

    Args:
        role: what it may see and change.
        labels: the labels of adapters and models that it may use; None where labels do not govern it.
        kind: who uses it: a person, also through a program, or an agent.
        policy: sha256 of an agent's policy; None for a person.
        quotas: upper limits by name, whole numbers.
        priority: 0 is the usual one; a key of priority N gets N + 1 shares of a busy engine, at most 10.
        strict: whether an answer waits until its line of the audit log is durable.
    """

    role: Role = "user"
    labels: frozenset[str] | None = None
    kind: KeyKind = "person"
    policy: str | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    priority: int = 0
    strict: bool = False

    @property
    def restrictions(self) -> frozenset[str]:
        """Names of the fields that differ from what every key had before there were rights."""
        usual = Rights()
        return frozenset(spec.name for spec in fields(self) if getattr(self, spec.name) != getattr(usual, spec.name))

    @property
    def is_enforced(self) -> bool:
        """Whether this version enforces every restriction."""
        is_known = frozenset(self.quotas) <= QUOTAS and 0 <= self.priority <= MAX_PRIORITY
        return is_known and self.restrictions <= ENFORCED

    @property
    def may_chat(self) -> bool:
        """Whether the role lets it send requests to models."""
        return self.role != "auditor"

    @property
    def may_audit(self) -> bool:
        """Whether the role lets it read the usage of every key."""
        return self.role in ("auditor", "operator")


def to_row(key_id: str, rights: Rights, models: frozenset[str] | None) -> tuple[Any, ...]:
    """The row of a key, in the order of the columns.

    Args:
        key_id: of the key.
        rights: of the key.
        models: the models that it may use; None for all.
    """
    return (
        key_id,
        rights.role,
        _to_list(rights.labels),
        rights.kind,
        rights.policy,
        json.dumps(dict(sorted(rights.quotas.items()))),
        rights.priority,
        int(rights.strict),
        _to_list(models),
    )


def from_row(row: tuple[Any, ...]) -> tuple[Rights, frozenset[str] | None]:
    """The rights and the models of a row.

    Args:
        row: all columns but `key`; untrusted.

    Raises:
        ValueError: a value that this version does not know.
    """
    role, labels, kind, policy, quotas, priority, strict, models = row
    limits = json.loads(quotas)
    is_known = role in get_args(Role) and kind in get_args(KeyKind) and type(priority) is int and strict in (0, 1)
    if not is_known or not (policy is None or _DIGEST.match(policy)):
        raise ValueError("a role, kind, policy, priority or strictness that this version does not know")
    if not isinstance(limits, dict) or not all(type(limit) is int and limit >= 0 for limit in limits.values()):
        raise ValueError("quotas that are no numbers")
    rights = Rights(role, _from_list(labels), kind, policy, limits, priority, bool(strict))
    return rights, _from_list(models)


def _to_list(names: frozenset[str] | None) -> str | None:
    return None if names is None else json.dumps(sorted(names))


def _from_list(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("a list that is none")
    return frozenset(names)
