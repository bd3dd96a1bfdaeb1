"""A host of a few small files for the script that goes back to another release: no Python and no engine runs in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from appliance.host.change.change_file import HostChange, read_change, write_change
from appliance.host.change.rollback_program import install_rollback_program, rollback_program
from appliance.host.change.way_back import point_previous, save_configuration
from appliance.host.layout.places import FACTS_FILE, OK_FILE, SITE_FILE, STATE_FILE
from appliance.host.layout.prefix import Prefix

OLD, NEW, THIRD = "1.0.0-000000000001", "2.0.0-000000000002", "3.0.0-000000000003"
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"]}
EACH_SHELL = [name for name in SHELLS if shutil.which(name)]
SINCE = "2026-01-02T03:04:05Z"
CALLS = ("cp", "ln", "mv", "rm", "sync")
"""The programs by which the script changes a disk."""

_KILLER = """echo . >>{count}
now="$(wc -l <{count})"
[ "$now {when}" != "{number} before" ] || kill -9 $PPID
{program} "$@"
code=$?
[ "$now {when}" != "{number} after" ] || kill -9 $PPID
exit $code"""


@dataclass
class ShellHost:
    """A prefix with releases that only look like some.

    Args:
        prefix: the host.
        tools: a folder of programs that come before those of the machine; the script finds them there.
    """

    prefix: Prefix
    tools: Path

    @classmethod
    def make(cls, folder: Path, *, units: bool = False) -> ShellHost:
        """A host on which `NEW` serves, and `OLD` served before."""
        host = cls(Prefix(folder / "host"), folder / "tools")
        host.tools.mkdir()
        host.prefix.create()
        host.prefix.units.mkdir(parents=True)
        for name in (OLD, NEW):
            host.add_release(name)
        install_rollback_program(host.prefix)
        script = rollback_program(host.prefix)
        text = script.read_text().replace("PATH=/usr/sbin", f"PATH={host.tools}:/usr/sbin")
        if units:
            text = text.replace('[ -n "$root" ] || has_units=yes', "has_units=yes").replace(
                '[ -z "$has_units" ] || [ ! -d /run/systemd/system ] || ', ""
            )
        script.write_text(text)
        host.prefix.current.symlink_to(f"releases/{NEW}")
        point_previous(host.prefix, f"releases/{OLD}")
        host.put_in_place(NEW)
        return host

    def release(self, name: str) -> Path:
        """The folder of a release."""
        return self.prefix.releases / name

    def add_release(self, name: str) -> Path:
        """A release that is complete as far as a shell can see."""
        release, model = self.release(name), self.prefix.models / name / "toy.gguf"
        listens = self.prefix.run_dir / f"{name[-12:]}-toy"
        for folder in (release / "venv/bin", release / "config/units", model.parent, listens):
            folder.mkdir(parents=True)
        model.write_bytes(b"a model")
        (listens / "engine.sock").touch()
        (release / "venv/bin/python").symlink_to("/bin/sh")
        texts = {
            FACTS_FILE: f"facts of {name}\n",
            OK_FILE: "",
            SITE_FILE: f"port: {name}\n",
            STATE_FILE: "reads=1\nwrites=1\n",
            "config/gateway.json": f"gateway of {name}\n",
            "config/engine-toy.json": f'{{"store":"{model}"}}\n',
            "config/units/appliance-gateway.service": f"gateway of {name}\n",
            f"config/units/appliance-engine@{name[-12:]}-toy.service": f"engine of {name}\n",
        }
        for path, text in texts.items():
            (release / path).write_text(text)
        return release

    def put_in_place(self, name: str) -> None:
        """The site's file and the units of a release, where the site and systemd read them."""
        shutil.copy(self.release(name) / SITE_FILE, self.prefix.site_file)
        for unit in (self.release(name) / "config/units").iterdir():
            shutil.copy(unit, self.prefix.units / unit.name)

    def begin(self, op: str, phase: str, release: str = NEW, before: str = OLD) -> None:
        """Leave the record of an unfinished change, as a switch does."""
        if before:
            save_configuration(self.prefix, self.release(before))
        write_change(self.prefix, HostChange(op, release, before, phase, SINCE))

    def run(self, *words: str, shell: str = "dash") -> subprocess.CompletedProcess[str]:
        """Run the script."""
        command = [*SHELLS[shell], str(rollback_program(self.prefix)), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def tool(self, name: str, text: str) -> None:
        """Put a program in front of that of the machine."""
        (self.tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.tools / name).chmod(0o755)

    def kill_at(self, number: int, when: str) -> None:
        """Kill the script before or after it has called a program that changes the disk for the n-th time."""
        count = self.tools / "count"
        count.unlink(missing_ok=True)
        for name in CALLS:
            self.tool(name, _KILLER.format(count=count, number=number, when=when, program=shutil.which(name)))

    def stop_killing(self) -> None:
        """Take the programs of `kill_at` away."""
        for name in (*CALLS, "count"):
            (self.tools / name).unlink(missing_ok=True)

    @property
    def serves(self) -> str:
        """The release that `current` names."""
        return os.readlink(self.prefix.current).removeprefix("releases/")

    @property
    def previous(self) -> str:
        """The release that `previous` names; empty where there is none."""
        link = self.prefix.opt / "previous"
        return os.readlink(link).removeprefix("releases/") if link.is_symlink() else ""

    def assert_whole(self, name: str, *, units: bool = False) -> None:
        """Assert that one release serves with all that belongs to it, and that nothing is unfinished."""
        assert self.serves == name
        assert self.prefix.site_file.read_text() == f"port: {name}\n"
        assert (self.release(name) / "config/gateway.json").read_text() == f"gateway of {name}\n"
        if units:
            assert (self.prefix.units / "appliance-gateway.service").read_text() == f"gateway of {name}\n"
        assert read_change(self.prefix) is None

    def tree(self) -> dict[str, object]:
        """Everything of the host but the lock: links with their targets, files with their bytes and modes."""
        found: dict[str, object] = {}
        for path in sorted(self.prefix.root.rglob("*")):
            name = str(path.relative_to(self.prefix.root))
            if path.is_symlink():
                found[name] = os.readlink(path)
            elif path.is_file() and path.name != "lock":
                found[name] = (path.stat().st_mode, path.read_bytes())
        return found
