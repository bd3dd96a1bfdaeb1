"""How long the gateway's certificate is still valid, and what people read about it.

Owns the one rule: `WARN_DAYS` before the end it is a warning, and after the end a difference.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.tls.files import CertificateFacts, TlsFiles
from signing.errors import ApplianceError, DriftError, UsageError

WARN_DAYS = 30


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """The certificate that the site has named.

    Args:
        path: of its file.
        facts: what it states.
        days_left: whole days until it ends, or until one of those between it and its authority does; below 0 after it.
    """

    path: str
    facts: CertificateFacts
    days_left: int

    @property
    def is_near_end(self) -> bool:
        """Whether a person should renew it now."""
        return self.days_left < WARN_DAYS


def read_served(files: TlsFiles, now: datetime) -> ServedCertificate:
    """Read the certificate that the site has named.

    Args:
        files: of the site.
        now: the clock, in UTC.

    Raises:
        UsageError: its file holds none.
    """
    from appliance.host.tls import certificates  # noqa: PLC0415 - without TLS, nothing loads X.509

    try:
        chain = certificates.read_certificates(Path(files.certificate))
    except certificates.TlsFaultError as error:
        raise UsageError(
            "site.refused",
            "site.yaml field tls.certificate",
            expected=error.fault.expected,
            found=error.fault.found,
            hint="appliance tls create, or edit site.yaml",
        ) from None
    end = min(one.not_valid_after_utc for one in chain)
    return ServedCertificate(files.certificate, certificates.describe_certificate(chain[0]), (end - now).days)


def describe_served(served: ServedCertificate, option: str) -> str:
    """One line for people: until when, and what to do near the end.

    Args:
        served: the certificate.
        option: that names the host in a command.
    """
    line = f"until {served.facts.ends:%Y-%m-%dT%H:%M:%SZ}, {served.days_left} days left"
    return f"{line}: renew it now: appliance tls renew{option}" if served.is_near_end else line


def describe_json(served: ServedCertificate) -> dict[str, object]:
    """The certificate as JSON, for programs."""
    facts = served.facts
    return {
        "certificate": served.path,
        "names": list(facts.names),
        "addresses": list(facts.addresses),
        "ends": f"{facts.ends:%Y-%m-%dT%H:%M:%SZ}",
        "days_left": served.days_left,
        "sha256": facts.sha256,
    }


def certificate_problems(files: TlsFiles, now: datetime, option: str) -> list[ApplianceError]:
    """List what keeps users from a gateway that serves: an expired certificate, or files that do not fit together.

    Args:
        files: of the site.
        now: the clock, in UTC.
        option: that names the host in a command.
    """
    from appliance.host.tls.certificates import tls_faults  # noqa: PLC0415 - without TLS, nothing loads X.509

    return [
        DriftError(
            "tls.unusable",
            f"site.yaml field tls.{fault.name}",
            expected=fault.expected,
            found=fault.found,
            hint=f"appliance tls renew{option}, or put the right file there",
        )
        for fault in tls_faults(files, now)
        if fault.name != "key" or _may_read(files.key)
    ]


def _may_read(key: str) -> bool:
    # Users who are not root see the rest, and a key that they cannot read is no difference.
    return os.access(key, os.R_OK) or not os.path.lexists(key)
