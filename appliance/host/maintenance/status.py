"""What is installed, whether it still is what was signed, and what that rests on.

Owns the gathering for `appliance status`. It changes nothing, and hides nothing: drift is part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from appliance.host.activation.service_check import read_services, service_problems
from appliance.host.process.systemctl import UnitState
from appliance.host.release.release import Release, check_release, open_current
from appliance.host.site.config import read_site
from appliance.host.tree.prefix import Prefix
from appliance.host.trust.floor_store import read_floors
from bundles.progress import OnProgress, ignore
from signing.digest import Digest
from signing.errors import ApplianceError, DriftError
from signing.floors import Floors


@dataclass(frozen=True, slots=True)
class Status:
    """What a host has to say for itself.

    Args:
        release: the one that serves.
        floors: the lowest versions that this host accepts; `floors.time` is the last proof of freshness.
        problems: how what lies here differs from what was signed and installed; empty where it does not.
        services: the units that systemd runs; none below a prefix.
    """

    release: Release
    floors: Floors
    problems: tuple[ApplianceError, ...]
    services: tuple[UnitState, ...]

    @property
    def signers(self) -> tuple[Digest, ...]:
        """Fingerprints of the keys that signed the bundle."""
        return tuple(key.fingerprint for key in self.release.bundle.evidence.signers)

    @property
    def is_development(self) -> bool:
        """Whether a development trust root stands behind it."""
        return self.release.bundle.evidence.is_development

    def drift(self) -> DriftError | None:
        """All problems as one error for a command's exit code 9, or None."""
        if not self.problems:
            return None
        first = self.problems[0]
        return DriftError(
            first.code,
            first.subject,
            expected=first.expected,
            found=first.found,
            hint=first.hint,
            others=self.problems[1:],
        )


def read_status(prefix: Prefix, now: datetime, on_progress: OnProgress = ignore) -> Status:
    """Look at the release that serves; every byte of it is read once.

    Args:
        prefix: the host.
        now: the clock, in UTC.
        on_progress: called with what is done.

    Raises:
        UsageError: nothing is installed.
        NotTrustedError, DamagedError: the chain of trust of the release itself does not hold.
    """
    release = open_current(prefix, now)
    problems: list[ApplianceError] = []
    try:
        check_release(release, on_progress)
    except ApplianceError as error:
        problems += [error, *error.others]
    problems += _site_problems(release)
    services = read_services(release)
    problems += service_problems(release, services)
    return Status(release, read_floors(prefix), tuple(problems), services)


def _site_problems(release: Release) -> list[ApplianceError]:
    try:
        digest = read_site(release.prefix.site_file).digest
    except ApplianceError as error:
        return [error]
    if digest == release.facts.site:
        return []
    return [
        DriftError(
            "site.not-applied",
            str(release.prefix.site_file),
            expected=f"sha256 {release.facts.site}, as it was applied",
            found=f"sha256 {digest}",
            hint="run the same `appliance install` again: it applies the site's file",
        )
    ]
