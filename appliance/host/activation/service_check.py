"""Whether systemd runs the units of the installed release, unchanged.

Owns this comparison for `appliance status`. It changes nothing.
"""

from __future__ import annotations

from appliance.host.layout.unit_files import RENDERED, is_installed, resident_units, unit_names
from appliance.host.process import systemctl
from appliance.host.process.systemctl import UnitState
from appliance.host.release.release import Release
from signing.errors import ApplianceError, DriftError

_HINT = "run the same `appliance install` again: it puts the services right"


def read_services(release: Release) -> tuple[UnitState, ...]:
    """The state in systemd of each unit of a release that runs all the time; empty where systemd does not run them."""
    if not release.prefix.is_system or not systemctl.version():
        return ()
    return tuple(systemctl.state(name) for name in resident_units(_names(release)))


def service_problems(release: Release, services: tuple[UnitState, ...]) -> list[ApplianceError]:
    """How the services differ from what was installed.

    Args:
        release: the installed one.
        services: from `read_services`.

    Returns:
        One `DriftError` for each difference.
    """
    problems: list[ApplianceError] = []
    for unit in services:
        problems += _changes(release, unit)
        if unit.enabled != "enabled":
            problems.append(_drift("service.not-enabled", unit.name, "enabled", unit.enabled or "unknown to systemd"))
        if not unit.is_active:
            found = (
                f"{unit.active}, exit status {unit.exit_code}; its log ends with: {systemctl.last_log_lines(unit.name)}"
            )
            problems.append(_drift("service.not-running", unit.name, "active", found))
    if services:
        resident = {unit.name for unit in services}
        for name in _names(release):
            if name not in resident:  # a timer starts it
                problems += _changes(release, systemctl.state(name))
    return problems


def _names(release: Release) -> tuple[str, ...]:
    return unit_names(release.contents, release.bundle.value.manifest)


def _changes(release: Release, unit: UnitState) -> list[ApplianceError]:
    problems: list[ApplianceError] = []
    if not is_installed(release.prefix, release.path, unit.name):
        expected = f"the same as {release.path / RENDERED / unit.name}"
        problems.append(_drift("service.changed", unit.name, expected, "another unit, or none"))
    if unit.drop_ins:
        problems.append(_drift("service.overridden", unit.name, "the unit alone", ", ".join(unit.drop_ins)))
    return problems


def _drift(code: str, subject: str, expected: str, found: str) -> DriftError:
    return DriftError(code, subject, expected=expected, found=found, hint=_HINT)
