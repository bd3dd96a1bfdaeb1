"""A site: several test hosts on one switch, which reach each other and nothing else.

Owns the switch, a bridge in a network namespace without a name, without an uplink, a router or a resolver. Each host
has a network of its own (`network.Network`) with one cable into the switch; what it sends elsewhere is refused and
counted.

Rules:

- The first host is the control node: its key opens root on all hosts, itself included.
- IPv6 is off on the cables: the kernel's own neighbour discovery would be noise in the ledger.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from tests.bed.cell import PATH, Cell
from tests.bed.network import Network, NotIsolatedError, interfaces, require_isolated
from tests.bed.nspawn import NspawnHost
from tests.bed.tools import call

LAN = "10.77.0"
ENV = {"PATH": PATH}
SWITCH = "ip link add br0 type bridge; ip link set br0 up"
KEY = "/root/.ssh/id_ed25519"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"


class Fleet:
    """Fresh hosts on one switch, booted, with ssh from the first to all. Use it in a `with` block.

    Args:
        tree: their root file system.
        size: how many hosts, 1 to 250.

    Raises:
        BedError: one of them did not boot.
    """

    def __init__(self, tree: Path, size: int = 3) -> None:
        self.hosts: list[NspawnHost] = []
        self._networks: list[Network] = []
        self.switch = Cell(["net"], prepare=SWITCH)
        try:
            for number in range(1, size + 1):
                self._networks.append(self._connect(number))
            with ThreadPoolExecutor(size) as pool:
                booting = [pool.submit(NspawnHost, tree, network=network) for network in self._networks]
            # All are taken over before the first error is raised, so that all are closed.
            self.hosts = [one.result() for one in booting if one.exception() is None]
            for one in booting:
                one.result()
            self.prove()
            self._open_ssh()
        except BaseException:
            self.close()
            raise

    @property
    def addresses(self) -> list[str]:
        """The hosts' IPv4 addresses, in the order of `hosts`."""
        return [_address(number) for number in range(1, len(self._networks) + 1)]

    def _connect(self, number: int) -> Network:
        network = Network(lan=f"{LAN}.0/24")
        port = f"port{number}"
        try:
            cable = ["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(network.cell.pid)]
            call([*self.switch.enter(), "--", *cable], env=ENV)
            call([*self.switch.enter(), "--", "ip", "link", "set", port, "master", "br0", "up"], env=ENV)
            script = (
                "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip addr add $0/24 dev eth0; ip link set eth0 up"
            )
            call([*network.enter(), "--", "sh", "-ec", script, _address(number)], env=ENV)
        except BaseException:
            network.close()
            raise
        return network

    def _open_ssh(self) -> None:
        control = self.hosts[0]
        control.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])
        public = control.run(["cat", f"{KEY}.pub"]).out.strip()
        known = []
        for host, address in zip(self.hosts, self.addresses, strict=True):
            script = f"""
                mkdir -p -m 700 /root/.ssh && echo "$0" >>/root/.ssh/authorized_keys
                ssh-keygen -q -t ed25519 -N "" -f {HOST_KEY} && systemctl --quiet start ssh && cat {HOST_KEY}.pub
            """
            known.append(f"{address} {host.run(['sh', '-ec', script, public]).out}")
        control.run(["sh", "-ec", 'printf "%s" "$0" >/root/.ssh/known_hosts', "".join(known)])

    def prove(self) -> None:
        """Check that nothing but the hosts is on the switch, and that each has no other way out.

        Raises:
            NotIsolatedError: it is not so.
        """
        expected = {"lo", "br0", *(f"port{number}" for number in range(1, len(self._networks) + 1))}
        if extra := interfaces(self.switch.pid) - expected:
            raise NotIsolatedError(f"the switch has a way out: {', '.join(sorted(extra))}")
        for host in self.hosts:
            require_isolated(host.leader, {"lo", "eth0"})

    def namespaces(self) -> frozenset[str]:
        """The kernel's names of all namespaces of the site."""
        return self.switch.namespaces.union(*(host.namespaces() for host in self.hosts))

    def close(self) -> None:
        """End all hosts and the switch. May be called twice."""
        for host in self.hosts:
            host.close()
        for network in self._networks:
            network.close()
        self.switch.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _address(number: int) -> str:
    return f"{LAN}.{number}"
