"""What preflight finds out about the system: its kind and libraries, the processor, the services and the clock.

Owns the comparison of the machine's card with the contents' `targets` and `needs`. No clock prevents anything: one that
is behind is a warning (threat T27).
"""

from __future__ import annotations

from datetime import datetime

from appliance.host.machine.card import System
from appliance.host.machine.libraries import version_key
from appliance.host.preflight.finding import HostFinding, judged, warning
from appliance.host.preflight.inputs import Host
from appliance.host.process import systemctl
from bundles.contents.contents import Contents

MAX_HOST_NAME = 63
"""Characters of a host name: a longer one fits into no label of a certificate."""


def system_findings(contents: Contents, system: System) -> list[HostFinding]:
    """Compare the system and its libraries with what a bundle is for."""
    targets = [f"{target.os} {target.arch}" for target in contents.targets]
    here, needs = f"{system.os} {system.arch}", contents.needs
    remedy = "build this bundle for this system: field targets"
    found = [judged(here in targets, "system", ", ".join(targets), here, remedy)]
    for name, wanted, version in (
        ("glibc", needs.glibc, system.glibc),
        ("libstdc++ GLIBCXX", needs.glibcxx, system.glibcxx),
        ("libstdc++ CXXABI", needs.cxxabi, system.cxxabi),
    ):
        if wanted:
            is_met = version_key(version) >= version_key(wanted)
            remedy = "apt install libstdc++6" if not version else "build the runtime on a system as old as this one"
            found.append(judged(is_met, name, f"{wanted} or newer", version or "none", remedy))
    return found


def service_findings(host: Host) -> list[HostFinding]:
    """Whether this user may install services here, and systemd can run them. For a whole machine only."""
    user = "root" if host.is_root else "another user"
    found = [judged(host.is_root, "user", "root", user, "run it as root, or install below --prefix DIR")]
    version, least = host.card.system.systemd, systemctl.MIN_VERSION
    found.append(
        judged(
            version_key(version) >= (least,),
            "services",
            f"systemd {least} or newer",
            f"systemd {version}" if version else "no systemd",
            "install below --prefix DIR, and start `appliance serve`",
        )
    )
    return found


def cpu_finding(contents: Contents, variants: tuple[str, ...]) -> HostFinding:
    """Whether the processor has what one of the runtime's variants needs."""
    required = f"one of {', '.join(contents.needs.cpu_variants)}"
    return judged(bool(variants), "cpu", required, ", ".join(variants) or "none fits", "use a newer machine")


def name_finding(host_name: str) -> HostFinding:
    """Whether the machine's name fits into units, sockets and certificates."""
    length = len(host_name)
    required = f"1 to {MAX_HOST_NAME} characters"
    is_met = 1 <= length <= MAX_HOST_NAME
    return judged(is_met, "host name", required, f"{length} characters", "hostnamectl set-hostname NAME")


def clock_finding(now: datetime, floor_time: str) -> HostFinding:
    """Compare the clock with the newest time that signed files prove."""
    text = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    required = f"not before {floor_time}, which signed files prove" if floor_time else "any time"
    if text >= floor_time:
        return HostFinding("clock", required, text)
    return warning("clock", required, text, "set the clock; it prevents nothing")
