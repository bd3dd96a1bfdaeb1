"""Whether the services of this host can have what the site has decided.

Owns the checks that need more than the site's file: the kind of host, and programs of the machine.
"""

from __future__ import annotations

from appliance.host.layout.prefix import Prefix
from appliance.host.process import nftables
from appliance.host.site.config import SiteConfig
from signing.errors import HostUnfitError, UsageError


def check_site(prefix: Prefix, site: SiteConfig) -> None:
    """Refuse settings of the site that services cannot have.

    Raises:
        UsageError: naming the field.
        HostUnfitError: packets are to be counted, and this machine has no nftables.
    """
    if prefix.is_system and site.port == 0:
        raise UsageError(
            "site.refused",
            f"{prefix.site_file} field port",
            expected="1 to 65535: users must find a service",
            found="0",
            hint=f"edit {prefix.site_file}, then apply it: appliance config apply{prefix.option}",
        )
    if prefix.is_system and site.egress == "count" and not nftables.is_there():
        raise HostUnfitError(
            "egress.no-nftables",
            f"{prefix.site_file} field egress",
            expected=f"{nftables.NFT}, which counts packets",
            found="no such program",
            hint="apt install nftables, or remove the field",
        )
