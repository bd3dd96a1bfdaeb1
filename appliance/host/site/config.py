"""`site.yaml`: what the site has decided about serving (docs/architecture.md, The host).

Owns the schema, the defaults and the parser. A person writes this file, so an error names the field, its allowed values
and its value. No field can weaken a check.

Rules:
- an unknown field is an error;
- the names of fields that later versions read are reserved. Such a field is refused, too, for it would have no effect.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundles.attestation.expiry_override import SITE_NAME
from signing.digest import Digest, sha256
from signing.errors import UsageError

MAX_BYTES = 64 << 10
NO_FILE = sha256(b"")
_FIELDS = ("bind", "port", "slots", "context", "site")
RESERVED = ("tls", "cors", "keys", "models", "trial", "retention", "energy", "agents")
"""Fields of later versions; `models` will hold `keep`, `pin` and `min_level`."""


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """The decisions of a site.

    Args:
        bind: the loopback address that the gateway listens on.
        port: its port; 0 takes a free port at each start.
        slots: conversations at the same time for each engine; None where the bundle decides.
        context: largest number of tokens of one conversation; None where the bundle decides.
        digest: sha256 of the file, or of no bytes where there is no file.
        data: the bytes of the file; none where there is no file.
        site: the name of the site, which an expiry override may name (TRUST 12); empty where it has none.
    """

    bind: str = "127.0.0.1"
    port: int = 8443
    slots: int | None = None
    context: int | None = None
    digest: Digest = NO_FILE
    data: bytes = field(default=b"", compare=False, repr=False)
    site: str = ""


def read_site(path: Path) -> SiteConfig:
    """Read the site's file; the defaults where there is none.

    Raises:
        UsageError: the file is no YAML, or has unknown fields or values out of range; all are reported at once.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return SiteConfig()
    except OSError as error:
        raise _error(path, "", "a file that can be read", error.strerror or "") from None
    return parse_site(data, path)


def parse_site(data: bytes, path: Path = Path("site.yaml")) -> SiteConfig:
    """Parse the content of a site's file.

    Args:
        data: of at most `MAX_BYTES`, or it is refused.
        path: for errors.

    Raises:
        UsageError: as `read_site`.
    """
    values = _mapping(data, str(path))
    errors = [_unknown(path, name) for name in sorted(set(values) - {*_FIELDS})]
    bind, port = values.get("bind", "127.0.0.1"), values.get("port", 8443)
    if not _is_loopback(bind):
        errors.append(_error(path, "bind", "a loopback address such as 127.0.0.1", repr(bind)))
    if not _is_whole(port, 0, 65535):
        errors.append(_error(path, "port", "0 to 65535", repr(port)))
    for name, least, most in (("slots", 1, 256), ("context", 64, 1 << 24)):
        if name in values and not _is_whole(values[name], least, most):
            errors.append(_error(path, name, f"{least} to {most}", repr(values[name])))
    site = values.get("site", "")
    if "site" in values and not (isinstance(site, str) and SITE_NAME.match(site)):
        errors.append(_error(path, "site", "a name of a-z 0-9 . _ -, at most 63 characters", repr(site)))
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]
    slots, context = values.get("slots"), values.get("context")
    return SiteConfig(str(bind), int(str(port)), slots, context, sha256(data), data, str(site))


def _unknown(path: Path, name: str) -> UsageError:
    if name in RESERVED:
        expected, found = "no such field yet: a later version of this program reads it", "a field without effect here"
    else:
        expected, found = f"one of {', '.join(_FIELDS)}", "an unknown field"
    return _error(path, name, expected, found)


def _mapping(data: bytes, subject: str) -> dict[str, Any]:
    import yaml

    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        value = yaml.safe_load(data.decode("utf-8", "strict"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _error(Path(subject), "", "YAML", " ".join(str(error).split())[:200]) from None
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise _error(Path(subject), "", "fields and values", type(value).__name__)
    return value


def _is_loopback(value: object) -> bool:
    try:
        return isinstance(value, str) and ipaddress.ip_address(value).is_loopback
    except ValueError:
        return False


def _is_whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _error(path: Path, name: str, expected: str, found: str) -> UsageError:
    subject = f"{path} field {name}" if name else str(path)
    return UsageError("site.refused", subject, expected=expected, found=found, hint=f"edit {path}, then install again")
