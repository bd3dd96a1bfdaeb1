"""What is installed, whether it still is what was signed and installed, and which signatures that rests on.

Owns what `appliance status` reports. It changes nothing. The release is judged by `check_release`, as everywhere; the
site's file and the services of systemd, which lie outside it, are compared here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from appliance.host.activation.service_check import read_services, service_problems
from appliance.host.change.rollback_program import program_problems
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.egress import EgressCount, read_egress
from appliance.host.maintenance.host_life import HostLife, read_life
from appliance.host.maintenance.site_state import site_drift
from appliance.host.process.systemctl import UnitState
from appliance.host.release.release import Release, open_current
from appliance.host.release.release_check import check_release
from appliance.host.release.rendered_configuration import read_configuration
from appliance.host.site.config import read_site
from appliance.host.tls.expiry import ServedCertificate, certificate_problems, read_served
from appliance.host.trust.expiry_exemption import describe_recorded
from appliance.host.trust.receipt_counter import ReceiptCounter, read_counter
from appliance.host.trust.trust_store import read_floors
from bundles.progress import OnProgress, ignore
from signing.digest import Digest
from signing.errors import ApplianceError, DriftError, UsageError, worst
from signing.floors import Floors


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a host.

    Args:
        release: the one that serves.
        floors: the lowest versions that this host accepts; `floors.time` is the last proof of freshness.
        problems: every difference from what was signed and installed; empty where there is none.
        services: the units that systemd runs; none below a prefix.
        override: the expiry override by which the release was installed, as JSON; None where it needed none.
        receipts: the number of the last receipt of this host; 0 where there is none.
        egress: packets to other machines; None where the site does not have them counted.
        certificate: of the gateway; None where it speaks plain http.
        life: whether the release is good, trying, or in the middle of a change; None where nobody asked.
    """

    release: Release
    floors: Floors
    problems: tuple[ApplianceError, ...]
    services: tuple[UnitState, ...]
    override: dict[str, object] | None = None
    receipts: ReceiptCounter = field(default_factory=ReceiptCounter)
    egress: EgressCount | None = None
    life: HostLife | None = None
    certificate: ServedCertificate | None = None

    @property
    def signers(self) -> tuple[Digest, ...]:
        """Fingerprints of the keys that signed the bundle."""
        return tuple(key.fingerprint for key in self.release.bundle.evidence.signers)

    @property
    def is_development(self) -> bool:
        """Whether its trust root is one for development."""
        return self.release.bundle.evidence.is_development

    def failure(self) -> ApplianceError | None:
        """The gravest problem with the others attached, for the command's exit code; None where there is none."""
        return worst(list(self.problems)) if self.problems else None


def read_status(prefix: Prefix, now: datetime, on_progress: OnProgress = ignore) -> Status:
    """Compare the release that serves, and what serves it; every byte of the release is read once.

    Args:
        prefix: the host.
        now: the clock, in UTC.
        on_progress: called with what is done.

    Raises:
        UsageError: nothing is installed.
        NotTrustedError, DamagedError, DriftError: as `open_current`: the release cannot be opened.
    """
    life = read_life(prefix)
    try:
        release = open_current(prefix, now)
    except ApplianceError as error:
        # An interrupted change is the reason, and its hint the way out.
        if life.problems:
            raise worst([*life.problems, error]) from error
        raise
    problems: list[ApplianceError] = list(life.problems)
    try:
        check_release(release, on_progress)
    except ApplianceError as error:
        problems += [error, *error.others]
        error.others = ()
    problems += _site_problems(release)
    floors, receipts = read_floors(prefix), ReceiptCounter()
    problems += floor_problems(prefix, floors, release.bundle.evidence.floors)
    try:
        receipts = read_counter(prefix)
    except ApplianceError as error:
        problems.append(error)
    services = read_services(release)
    problems += [*service_problems(release, services), *program_problems(prefix)]
    egress, egress_problems = read_egress(release)
    problems += egress_problems
    override = describe_recorded(prefix, release.bundle)
    certificate, certificate_faults = _certificate(release, now)
    problems += certificate_faults
    return Status(release, floors, tuple(problems), services, override, receipts, egress, life, certificate)


def _certificate(release: Release, now: datetime) -> tuple[ServedCertificate | None, list[ApplianceError]]:
    try:
        tls = read_configuration(release).gateway.tls
    except DriftError:
        return None, []  # `check_release` has named it
    if tls is None:
        return None, []
    problems = certificate_problems(tls, now, release.prefix.option)
    try:
        return read_served(tls, now), problems
    except UsageError:
        return None, problems


def floor_problems(prefix: Prefix, floors: Floors, proved: Floors) -> list[ApplianceError]:
    """Compare the floors of a host with what its own release proves (threat T41).

    Args:
        prefix: the host.
        floors: as they are on the disk.
        proved: by the metadata that the release holds.

    Returns:
        One error where the floors lie below that: somebody has set them back. A disk image that sets back the release,
        too, is seen only by those who read this host's receipts.
    """
    if floors.raised(proved) == floors:
        return []
    return [
        DriftError(
            "floors.set-back",
            str(prefix.trust / "floors.json"),
            expected=_describe(proved),
            found=_describe(floors),
            hint="an old file was restored, or an install was cut off: run the same `appliance install` again, it "
            "raises them",
        )
    ]


def _describe(floors: Floors) -> str:
    versions = f"root {floors.root}, targets {floors.targets}, snapshot {floors.snapshot}"
    return f"{versions}, timestamp {floors.timestamp}, time {floors.time}"


def _site_problems(release: Release) -> list[ApplianceError]:
    try:
        return list(site_drift(release, read_site(release.prefix.site_file)))
    except ApplianceError as error:
        # A file that is wrong cannot be the one that was applied.
        return [
            DriftError(one.code, one.subject, expected=one.expected, found=one.found, hint=one.hint)
            for one in (error, *error.others)
        ]
