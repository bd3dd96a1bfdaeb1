"""Room for connections: those that wait for a request never keep out those that bring one (threat T153).

Owns how many connections there are, from the moment in which each is accepted, before its handshake. Rules:
- a connection on which a request is being answered stays, whatever comes;
- there are at most `MAX_CONNECTIONS`. When another one comes, one that waits is closed for it: the oldest of the
  address that has most of them. Who opens many thus closes its own;
- a machine with an IPv6 address has a whole network of them (RFC 6177): its first 64 bits count as one address.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections import defaultdict

MAX_CONNECTIONS = 960
CLOSED_AT_ONCE = 32
"""How many are closed before the event loop gets its turn, and gives their descriptors back."""


class Crowd:
    """The connections of a gateway, each under the number of its descriptor.

    Args:
        limit: how many there may be.
    """

    def __init__(self, limit: int = MAX_CONNECTIONS) -> None:
        self.limit = limit
        self._waiting: defaultdict[str, dict[int, socket.socket]] = defaultdict(dict)
        self._busy: dict[int, socket.socket] = {}
        self._addresses: dict[int, str] = {}

    @property
    def size(self) -> int:
        """How many connections there are."""
        return len(self._addresses)

    def enter(self, connection: socket.socket, address: str) -> bool:
        """Take a connection that has just been accepted; it waits.

        Args:
            connection: accepted.
            address: of its client; "" where that has none.

        Returns:
            Whether another one was closed for it.
        """
        number = connection.fileno()
        self.leave(number)  # the kernel gives the number of a closed one again
        if self.size >= self.limit:
            self._forget_closed()
        has_closed = self.size >= self.limit and self.make_room()
        self._addresses[number] = _network(address)
        self._waiting[self._addresses[number]][number] = connection
        return has_closed

    def begin(self, number: int) -> None:
        """A request has come: this connection stays until `rest`."""
        address = self._addresses.get(number)
        if address is not None and (connection := self._take(address, number)) is not None:
            self._busy[number] = connection

    def rest(self, number: int) -> None:
        """Its answer is complete: the connection waits again, as the youngest."""
        connection = self._busy.pop(number, None)
        if connection is not None:
            self._waiting[self._addresses[number]][number] = connection

    def leave(self, number: int) -> None:
        """The connection has ended."""
        address = self._addresses.pop(number, None)
        if address is not None:
            self._busy.pop(number, None)
            self._take(address, number)

    def make_room(self) -> bool:
        """Close the oldest waiting connection of the address that has most of them; false where none waits."""
        if not self._waiting:
            return False
        address = max(self._waiting, key=lambda name: len(self._waiting[name]))
        number, connection = next(iter(self._waiting[address].items()))
        self.leave(number)
        # The event loop reads an end, and closes it.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        return True

    def _take(self, address: str, number: int) -> socket.socket | None:
        line = self._waiting.get(address, {})
        connection = line.pop(number, None)
        if not line:
            self._waiting.pop(address, None)
        return connection

    def _forget_closed(self) -> None:
        """Forget those whose handshake has failed: nothing reports their end."""
        kept = [self._busy, *self._waiting.values()]
        for number in [number for line in kept for number, found in line.items() if found.fileno() < 0]:
            self.leave(number)


class Door(socket.socket):
    """A listening socket whose connections are those of a crowd."""

    crowd: Crowd
    _closed = 0

    def accept(self) -> tuple[socket.socket, object]:
        """Accept a connection; see socket.

        Raises:
            BlockingIOError: none waits, or the event loop must close others first.
        """
        if self._closed >= CLOSED_AT_ONCE:
            raise BlockingIOError
        connection, address = super().accept()
        if self.crowd.enter(connection, address[0] if isinstance(address, tuple) else ""):
            if not self._closed:
                asyncio.get_running_loop().call_soon(self._forget)
            self._closed += 1
        return connection, address

    def _forget(self) -> None:
        self._closed = 0


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
