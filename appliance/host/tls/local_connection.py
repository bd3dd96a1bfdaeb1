"""A connection of this host's own programs to its gateway, for checks of its health.

Owns how they connect: in plain http, or by TLS with the very certificate that the site has named. No check of the
certificate is turned off: it must be that one, be valid now, and have the name that is asked for.
"""

from __future__ import annotations

import http.client
import ssl
from ipaddress import ip_address
from pathlib import Path

from appliance.host.tls.files import TlsFiles


class PinnedConnection(http.client.HTTPConnection):
    """A connection by TLS that trusts one certificate and no authority.

    Args:
        host, port: of the gateway.
        certificate: PEM; the first one in it is trusted.
        timeout: in seconds, of each step.
    """

    def __init__(self, host: str, port: int, certificate: Path, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._certificate = certificate

    def connect(self) -> None:
        """Connect.

        Raises:
            OSError: nobody listens, or the certificate is not the trusted one.
        """
        from appliance.host.tls import certificates  # noqa: PLC0415 - without TLS, nothing loads X.509

        try:
            leaf = certificates.read_certificates(self._certificate)[0]
        except certificates.TlsFaultError as error:
            raise OSError(str(error)) from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=certificates.to_der(leaf))
        super().connect()
        self.sock = context.wrap_socket(self.sock, server_hostname=certificates.describe_certificate(leaf).server_name)


def connect_locally(bind: str, port: int, tls: TlsFiles | None, timeout: float) -> http.client.HTTPConnection:
    """A connection to the gateway of this host; it connects with the first request.

    Args:
        bind: the address that the gateway listens on.
        port: its port.
        tls: the site's files; None where the gateway speaks plain http.
        timeout: in seconds, of each step.
    """
    host = local_address(bind)
    if tls is None:
        return http.client.HTTPConnection(host, port, timeout=timeout)
    return PinnedConnection(host, port, Path(tls.certificate), timeout)


def local_address(bind: str) -> str:
    """The address by which this host reaches what listens on `bind`: loopback where that is every address."""
    address = ip_address(bind)
    if not address.is_unspecified:
        return bind
    return "127.0.0.1" if address.version == 4 else "::1"


def format_url(host: str, port: int, *, is_tls: bool) -> str:
    """The URL of a gateway, for example `https://127.0.0.1:8443`."""
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
