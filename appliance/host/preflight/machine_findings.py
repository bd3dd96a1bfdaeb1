"""What preflight finds out about the rest of a machine: ports that are taken, and the package manager at work.

Owns the judgement of `appliance.host.preflight.surroundings`.

Rules:
- the port of the site may be held by the gateway that serves here: an upgrade takes it over;
- packages that are unpacked and not configured are finished by the install; half unpacked ones need a person;
- the package manager matters where the bundle brings a package that is absent or older here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import GATEWAY_UNIT
from appliance.host.preflight.finding import HostFinding, problem, warning
from appliance.host.preflight.surroundings import Listener, Surroundings
from appliance.host.site.config import SiteConfig

_EVERYWHERE = ("0.0.0.0", "::")
_GATEWAY = GATEWAY_UNIT.rpartition(".")[0]


def port_finding(prefix: Prefix, site: SiteConfig, around: Surroundings) -> HostFinding:
    """Whether the gateway can listen where the site states it, and who listens there.

    Args:
        prefix: the host.
        site: its address and port; port 0 is any free one.
        around: of this machine.
    """
    subject, required = f"port {site.port}", f"{site.bind} port {site.port} free, or held by the gateway"
    same_port = [one for one in around.listeners if one.port == site.port]
    taken = [one for one in same_port if site.bind in _EVERYWHERE or one.address in (site.bind, *_EVERYWHERE)]
    others = [one for one in taken if not _is_ours(prefix, site, one)]
    if site.port == 0 or not others:
        return HostFinding(subject, required, "held by the gateway" if taken else "free")
    measured = f"taken by {others[0].process}"
    if not prefix.is_system:
        return warning(subject, required, measured, "serve at another one: appliance serve --port PORT")
    return problem(subject, required, measured, f"end it, or write another port into {prefix.site_file}")


def tls_findings(prefix: Prefix, site: SiteConfig, now: datetime) -> list[HostFinding]:
    """Whether the gateway can serve with the site's certificate; nothing where the site has none."""
    if site.tls is None:
        return []
    from appliance.host.tls.certificates import tls_faults  # noqa: PLC0415 - without TLS, nothing loads X.509

    subject, required = "certificate", "files of `tls` that the gateway can serve with"
    faults = tls_faults(site.tls, now, site.bind)
    if not faults:
        return [HostFinding(subject, required, "right")]
    remedy = f"a new one: appliance tls renew{prefix.option}; or edit {prefix.site_file}"
    return [problem(subject, f"{one.name}: {one.expected}", one.found, remedy, "site.refused") for one in faults]


def _is_ours(prefix: Prefix, site: SiteConfig, listener: Listener) -> bool:
    if _GATEWAY in listener.process.groups:
        return True
    if listener.process.pid != 1:
        return False
    # systemd itself holds the port of a socket unit.
    try:
        served = json.loads((prefix.current / "config/gateway.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(served, dict) and (served.get("bind"), served.get("port")) == (site.bind, site.port)


def package_findings(around: Surroundings, wanted: Sequence[str] | None) -> list[HostFinding]:
    """Whether the package manager can install packages.

    Args:
        around: of this machine.
        wanted: names of the packages that would be installed; None where no bundle was named.
    """
    if wanted is not None and not wanted:
        return []
    return [_lock_finding(around, is_needed=bool(wanted)), _state_finding(around, is_needed=bool(wanted))]


def _lock_finding(around: Surroundings, *, is_needed: bool) -> HostFinding:
    subject, required = "package manager", "no other program that installs packages"
    if around.package_lock is None:
        return HostFinding(subject, required, "none")
    remedy = f"wait until {around.package_lock} has ended, then run it again"
    make = problem if is_needed else warning
    return make(subject, required, f"its lock is held by {around.package_lock}", remedy)


def _state_finding(around: Surroundings, *, is_needed: bool) -> HostFinding:
    subject, required = "packages", "none that an interrupted run left unfinished"
    if around.broken:
        make = problem if is_needed else warning
        measured = f"half unpacked: {', '.join(around.broken)}"
        return make(subject, required, measured, "apt-get --fix-broken install, then dpkg --audit")
    if around.unfinished:
        remedy = "the install configures them first; or run dpkg --configure --pending"
        return warning(subject, required, f"not configured: {', '.join(around.unfinished)}", remedy)
    return HostFinding(subject, required, "none")
