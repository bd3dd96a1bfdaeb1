"""Whether the services of this host can have what the site has decided.

Owns the checks that need more than the site's file: the kind of host, and programs of the machine.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.process import nftables
from appliance.host.site.config import SiteConfig
from appliance.host.tls.files import TLS_FOLDER, TlsFiles
from signing.errors import HostUnfitError, UsageError


def check_site(prefix: Prefix, site: SiteConfig, now: datetime) -> None:
    """Refuse settings of the site that services cannot have.

    Args:
        prefix: the host.
        site: its configuration.
        now: the clock, in UTC, for certificates.

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
    if site.tls is not None:
        from appliance.host.tls.certificates import require_usable  # noqa: PLC0415 - without TLS, nothing loads X.509

        check_places(prefix, site.tls)
        require_usable(site.tls, now, site.bind, str(prefix.site_file), prefix.option)


def check_models(prefix: Prefix, site: SiteConfig, names: Iterable[str]) -> None:
    """Refuse a decision about a model that the bundle does not have: without effect, it would mislead.

    Args:
        prefix: the host.
        site: its configuration.
        names: of the bundle's models.

    Raises:
        UsageError: naming the model, with those that there are.
    """
    known = sorted(names)
    errors = [
        UsageError(
            "site.refused",
            f"{prefix.site_file} field models.{name}",
            expected=f"one of {', '.join(known)}",
            found="no such model in the bundle",
            hint=f"edit {prefix.site_file}",
        )
        for name in site.models
        if name not in known
    ]
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]


def check_places(prefix: Prefix, files: TlsFiles) -> None:
    """Refuse files of TLS in other folders of a whole machine than the one whose owners this program looks after.

    Raises:
        UsageError: naming the field.
    """
    folder = prefix.etc / TLS_FOLDER
    for name, path in files.to_json().items():
        if prefix.is_system and Path(path).parent != folder:
            raise UsageError(
                "site.refused",
                f"{prefix.site_file} field tls.{name}",
                expected=f"a file in {folder}",
                found=path,
                hint=f"install -m {'0600' if name == 'key' else '0644'} {shlex.quote(path)} {folder}/",
            )
