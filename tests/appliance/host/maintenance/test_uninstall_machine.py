"""Uninstall of a whole machine: files, units, users and groups are as they were, and what others made stays.

The machine is a folder with an `/etc` of its own and this machine's `/usr`, entered with `chroot` in a user namespace.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from appliance.host.change import rollback_program
from appliance.host.change.change_file import HostChange, format_change
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import GROUP, USERS
from appliance.host.maintenance import uninstall as module
from appliance.host.maintenance.cleanup import remove_tree
from appliance.host.maintenance.uninstall import UNITS
from appliance.host.playbook.ansible_run import variables
from appliance.host.playbook.effects import (
    FILE,
    FOLDER,
    PURGE,
    UNIT,
    Effect,
    declared_effects,
    read_effect_files,
)
from appliance.host.site.config import SiteConfig
from appliance.resources import playbooks_path
from bundles.bundle import open_bundle
from signing.floors import Floors
from tests.appliance.host.held_releases import empty_host, hold_release
from tests.toy import NOW

SCRIPT = Path(module.__file__).parent / "uninstall.sh"
ENTER = """
set -e
cd "$1"
mkdir -p own usr/local
mount --bind usr/local own
for folder in usr proc dev; do mkdir -p $folder; mount --rbind /$folder $folder; done
for folder in bin lib lib64 sbin; do if [ -L /$folder ]; then ln -sfn usr/$folder $folder; fi; done
mount --bind own usr/local
shift
exec chroot . /bin/sh -c "$@"
"""
PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
"""
GROUPS = "root:x:0:\ndaemon:x:1:\nusers:x:100:\n"
OURS = "".join(
    f"{user}:x:{900 + number}:950:Service of the appliance:/nonexistent:/usr/sbin/nologin\n"
    for number, user in enumerate(USERS)
)
OUR_GROUP = f"{GROUP}:x:950:daemon\n"


@cache
def no_chroot() -> str:
    """Why this machine cannot be entered like that; empty where it can."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "mount --rbind /proc /proc"]
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True).stderr.strip()
    except OSError as error:
        return str(error)


pytestmark = pytest.mark.skipif(bool(no_chroot()), reason=f"no namespaces here: {no_chroot()}")


@pytest.fixture(scope="module")
def effects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Effect, ...]:
    """What the roles of the playbooks declare for a whole machine."""
    host = empty_host(tmp_path_factory.mktemp("effects"))
    hold_release(host, "1.0.1")
    bundle = next(host.workspace.dist.glob("toy-*"))
    found = open_bundle(bundle, host.trust, Floors(), NOW).value
    system = Prefix(Path("/"))
    values = variables(system, system.release_path("1.0.1", found.manifest), found, SiteConfig())
    return declared_effects(read_effect_files(playbooks_path()), values)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    root = tmp_path / "machine"
    for name, text in (
        ("passwd", PASSWD),
        ("group", GROUPS),
        ("shadow", "root:*:1::::::\ndaemon:*:1::::::\n"),
        ("gshadow", "root:*::\ndaemon:*::\nusers:*::\n"),
    ):
        write(root / "etc" / name, text)
    write(root / "etc/login.defs", "USERGROUPS_ENAB yes\n")
    write(root / "etc/systemd/system/mine.service")
    write(root / "etc/systemd/system/appliance-gateway.service.d/mine.conf")
    (root / "tmp").mkdir()
    return root


def seen(root: Path) -> dict[str, str]:
    """Every file of a machine with its content, without what the account tools keep of their own."""
    own = {f"etc/{name}" for name in ("passwd-", "group-", "shadow-", "gshadow-", ".pwd.lock")}
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = "-> "
        elif path.is_file() and name not in own:
            found[name] = path.read_text()
    return {name: text for name, text in found.items() if name not in ("bin", "lib", "lib64", "sbin")}


def install(root: Path, effects: tuple[Effect, ...]) -> None:
    """What an install makes on this machine."""
    for effect in effects:
        if effect.kind in (FILE, UNIT):
            write(root / (effect.file or effect.name).lstrip("/"), "exec /opt/appliance/current/venv\n")
        if effect.kind == UNIT:
            write(root / "etc/systemd/system" / effect.name)
        if effect.kind == FOLDER:
            (root / effect.name.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for name in UNITS:
        write(root / "etc/systemd/system" / name)
        for target in ("multi-user", "sysinit"):
            wants = root / f"etc/systemd/system/{target}.target.wants"
            wants.mkdir(exist_ok=True)
            (wants / name).symlink_to(f"../{name}")
    for name in ("trust/root.json", "audit/log", "journal/install.jsonl", "access.db", "models/0/m.gguf", "runs/1/x"):
        write(root / "var/lib/appliance" / name)
    write(root / "var/lib/appliance-gateway/usage.db")
    write(root / "etc/appliance/default.key")
    write(root / "run/appliance/trial-0123456789ab")
    for name in ("rollback", "bootstrap/0123456789ab/start.py", "releases/1.0.1-0123456789ab/RELEASE.ok"):
        write(root / "opt/appliance" / name)
    write(root / "opt/appliance/uninstall", SCRIPT.read_text())
    (root / "opt/appliance/current").symlink_to("releases/1.0.1-0123456789ab")
    (root / "etc/passwd").write_text(PASSWD + OURS)
    (root / "etc/group").write_text(GROUPS + OUR_GROUP)
    with (root / "etc/shadow").open("a") as shadow:
        shadow.writelines(f"{user}:!*:1::::::\n" for user in USERS)
    with (root / "etc/gshadow").open("a") as gshadow:
        gshadow.write(f"{GROUP}:!*::daemon\n")


def uninstall(
    root: Path, *, purge: bool, command: str = "sh /opt/appliance/uninstall"
) -> subprocess.CompletedProcess[str]:
    change = HostChange("uninstall", "", "", "removing", "2026-01-02T03:04:05Z", purge="yes" if purge else "no")
    (root / "var/lib/appliance/change").write_bytes(format_change(change))
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ENTER, "enter", str(root)]
    return subprocess.run([*enter, command], check=False, capture_output=True, text=True)


def test_purge_leaves_the_machine_as_it_was(machine: Path, effects: tuple[Effect, ...]) -> None:
    before = seen(machine)
    install(machine, effects)
    assert seen(machine) != before
    done = uninstall(machine, purge=True)
    assert done.returncode == 0, done.stderr
    assert seen(machine) == before
    for name in ("opt/appliance", "var/lib/appliance", "var/lib/appliance-gateway", "etc/appliance", "run/appliance"):
        assert not (machine / name).exists()


def test_without_purge_only_trust_audit_keys_journal_and_configuration_stay(
    machine: Path, effects: tuple[Effect, ...]
) -> None:
    before = seen(machine)
    install(machine, effects)
    access = machine / "var/lib/appliance/access.db"
    access.chmod(0o640)
    done = uninstall(machine, purge=False)
    assert done.returncode == 0, done.stderr
    assert set(seen(machine)) - set(before) == {
        "etc/appliance/default.key",
        "etc/appliance/site.yaml",
        "var/lib/appliance-gateway/usage.db",
        "var/lib/appliance/access.db",
        "var/lib/appliance/audit/log",
        "var/lib/appliance/journal/install.jsonl",
        "var/lib/appliance/trust/root.json",
    }
    assert access.stat().st_mode & 0o777 == 0o600, "its group is gone, and another one may get the number"
    usage = machine / "var/lib/appliance-gateway"
    assert (usage.stat().st_uid, usage.stat().st_mode & 0o777) == (os.getuid(), 0o700), "so is its user"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_private_key_of_any_name_is_taken_back_from_a_user_who_is_gone(
    machine: Path, effects: tuple[Effect, ...]
) -> None:
    install(machine, effects)
    for name in ("own-key.pem", "ca.pem"):
        write(machine / "etc/appliance/tls" / name)
    os.chown(machine / "etc/appliance/tls/own-key.pem", 900, 0)
    # A namespace of users may change no owner of others, so a program in its place shows what is asked of it.
    write(machine / "usr/local/bin/chown", '#!/bin/sh\necho "$@" >>/tmp/owners\n')
    (machine / "usr/local/bin/chown").chmod(0o755)
    write(machine / "opt/appliance/uninstall", SCRIPT.read_text().replace("\nPATH=", "\nPATH=/usr/local/bin:"))
    done = uninstall(machine, purge=False)
    assert done.returncode == 0, done.stderr
    owners = (machine / "tmp/owners").read_text()
    assert "-h root:root /etc/appliance/tls/own-key.pem\n" in owners
    assert "ca.pem" not in owners


def test_everything_goes_as_the_roles_declare(machine: Path, effects: tuple[Effect, ...]) -> None:
    install(machine, effects)
    uninstall(machine, purge=False)
    for effect in effects:
        if effect.kind in (FILE, FOLDER):
            assert (machine / effect.name.lstrip("/")).exists() == (effect.until == PURGE), effect
        if effect.kind == UNIT:
            assert not (machine / "etc/systemd/system" / effect.name).exists(), effect
    accounts = (machine / "etc/passwd").read_text() + (machine / "etc/group").read_text()
    assert [user for user in (*USERS, GROUP) if user in accounts] == []


@pytest.mark.parametrize("gone", ["opt/appliance/current", "etc/appliance", "var/lib/appliance/journal"])
def test_boot_finishes_one_that_was_cut_off(machine: Path, effects: tuple[Effect, ...], gone: str) -> None:
    before = seen(machine)
    install(machine, effects)
    write(machine / "opt/appliance/rollback", Path(rollback_program.__file__).with_name("rollback.sh").read_text())
    remove_tree(machine / gone)
    done = uninstall(machine, purge=True, command="sh /opt/appliance/rollback --recover")
    assert done.returncode == 0, done.stderr
    assert seen(machine) == before


def test_accounts_and_a_command_of_another_origin_stay(machine: Path, effects: tuple[Effect, ...]) -> None:
    install(machine, effects)
    person = f"{USERS[0]}:x:1000:950:A person:/home/a:/bin/sh\n"
    (machine / "etc/passwd").write_text(PASSWD + person)
    command = machine / "usr/local/bin/appliance"
    command.write_text("exec /home/a/appliance\n")
    done = uninstall(machine, purge=True)
    assert done.returncode == 0, done.stderr
    assert command.exists()
    assert person in (machine / "etc/passwd").read_text()
    assert OUR_GROUP in (machine / "etc/group").read_text(), "it is the first group of somebody"


def test_script_names_every_unit(effects: tuple[Effect, ...]) -> None:
    text = SCRIPT.read_text()
    assert [name for name in UNITS if name not in text] == []
    declared = [effect.name for effect in effects if effect.kind == UNIT]
    assert [name for name in declared if name not in UNITS and not name.startswith("appliance-engine@")] == []


def test_watch_and_socket_are_stopped_before_what_they_would_start(machine: Path, effects: tuple[Effect, ...]) -> None:
    install(machine, effects)
    (machine / "run/systemd/system").mkdir(parents=True)
    called = machine / "called"
    for name in ("systemctl", "nft"):
        write(machine / "tools" / name, f'#!/bin/sh\necho "$*" >>/{called.name}\n')
        (machine / "tools" / name).chmod(0o755)
    write(machine / "run/appliance-egress/since")
    script = machine / "opt/appliance/uninstall"
    script.write_text(SCRIPT.read_text().replace("PATH=/usr/sbin", "PATH=/tools:/usr/sbin"))
    done = uninstall(machine, purge=True)
    assert done.returncode == 0, done.stderr
    words = called.read_text().splitlines()
    stopped = [line.rpartition(" ")[2] for line in words if line.startswith("stop")]
    assert set(stopped) >= set(UNITS) - {"appliance-recover.service"}
    assert stopped.index("appliance-trial.service") < stopped.index("appliance-gateway.service")
    assert stopped.index("appliance-gateway.socket") < stopped.index("appliance-gateway.service")
    assert "delete table inet appliance_egress" in words
    assert not (machine / "run/appliance-egress").exists()
    assert words[-1] == "daemon-reload"
