"""The place of a bundle in a registry: scheme, host, repository and tag.

Owns how a person writes it. It must never connect.

Rules:
- https, and plain http for this machine alone: nobody can listen on a loopback address from outside;
- no user and no password in it: other users can see command lines.

Source: OCI distribution specification 1.1, "Pulling manifests" (the grammar of names and tags).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from signing.errors import UsageError

_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<scheme>https?)://)?(?P<host>\[[0-9a-fA-F:]+\](?::\d{{1,5}})?|[A-Za-z0-9.-]{{1,253}}(?::\d{{1,5}})?)/"
    rf"(?P<repository>{_NAME}(?:/{_NAME})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?\Z"
)
EXAMPLE = "registry.example:5000/models/smollm2:1.0.0"


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in a registry; `tag` is empty where none was named."""

    scheme: str
    host: str
    repository: str
    tag: str = ""

    @property
    def base(self) -> str:
        """The address that every request of this repository starts with."""
        return f"{self.scheme}://{self.host}/v2/{self.repository}"

    def with_tag(self, tag: str) -> Reference:
        """The same place, with this tag where none was named.

        Raises:
            UsageError: a registry takes no such tag.
        """
        return self if self.tag else parse_reference(f"{replace(self, tag=tag)}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}/{self.repository}{':' + self.tag if self.tag else ''}"


def parse_reference(text: str) -> Reference:
    """Parse a reference as a person wrote it.

    Args:
        text: `[https://]HOST[:PORT]/NAME[:TAG]`.

    Raises:
        UsageError: not of this form, or plain http to another machine.
    """
    match = _REFERENCE.match(text)
    if match is None:
        # A text with @ may hold a password, and is not repeated.
        found = "something else" if "@" in text else repr(text[:120])
        raise UsageError(
            "registry.reference", "REGISTRY", expected=f"HOST/NAME:TAG, for example {EXAMPLE}", found=found
        )
    reference = Reference(match["scheme"] or "https", match["host"], match["repository"], match["tag"] or "")
    if not may_connect(reference.scheme, reference.host):
        raise UsageError(
            "registry.plain-http",
            str(reference),
            expected="https",
            found="plain http to another machine",
            hint="name it with https://, or reach it through a tunnel that ends on this machine",
        )
    return reference


def may_connect(scheme: str, host: str) -> bool:
    """Whether this program may connect: by https, or to this machine.

    Args:
        scheme: of an address.
        host: with or without a port.
    """
    name = re.sub(r":\d+\Z", "", host).strip("[]")
    if scheme == "https" or name == "localhost":
        return scheme in ("http", "https")
    try:
        return scheme == "http" and ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
