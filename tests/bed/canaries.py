"""Programs that try to reach a network, each in one way: a ledger that stays at 0 under one of them is broken."""

from __future__ import annotations

from dataclasses import dataclass

CONNECT = "import socket; socket.create_connection(({address!r}, {port}), 3)"
SEND = "import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM).sendto(b'x', ({address!r}, {port}))"


@dataclass(frozen=True)
class Canary:
    """One way to try.

    Args:
        kind: the counter that must move.
        address: where it tries to go; a documentation address, or loopback for a stub resolver.
    """

    name: str
    kind: str
    address: str
    protocol: str
    port: int

    @property
    def argv(self) -> list[str]:
        """The program. It fails or not: what counts is what the ledger saw."""
        family = "AF_INET6" if ":" in self.address else "AF_INET"
        code = CONNECT if self.protocol == "tcp" else SEND
        return ["python3", "-c", code.format(family=family, address=self.address, port=self.port)]


CANARIES = (
    Canary("tcp", "ipv4", "192.0.2.1", "tcp", 443),
    Canary("udp", "ipv4", "192.0.2.1", "udp", 9000),
    Canary("ipv6-tcp", "ipv6", "2001:db8::1", "tcp", 443),
    Canary("ipv6-udp", "ipv6", "2001:db8::1", "udp", 9000),
    Canary("dns", "dns", "192.0.2.53", "udp", 53),
    Canary("dns-tcp", "dns", "192.0.2.53", "tcp", 53),
    Canary("dns-ipv6", "dns", "2001:db8::53", "udp", 53),
    Canary("dns-over-tls", "dns", "192.0.2.53", "tcp", 853),
    Canary("stub-resolver", "dns", "127.0.0.53", "udp", 53),
    Canary("multicast-dns", "dns", "224.0.0.251", "udp", 5353),
)
LOOKUP = ["python3", "-c", "import socket; socket.getaddrinfo('example.invalid', 443)"]
