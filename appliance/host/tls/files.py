"""The files of TLS that a site has named: its certificate, the key of that, and the authority of its users.

Owns their form in the rendered configuration and in the plan of the gateway, and what is stated of a certificate. It
must never read the files themselves: commands without TLS do without the library that can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

TLS_FOLDER = "tls"
"""Of the folder of the site's configuration."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the gateway finds what it needs for TLS; every path is absolute.

    Args:
        certificate: PEM, the gateway's own certificate first, then those between it and its authority.
        key: PEM, the private key of the first certificate.
        client_ca: PEM, the authorities whose certificates users must show beside their key; empty where none must.
    """

    certificate: str
    key: str
    client_ca: str = ""

    def to_json(self) -> dict[str, str]:
        """The value as JSON, without fields that are empty."""
        value = {"certificate": self.certificate, "key": self.key, "client_ca": self.client_ca}
        return {name: path for name, path in value.items() if path}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TlsFiles | None:
        """Read what `to_json` wrote; None for a value without a certificate.

        Raises:
            ValueError: it has other fields, or one that is no absolute path.
        """
        if not value:
            return None
        if not {"certificate", "key"} <= set(value) <= {"certificate", "key", "client_ca"}:
            raise ValueError(f"fields {', '.join(sorted(map(str, value)))[:200]}")
        for name, path in value.items():
            if not isinstance(path, str) or not path.startswith("/"):
                raise ValueError(f"{name} {path!r}"[:200])
        return cls(**value)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What people need to know of a certificate.

    Args:
        names: host names that it is for, with `*.` where it stands for one label.
        addresses: IP addresses that it is for.
        begins, ends: when it is valid, in UTC.
        sha256: of the certificate, as hexadecimal digits.
    """

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    begins: datetime
    ends: datetime
    sha256: str

    @property
    def server_name(self) -> str:
        """A name that a client may ask for: a host name, else an address."""
        for name in (*self.names, *self.addresses):
            return f"name{name[1:]}" if name.startswith("*.") else name
        return ""
