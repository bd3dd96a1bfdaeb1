"""Whether a bundle may be installed: its chain of trust, the machine, and the site's configuration.

Owns the checks of an install before it writes anything, and the pinning of a newer root after it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.change.change_file import is_cut_off
from appliance.host.install.bundle_parts import check_parts
from appliance.host.layout.places import OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.models.fit import ModelWorkload
from appliance.host.models.model_head import head_of_bundle
from appliance.host.preflight.host_check import PreflightResult, check_host
from appliance.host.preflight.inputs import Host, SourceMedia
from appliance.host.release.held_chunks import held_chunks
from appliance.host.release.held_source import HeldSource
from appliance.host.release.release import Release
from appliance.host.release.state_format import check_state_format
from appliance.host.site.config import NO_SITE, SiteConfig, read_site
from appliance.host.trust.expiry_exemption import Exemption, exempt
from appliance.host.trust.metadata_store import by_roots
from appliance.host.trust.root_pin import check_first_root
from appliance.host.trust.trust_store import read_floors, read_root, write_root
from bundles.bundle import Bundle, open_bundle
from bundles.chunks.source import ChunkSource
from bundles.contents.contents import Contents
from bundles.gguf.memory import Workload
from bundles.oci.layout import Layout
from bundles.stick.media import OpenMedia, open_media
from signing.digest import sha256
from signing.errors import DamagedError, NextStickError, NotTrustedError, UsageError
from signing.verified import Verified


@dataclass(frozen=True, slots=True)
class AdmittedBundle:
    """A bundle that may be installed, and the media that hold it."""

    found: Verified[Bundle]
    media: OpenMedia

    @property
    def layout(self) -> Layout:
        """The medium that its manifest, contents and target are copied from."""
        return self.media.layout_of(self.found)


def admit(source: Path | SourceMedia, trust: bytes, host: Host) -> AdmittedBundle:
    """Verify the bundle of media, and check that this program applies every part of it.

    Raises:
        ApplianceError: as `verify_media`; or it has a part that this program does not apply.
    """
    admitted = verify_media(source, trust, host)
    check_parts(admitted.found.value.contents)
    return admitted


def verify_media(source: Path | SourceMedia, trust: bytes, host: Host) -> AdmittedBundle:
    """Verify the bundle of media by the newest metadata of all of them and of this host.

    Args:
        source: untrusted.
        trust: bytes of the root to verify against; the root that this host has pinned must cover the bundle, too.
        host: where it would be installed.

    Returns:
        The bundle; it may be installed here, by a program that applies all of its parts.

    Raises:
        UsageError: no bundle is there, or several and none is selected.
        NotTrustedError: a root for real use is not pinned here, a chain of trust does not cover the bundle, it has
            expired and is not installed yet, or something on a medium is what `verify` refuses.
        DamagedError: a file of the chain cannot be read, or `BOOT/` is damaged.
    """
    source = SourceMedia((source,)) if isinstance(source, Path) else source
    if not host.is_root_compared:
        check_first_root(host.prefix, trust)
    pinned = read_root(host.prefix)
    # A root that a person names does not replace the pinned one: both must cover the bundle.
    roots = [trust] if pinned is None or pinned == trust else [pinned, trust]
    media = open_media(source.paths, by_roots(roots, read_floors(host.prefix), host.now(), host.prefix), source.waiting)
    found = media.select(source.select)
    if needs_exemption(host, found) and expiry_exemption(host, found) is None:
        moment, role = found.evidence.expires
        raise NotTrustedError(
            "install.expired",
            source.name,
            expected=f"metadata that is valid at {found.evidence.floors.time}",
            found=f"{role} expired at {moment}",
            hint="ask for a newer stick, or for an expiry override: appliance install --override FILE; "
            "what is installed goes on serving",
        )
    media.check()
    media.check_lengths()
    return AdmittedBundle(found, media)


def needs_exemption(host: Host, found: Verified[Bundle]) -> bool:
    """Whether a bundle has expired and is not installed yet."""
    return found.evidence.is_expired and not (release_path(host.prefix, found.value) / OK_FILE).exists()


def expiry_exemption(host: Host, found: Verified[Bundle]) -> Exemption | None:
    """The override that lifts the expiry of a bundle; None where nothing is lifted, or none was handed in.

    Raises:
        NotTrustedError: the override that was handed in does not hold for this bundle here.
        UsageError: the site's file is wrong, and no switch was cut off: the install undoes that first.
    """
    if host.override is None or not needs_exemption(host, found):
        return None
    return exempt(found, host.override, host.prefix, read_site(host.prefix.site_file).site, "--override")


def exemption_notices(host: Host, exemption: Exemption | None) -> tuple[str, ...]:
    """One line for people where an expiry was lifted, or where an override was handed in and not needed."""
    if exemption is not None:
        return (f"its metadata have expired; an expiry override allows it {exemption}",)
    return () if host.override is None else ("no expiry had to be lifted: the override was not used",)


def run_preflight(admitted: AdmittedBundle, host: Host) -> PreflightResult:
    """Check whether this machine can take a bundle; see `check_host`.

    Args:
        admitted: the bundle, and the media that it is on.
        host: where it would be installed.

    Raises:
        HostUnfitError: it cannot, with every reason; or its program does not read the stored state of this host.
        UsageError: the site's file is wrong, and no switch was cut off: the install undoes that first.
        NotTrustedError: the header of a model breaks a rule of `bundles.gguf.header`.
    """
    bundle, floor_time = admitted.found.value, admitted.found.evidence.floors.time
    check_state_format(host.prefix, bundle.contents)
    media = admitted.media.source
    # A delta leaves out what this host holds.
    source = HeldSource(media, held_chunks(host.prefix)) if media.missing(bundle) else media
    models = model_workloads(source, bundle.contents, _read_decisions(host.prefix))
    return check_host(bundle.contents, models, host, release_path(host.prefix, bundle), floor_time)


def _read_decisions(prefix: Prefix) -> SiteConfig:
    try:
        return read_site(prefix.site_file)
    except UsageError:
        if is_cut_off(prefix):
            return NO_SITE
        raise


def model_workloads(source: ChunkSource, contents: Contents, site: SiteConfig = NO_SITE) -> tuple[ModelWorkload, ...]:
    """The models of a bundle, each with its header and its workload.

    Args:
        source: of the headers.
        contents: of the bundle.
        site: of the host; it decides which models are loaded on demand.

    Returns:
        All but those that are left out.

    A model whose header is damaged, or on a stick that is not here, is left out. The import reports it with all other
    damage, unless this host has a right copy already.
    """
    found, on_demand = [], site.on_demand(model.name for model in contents.models)
    for model in contents.models:
        with suppress(DamagedError, NextStickError):
            head = head_of_bundle(source, contents, model)
            workload = Workload(model.context, contents.serve.slots)
            found.append(ModelWorkload(head.name, head.header, workload, is_on_demand=model.name in on_demand))
    return tuple(found)


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
