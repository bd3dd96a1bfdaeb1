"""The systemd units of a release: their names, and their copies where systemd reads them.

Owns the names and the copying. The playbooks own the content of a unit (roles engine and gateway). They render it into
the release, and `check_release` compares it there like every other file. This module must never start or stop a unit.

Rules:
- an engine's unit names one release and one model, so that two releases can run beside each other for a trial;
- the gateway's units name no release: it serves the one that `current` names, and its socket outlives the switch;
- a unit is installed as a whole file at once, so that systemd never reads a half-written one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix
from bundles.contents.contents import Contents
from bundles.medium import sync_folder
from signing.digest import Digest

ENGINE, GATEWAY_UNIT = "appliance-engine", "appliance-gateway.service"
GATEWAY_SOCKET = "appliance-gateway.socket"
"""Holds the port that users connect to, so that one gateway can follow another."""
_SOCKET_TEMPLATE = f"playbooks/roles/gateway/templates/{GATEWAY_SOCKET}.j2"
EGRESS_UNIT, EGRESS_RULES = "appliance-egress.service", "config/egress.nft"
"""The unit that counts attempts to reach another machine, and its rules below a release."""
_EGRESS_ROLE = "playbooks/roles/egress/tasks/main.yml"
SCRUB_TIMER, SCRUB_UNIT = "appliance-scrub.timer", "appliance-scrub.service"
"""The timer that has the models read again, and the unit that it starts."""
_SCRUB_TEMPLATE = f"playbooks/roles/engine/templates/{SCRUB_TIMER}.j2"
TRIAL_UNIT = "appliance-trial.service"
"""The unit that watches a release on trial. It names no release, and no release holds it."""
RENDERED = "config/units"
"""Where the rendered units lie below a release."""
USERS = ("appliance-engine", "appliance-gateway")
GROUP = "appliance"
"""The group of both users: its members may connect to an engine's socket and read the keys' digests."""


def release_id(manifest: Digest) -> str:
    """The 12 digits that name a release in units, sockets and folders."""
    return manifest[:12]


def engine_unit(manifest: Digest, model: str) -> str:
    """The unit that runs one model of one release."""
    return f"{ENGINE}@{release_id(manifest)}-{model}.service"


def unit_of_release(release: Path, model: str) -> str:
    """The unit that runs one model, by the release's folder, whose name ends with the release's id."""
    return f"{ENGINE}@{_folder_id(release)}-{model}.service"


def engine_units(contents: Contents, manifest: Digest) -> tuple[str, ...]:
    """The units of all engines of a release, in the order of its models."""
    return tuple(engine_unit(manifest, model.name) for model in contents.models)


def unit_names(contents: Contents, manifest: Digest) -> tuple[str, ...]:
    """All units of a release."""
    own = (EGRESS_UNIT,) if has_egress(contents) else ()
    socket = (GATEWAY_SOCKET,) if has_socket(contents) else ()
    scrub = (SCRUB_UNIT, SCRUB_TIMER) if has_scrub(contents) else ()
    return (*engine_units(contents, manifest), *own, *scrub, *socket, GATEWAY_UNIT)


def resident_units(names: Iterable[str]) -> list[str]:
    """Those of a release's units that are enabled and run all the time: a timer starts the others."""
    return [name for name in names if name != SCRUB_UNIT]


def timer_units(contents: Contents) -> list[str]:
    """The timers of a release."""
    return [SCRUB_TIMER] if has_scrub(contents) else []


def has_socket(contents: Contents) -> bool:
    """Whether the playbooks of a bundle render the gateway's socket; with earlier ones the gateway binds its port."""
    return _SOCKET_TEMPLATE in contents.by_path


def has_egress(contents: Contents) -> bool:
    """Whether the playbooks of a bundle render the counter of attempts; those of versions before it do not."""
    return _EGRESS_ROLE in contents.by_path


def has_scrub(contents: Contents) -> bool:
    """Whether the playbooks of a bundle render the timer of scrubs; those of versions before it do not."""
    return _SCRUB_TEMPLATE in contents.by_path


def engine_socket(prefix: Prefix, release: Path, model: str) -> Path:
    """The socket of an engine that systemd runs. Its folder stays until the next boot, with the engine's last state.

    Args:
        prefix: the host.
        release: the release's folder; its name ends with the release's id.
        model: the model's name.
    """
    return prefix.run_dir / f"{_folder_id(release)}-{model}" / "engine.sock"


def engine_requests(prefix: Prefix) -> Path:
    """The folder in which the gateway, and nobody else, marks what it wants of engines; gone after a reboot."""
    return prefix.run_dir / "gateway"


def load_mark(prefix: Prefix, release: Path, model: str) -> Path:
    """The file whose presence lets systemd's engine load a model that is loaded on demand.

    Args:
        prefix: the host.
        release: the release's folder; its name ends with the release's id.
        model: the model's name.
    """
    return engine_requests(prefix) / f"{_folder_id(release)}-{model}.load"


def trial_mark(prefix: Prefix, release: Path) -> Path:
    """The file that lets a release's engines start although `current` does not name it; gone after a reboot.

    Args:
        prefix: the host.
        release: the release's folder; its name ends with the release's id.
    """
    return prefix.run_dir / f"trial-{_folder_id(release)}"


def window_mark(prefix: Prefix) -> Path:
    """The file that shows the gateway that engines were stopped for a switch; gone after a reboot."""
    return prefix.run_dir / "window"


def install_unit(prefix: Prefix, release: Path, name: str) -> bool:
    """Copy a rendered unit of a release to where systemd reads it.

    Returns:
        False when the very bytes were there already.
    """
    return write_file(prefix.units / name, (release / RENDERED / name).read_bytes())


def is_installed(prefix: Prefix, release: Path, name: str) -> bool:
    """Whether systemd reads the bytes that the release holds."""
    try:
        return (prefix.units / name).read_bytes() == (release / RENDERED / name).read_bytes()
    except OSError:
        return False


def installed_engines(prefix: Prefix) -> Iterator[str]:
    """List the engines' units of all releases that are installed here."""
    for entry in sorted(os.listdir(prefix.units)) if prefix.units.is_dir() else ():
        if entry.startswith(f"{ENGINE}@") and entry.endswith(".service"):
            yield entry


def remove_unit(prefix: Prefix, name: str) -> None:
    """Remove the installed copy of a unit, which must have been stopped and disabled."""
    (prefix.units / name).unlink(missing_ok=True)
    sync_folder(prefix.units)


def _folder_id(release: Path) -> str:
    return release.name.rpartition("-")[2]
