"""The files of TLS that a site has named: its certificate, the key of that, and the authority of its users.

Owns their form in the rendered configuration and in the plan of the gateway. It must never read the files themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
