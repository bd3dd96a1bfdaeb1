"""A network namespace from which every attempt to leave is refused at once, counted, and its destination kept.

Owns the fake uplink: a bare namespace would hide attempts, because nothing leaves where no route leads. Here a default
route leads to the loopback device, and a table of nftables counts what takes it. It never lets a packet out.

Rules:

- Counted: every packet for another address than 127.0.0.0/8, ::1, the namespace's own and its LAN.
- Counted too, to any address, loopback included: the ports of DNS, DNS over TLS and multicast DNS. A stub resolver on
  this machine would hide a lookup otherwise.
- The table belongs to a process outside the namespace: `nft flush ruleset` by root inside does not touch it.
- The network proves itself before it is used: one packet of its own must be counted.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.bed.cell import PATH, Cell
from tests.bed.host import BedError

TABLE = "bed_ledger"
DNS_PORTS = "53, 853, 5353"
OWN4, OWN6 = "10.66.0.1", "fd66::1"
# Documentation addresses (RFC 5737): no test may use this one.
PROBE = ("192.0.2.254", "udp", 9)
LOAD_S = 10
# Without a home, or it would keep a history of what was typed.
NFT_ENV = {"PATH": PATH, "HOME": "/nonexistent"}
COUNTER = re.compile(r"counter (\w+) \{\s+packets (\d+)")
ELEMENT = re.compile(r"([0-9a-f.:]+) \. (\w+) \. (\d+)")

UPLINK = f"""
ip -batch - <<END
link set lo up
addr add {OWN4}/32 dev lo
route add default dev lo src {OWN4}
END
[ ! -e /proc/net/if_inet6 ] || ip -batch - <<END
addr add {OWN6}/128 dev lo nodad
route add ::/0 dev lo src {OWN6}
END
"""

# Ends what still runs in the network, so that nothing in it can try any more: daemons too, whoever ended first.
CLEAR = r"""
name=$(readlink /proc/$$/ns/net | sed 's/[][]/\\&/g')
for round in 1 2 3 4 5 6 7 8 9; do
    killed=
    # The programs of this line are found too, and gone when it is done.
    for pid in $(find /proc/[0-9]*/ns/net -lname "$name" 2>/dev/null | cut -d/ -f3); do
        [ $pid = $$ ] || ! kill -KILL $pid 2>/dev/null || killed=yes
    done
    [ $killed ] || break
    sleep 0.02
done
"""

RULES = f"""
add table inet {TABLE} {{ flags owner; }}
add counter inet {TABLE} dns
add counter inet {TABLE} ipv4
add counter inet {TABLE} ipv6
add set inet {TABLE} seen4 {{ type ipv4_addr . inet_proto . inet_service; size 256; flags dynamic; }}
add set inet {TABLE} seen6 {{ type ipv6_addr . inet_proto . inet_service; size 256; flags dynamic; }}
add chain inet {TABLE} stop
add rule inet {TABLE} stop add @seen4 {{ ip daddr . meta l4proto . th dport }}
add rule inet {TABLE} stop add @seen6 {{ ip6 daddr . meta l4proto . th dport }}
add rule inet {TABLE} stop meta l4proto tcp reject with tcp reset
add rule inet {TABLE} stop reject with icmpx type no-route
add chain inet {TABLE} out {{ type filter hook output priority -400; policy accept; }}
add rule inet {TABLE} out meta l4proto {{ tcp, udp }} th dport {{ {DNS_PORTS} }} counter name dns goto stop
add rule inet {TABLE} out ip daddr {{ 127.0.0.0/8, {OWN4} }} accept
add rule inet {TABLE} out ip6 daddr {{ ::1, {OWN6} }} accept
LAN
add rule inet {TABLE} out meta nfproto ipv4 counter name ipv4 goto stop
add rule inet {TABLE} out meta nfproto ipv6 counter name ipv6 goto stop
"""


class NotIsolatedError(BedError):
    """The network is not what its tests rely on: something could leave it, or would not be counted."""


@dataclass(frozen=True, order=True)
class Destination:
    """Where an attempt went."""

    address: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.address} {self.protocol} {self.port}"


@dataclass(frozen=True)
class Attempts:
    """What tried to leave: packets by kind, and where to (the first 256 destinations)."""

    ipv4: int
    ipv6: int
    dns: int
    destinations: tuple[Destination, ...]

    @property
    def total(self) -> int:
        """All packets."""
        return self.ipv4 + self.ipv6 + self.dns

    def __str__(self) -> str:
        where = "".join(f"\n  {destination}" for destination in self.destinations)
        return f"{self.total} packets (IPv4 {self.ipv4}, IPv6 {self.ipv6}, DNS {self.dns}){where}"


class Network:
    """A network namespace with a counted uplink.

    Args:
        lan: the IPv4 network of the interface eth0, which somebody else attaches; packets to it are not counted.

    Raises:
        BedError: the machine refuses namespaces or nftables.
        NotIsolatedError: a packet of its own was not counted.
    """

    def __init__(self, lan: str | None = None) -> None:
        self.cell = Cell(["net"], prepare=UPLINK, finish=CLEAR)
        self._interfaces = {"lo"} if lan is None else {"lo", "eth0"}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the network)
        self._owner = subprocess.Popen(
            [*self.enter(), "nft", "--interactive"],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            text=True,
            env=NFT_ENV,
            start_new_session=True,
        )
        self._before = Attempts(0, 0, 0, ())
        try:
            self._load(lan)
            self.prove()
        except BaseException:
            self.close()
            raise

    def _load(self, lan: str | None) -> None:
        accept = "" if lan is None else f"add rule inet {TABLE} out ip daddr {lan} accept"
        rules = RULES.replace("LAN\n", f"{accept}\n" if accept else "")
        assert self._owner.stdin is not None
        self._owner.stdin.write(rules)
        self._owner.stdin.flush()
        end = time.monotonic() + LOAD_S
        # The last rule is there: so are the others.
        while 'counter name "ipv6"' not in self._table():
            if self._owner.poll() is not None or time.monotonic() > end:
                self._log.seek(0)
                raise BedError(f"nftables did not take the ledger's rules: {self._log.read()[-2000:]}")
            time.sleep(0.01)

    def _table(self) -> str:
        # Text, because the JSON of nft 1.0.6 is not valid for a table that has an owner.
        argv = [*self.enter(), "nft", "list", "table", "inet", TABLE]
        return subprocess.run(argv, capture_output=True, text=True, env=NFT_ENV).stdout

    def enter(self) -> list[str]:
        """The words to put before a command that shall run in this network; it replaces them."""
        return self.cell.enter()

    def prove(self) -> None:
        """Check that this is another network than the machine's, and that what would leave it is counted.

        Raises:
            NotIsolatedError: it is not.
        """
        require_isolated(self.cell.pid, self._interfaces)
        before = self._count()
        address, protocol, port = PROBE
        # A shell's socket: the packet is refused, so its exit code says nothing.
        probe = [*self.enter(), "bash", "-c", f"echo >/dev/{protocol}/{address}/{port}"]
        subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True)
        after = self._count()
        if after.ipv4 <= before.ipv4:
            raise NotIsolatedError(f"a packet for {address} was not counted: {after}")
        self._before = after

    def attempts(self) -> Attempts:
        """What tried to leave since the network was made."""
        now, before = self._count(), self._before
        known = set(before.destinations)
        return Attempts(
            now.ipv4 - before.ipv4,
            now.ipv6 - before.ipv6,
            now.dns - before.dns,
            tuple(destination for destination in now.destinations if destination not in known),
        )

    def _count(self) -> Attempts:
        table = self._table()
        packets = {match[1]: int(match[2]) for match in COUNTER.finditer(table)}
        if set(packets) != {"ipv4", "ipv6", "dns"}:
            raise NotIsolatedError("the ledger's counters are gone")
        seen = sorted({Destination(match[1], match[2], int(match[3])) for match in ELEMENT.finditer(table)})
        return Attempts(packets["ipv4"], packets["ipv6"], packets["dns"], tuple(seen))

    def close(self) -> None:
        """End what still runs in the namespace, and give it back. May be called twice."""
        assert self._owner.stdin is not None
        self._owner.stdin.close()
        try:
            self._owner.wait(5)
        except subprocess.TimeoutExpired:
            self._owner.kill()
            self._owner.wait()
        self._log.close()
        self.cell.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def interfaces(pid: int) -> set[str]:
    """The network interfaces that a process sees."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return {line.split(":")[0].strip() for line in lines}


def require_isolated(pid: int, allowed: set[str]) -> None:
    """Check that a process lives in another network than ours, with these interfaces and no others.

    Raises:
        NotIsolatedError: it does not.
    """
    if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        raise NotIsolatedError("it is in the network of this machine")
    if extra := interfaces(pid) - allowed:
        raise NotIsolatedError(f"it has a way out: {', '.join(sorted(extra))}")
