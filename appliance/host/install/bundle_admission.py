"""Whether a bundle may be installed: its chain of trust, the machine, and the site's configuration.

Owns the checks of an install before it writes anything, and the pinning of a newer root after it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from appliance.host.install.bundle_parts import check_parts
from appliance.host.install.install_inputs import Host
from appliance.host.install.preflight import PreflightResult, check_host
from appliance.host.layout.places import OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.models.fit import ModelWorkload
from appliance.host.models.model_head import head_of_bundle
from appliance.host.release.release import Release
from appliance.host.site.config import SiteConfig, read_site
from appliance.host.trust.expiry_exemption import Exemption, exempt
from appliance.host.trust.metadata_store import open_newest
from appliance.host.trust.root_pin import check_first_root
from appliance.host.trust.trust_store import read_floors, read_root, write_root
from bundles.bundle import Bundle, open_bundle
from bundles.contents.contents import Contents
from bundles.gguf.memory import Workload
from bundles.medium_check import check_medium
from bundles.oci.layout import Layout
from signing.digest import sha256
from signing.errors import DamagedError, NotTrustedError, UsageError
from signing.verified import Verified


def admit(source: Path, trust: bytes, host: Host) -> Verified[Bundle]:
    """Verify the bundle of a medium, and check that this program applies every part of it.

    Raises:
        ApplianceError: as `verify_medium`; or it has a part that this program does not apply.
    """
    found = verify_medium(source, trust, host)
    check_parts(found.value.contents)
    return found


def verify_medium(source: Path, trust: bytes, host: Host) -> Verified[Bundle]:
    """Verify the bundle of a medium by the newest metadata of the medium and of this host.

    Args:
        source: untrusted.
        trust: bytes of the root to verify against; the root that this host has pinned must cover the bundle, too.
        host: where it would be installed.

    Returns:
        The bundle; it may be installed here, by a program that applies all of its parts.

    Raises:
        NotTrustedError: a root for real use is not pinned here, a chain of trust does not cover the bundle, it has
            expired and is not installed yet, or something on the medium is what `verify` refuses.
        DamagedError: a file of the chain cannot be read, or `BOOT/` is damaged.
    """
    if not host.is_root_compared:
        check_first_root(host.prefix, trust)
    floors, now = read_floors(host.prefix), host.now()
    found = open_newest(source, trust, floors, now, host.prefix)
    pinned = read_root(host.prefix)
    if pinned is not None and pinned != trust:
        # A root that a person names does not replace the pinned one: both must cover the bundle.
        other = open_newest(source, pinned, floors, now, host.prefix)
        if other.value.manifest != found.value.manifest:
            raise NotTrustedError(
                "install.two-bundles", str(source), expected=found.value.manifest, found=other.value.manifest
            )
    if needs_exemption(host, found) and expiry_exemption(host, found) is None:
        moment, role = found.evidence.expires
        raise NotTrustedError(
            "install.expired",
            str(source),
            expected=f"metadata that is valid at {found.evidence.floors.time}",
            found=f"{role} expired at {moment}",
            hint="ask for a newer stick, or for an expiry override: appliance install --override FILE; "
            "what is installed goes on serving",
        )
    check_medium(Layout(source), (found,))
    return found


def needs_exemption(host: Host, found: Verified[Bundle]) -> bool:
    """Whether a bundle has expired and is not installed yet."""
    return found.evidence.is_expired and not (release_path(host.prefix, found.value) / OK_FILE).exists()


def expiry_exemption(host: Host, found: Verified[Bundle]) -> Exemption | None:
    """The override that lifts the expiry of a bundle; None where nothing is lifted, or none was handed in.

    Raises:
        NotTrustedError: the override that was handed in does not hold for this bundle here.
        UsageError: the site's file is wrong.
    """
    if host.override is None or not needs_exemption(host, found):
        return None
    return exempt(found, host.override, host.prefix, read_site(host.prefix.site_file).site, "--override")


def exemption_notices(host: Host, exemption: Exemption | None) -> tuple[str, ...]:
    """One line for people where an expiry was lifted, or where an override was handed in and not needed."""
    if exemption is not None:
        return (f"its metadata have expired; an expiry override allows it {exemption}",)
    return () if host.override is None else ("no expiry had to be lifted: the override was not used",)


def run_preflight(source: Path, bundle: Bundle, floor_time: str, host: Host) -> PreflightResult:
    """Check whether this machine can take a bundle; see `check_host`.

    Args:
        source: untrusted; the medium that the bundle is on.
        bundle: verified.
        floor_time: the newest signed time that this host knows, as text in UTC; a right clock is not before it.
        host: where it would be installed.

    Raises:
        HostUnfitError: it cannot; every reason is in it.
        NotTrustedError: the header of a model breaks a rule of `bundles.gguf.header`.
    """
    contents = bundle.contents
    models = model_workloads(Layout(source), contents)
    return check_host(contents, models, host, release_path(host.prefix, bundle), floor_time)


def model_workloads(layout: Layout, contents: Contents) -> tuple[ModelWorkload, ...]:
    """The models of a bundle, each with its header and its workload.

    A model whose header is damaged on the medium is left out. The import reports it with all other damage, unless this
    host has a right copy already.
    """
    found = []
    for model in contents.models:
        with suppress(DamagedError):
            head = head_of_bundle(layout, contents, model)
            found.append(ModelWorkload(head.name, head.header, Workload(model.context, contents.serve.slots)))
    return tuple(found)


def check_site(prefix: Prefix, site: SiteConfig) -> None:
    """Refuse settings of the site that services cannot have.

    Raises:
        UsageError: naming the field.
    """
    if prefix.is_system and site.port == 0:
        raise UsageError(
            "site.refused",
            f"{prefix.site_file} field port",
            expected="1 to 65535: users must find a service",
            found="0",
            hint=f"edit {prefix.site_file}, then install again",
        )


def release_path(prefix: Prefix, bundle: Bundle) -> Path:
    """The folder of a bundle's release."""
    return prefix.release_path(bundle.contents.version, bundle.manifest)


def follow_root(prefix: Prefix, release: Release, now: datetime) -> None:
    """Pin the newest root that the threshold of the pinned root has signed.

    Args:
        prefix: the host.
        release: opened just before, by the pinned root.
        now: the clock, in UTC.

    Raises:
        NotTrustedError: the newest root does not cover the release; nothing was pinned.
    """
    newest = Layout(release.path / "bundle").medium.read(
        f"metadata/{release.bundle.evidence.floors.root}.root.json", 256 << 10
    )
    if newest is None or sha256(newest) == sha256(read_root(prefix) or b""):
        return
    open_bundle(release.path / "bundle", newest, release.bundle.evidence.floors, now)
    write_root(prefix, newest)
