"""A network that is not isolated, for the controls of the beds: another machine answers there."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType

from tests.bed.cell import PATH, Cell
from tests.bed.network import Network
from tests.bed.tools import call

OUTSIDE = "198.51.100.1"
INSIDE = "198.51.100.2"
PORT = 8080
ENV = {"PATH": PATH}
# A cable that was just laid may lose its first packet: the kernel sends it again after one second, and after three.
ASK = f"import socket; socket.create_connection(('{OUTSIDE}', {PORT}), 8); print('reached')"


class Outside:
    """A machine that answers on TCP port 8080, and cables to it."""

    def __init__(self) -> None:
        self.cell = Cell(["net"], prepare="ip link set lo up")
        listen = (
            f"import socket; s = socket.create_server(('', {PORT})); print('ready', flush=True)\nwhile True: s.accept()"
        )
        self._server = subprocess.Popen(
            [*self.cell.enter(), "--", sys.executable, "-c", listen], stdout=subprocess.PIPE, text=True
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline().strip() == "ready"

    def cable(self, cell: Cell, name: str) -> None:
        """Lay a cable into another network, where its end has a name and no address yet."""
        ends = ["ip", "link", "add", "line", "type", "veth", "peer", "name", name, "netns", str(cell.pid)]
        call([*self.cell.enter(), "--", *ends], env=ENV)
        self.address(OUTSIDE)
        call([*self.cell.enter(), "--", "ip", "link", "set", "line", "up"], env=ENV)

    def address(self, address: str) -> None:
        """Answer at this address."""
        call([*self.cell.enter(), "--", "ip", "addr", "add", f"{address}/24", "dev", "line"], env=ENV)

    def close(self) -> None:
        """End it."""
        self._server.kill()
        self._server.communicate()
        self.cell.close()

    def __enter__(self) -> Outside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OpenNetwork(Network):
    """A network with a cable to the outside and no ledger: the isolation of a bed, removed."""

    def __init__(self, outside: Outside) -> None:
        self.cell = Cell(["net"], prepare="ip link set lo up")
        open_way_out(self.cell, outside)

    def close(self) -> None:
        """Give it back."""
        self.cell.close()


def open_way_out(cell: Cell, outside: Outside) -> None:
    """Connect a network to the outside, by its default route."""
    outside.cable(cell, "wan0")
    lines = f"""
        ip addr add {INSIDE}/24 dev wan0
        ip link set wan0 up
        ip route replace default via {OUTSIDE} dev wan0
    """
    call([*cell.enter(), "--", "sh", "-ec", lines], env=ENV)
