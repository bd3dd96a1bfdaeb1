"""The proof that a machine has no network, which comes before any other test on it.

Rules:

- An attempt must fail at once because there is no way out (ENETUNREACH). A timeout would mean that a packet left.
- The proof has a control: the same machine with a network adapter fails it.
"""

from __future__ import annotations

import json

from tests.bed.host import BedError, Host

# Documentation addresses of both families, and where QEMU's own network would put this machine.
TARGETS = ("192.0.2.1", "2001:db8::1", "10.0.2.2")
_LOOK = """
import errno, json, os, socket, sys
def attempt(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(3)
        try:
            connection.connect((address, 443))
        except OSError as error:
            return errno.errorcode.get(error.errno, type(error).__name__)
    return "connected"
routes = [line.split()[0] for line in open("/proc/net/route").readlines()[1:]]
routes += [name for line in open("/proc/net/ipv6_route") if (name := line.split()[-1]) != "lo"]
print(json.dumps({
    "links": sorted(os.listdir("/sys/class/net")), "routes": sorted(set(routes)),
    "attempts": {address: attempt(address) for address in sys.argv[1:]},
}))
"""


class NotIsolatedError(BedError):
    """The machine has a network; nothing tested on it says anything about an air gap."""


def prove_isolated(host: Host) -> None:
    """Look at links and routes, and try to leave.

    Raises:
        NotIsolatedError: there is another link than loopback, a route, or an attempt that did not fail at once.
    """
    found = json.loads(host.run(["python3", "-I", "-c", _LOOK, *TARGETS]).out)
    expected = {"links": ["lo"], "routes": [], "attempts": dict.fromkeys(TARGETS, "ENETUNREACH")}
    if found != expected:
        raise NotIsolatedError(f"{host.name} is not isolated: {found}")
