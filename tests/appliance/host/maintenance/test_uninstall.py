"""Uninstall leaves a host as it was, and finishes wherever it was cut off."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.chunking.chunker import Source
from appliance.host.change.change_file import INSTALL, TRYING, HostChange, read_change, write_change
from appliance.host.change.way_back import keep_reserve, return_folder
from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance import uninstall as module
from appliance.host.maintenance.uninstall import plan_uninstall, resumed_purge, uninstall, uninstall_script
from appliance.serve.supervisor import run_dir
from signing.errors import ApplyBrokenError, BusyError, UsageError
from tests.appliance.host.held_releases import copied, empty_host, hold_release
from tests.appliance.sim_host import SimHost
from tests.toy import NOW

SCRIPT = (Path(module.__file__).parent / "uninstall.sh").read_text()
STEPS = re.search(r'^STEPS="(.*)"$', SCRIPT, re.MULTILINE)[1].split()  # type: ignore[index]
SHELLS = [shell for shell in (["/bin/dash"], ["/bin/busybox", "sh"]) if os.access(shell[0], os.X_OK)]
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
KEPT = ("access.db", "audit/log.jsonl", "trust/floors.json", "trust/root.json", "journal/install.jsonl")


def now() -> datetime:
    return NOW


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    made = empty_host(tmp_path_factory.mktemp("template"))
    hold_release(made, "1.0.1")
    current = hold_release(made, "1.0.2", serves=True)
    prefix = made.prefix
    for path in (
        *(prefix.access, prefix.audit / "log.jsonl", prefix.site_file, prefix.default_key),
        prefix.gateway_state / "usage.db",
        *(run_dir.engine_log(prefix, "toy"), run_dir.log_file(prefix, "gateway")),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"kept")
    (prefix.opt / "bootstrap/0123456789ab").mkdir(parents=True)
    (prefix.opt / "rollback").write_bytes(b"")
    return_folder(prefix, current.name).mkdir(parents=True)
    (prefix.scratch / ".hidden").write_bytes(b"")
    keep_reserve(prefix)
    return made


@pytest.fixture
def host(template: SimHost, tmp_path: Path) -> SimHost:
    return copied(template, tmp_path)


def left(host: SimHost) -> set[str]:
    return {str(path.relative_to(host.prefix.root)) for path in host.prefix.root.rglob("*") if not path.is_dir()}


def test_without_purge_trust_audit_keys_and_configuration_stay(host: SimHost) -> None:
    uninstall(host.prefix, now, purge=False)
    found = left(host)
    assert {f"var/lib/appliance/{name}" for name in KEPT} <= found
    assert {"etc/appliance/site.yaml", "etc/appliance/default.key", "var/lib/appliance-gateway/usage.db"} <= found
    others = {name for name in found if not name.startswith(("var/lib/appliance/trust/", "var/lib/appliance/journal/"))}
    assert len(others) == 5
    assert not (host.prefix.root / "opt").exists()
    assert '"step": "uninstall", "state": "done"' in (host.prefix.journal / "install.jsonl").read_text()


def test_with_purge_nothing_stays(host: SimHost) -> None:
    uninstall(host.prefix, now, purge=True)
    assert list(host.prefix.root.iterdir()) == []


def test_what_a_person_put_into_the_folders_above_stays(host: SimHost, tmp_path: Path) -> None:
    mine = [host.prefix.root / "etc/mine", host.prefix.root / "var/lib/mine"]
    for path in mine:
        path.write_bytes(b"")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"")
    (host.prefix.models / "link").symlink_to(outside)
    (host.prefix.opt / "link").symlink_to(outside)
    uninstall(host.prefix, now, purge=True)
    assert left(host) == {"etc/mine", "var/lib/mine"}
    assert (outside / "file").exists()


def test_plan_shows_all_that_and_changes_nothing(host: SimHost) -> None:
    before = left(host)
    plan = plan_uninstall(host.prefix, "debian-12", purge=False)
    assert {host.prefix.opt, host.prefix.logs} <= set(plan.removes)
    assert {host.prefix.access, host.prefix.trust, host.prefix.site_file, host.prefix.default_key} <= set(plan.keeps)
    assert host.prefix.gateway_state in plan.keeps
    assert plan.size_bytes > 0
    assert plan_uninstall(host.prefix, "debian-12", purge=True).keeps == ()
    assert left(host) == before


def test_packages_that_bundles_brought_for_this_system_are_listed(tmp_path: Path) -> None:
    host = empty_host(tmp_path)
    names = ("debian-12/python3_3.11.2-1_amd64.deb", "debian-13/python3_3.13.5-1_amd64.deb")
    extra = [Source(f"os-packages/{name}", "os-package", data=name.encode()) for name in names]
    hold_release(host, "1.0.1", extra=extra)
    assert list(module.brought_packages(host.prefix, "debian-12")) == ["python3 3.11.2-1"]
    assert list(module.brought_packages(host.prefix, "debian-14")) == []


def test_nothing_to_uninstall_is_a_wrong_command(tmp_path: Path, host: SimHost) -> None:
    uninstall(host.prefix, now, purge=False)
    with pytest.raises(UsageError) as caught:
        plan_uninstall(host.prefix, "debian-12", purge=False)
    assert f"rm -r {host.prefix.state}" in caught.value.hint
    with pytest.raises(UsageError):
        resumed_purge(host.prefix)


def cut(script: str, step: str, when: str) -> str:
    """The script with a kill before or after one step."""
    loop = "for step in $STEPS; do\n"
    end = "        exit 8\n    fi\ndone"
    assert loop in script
    assert end in script
    kill = f'    if [ "$step" = {step} ]; then kill -9 $$; fi\n'
    return script.replace(loop, loop + kill) if when == "before" else script.replace(end, end[:-4] + kill + "done")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0].rpartition("/")[2])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_kill_at_every_boundary_is_finished_by_the_script_alone(
    host: SimHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str, when: str, shell: list[str]
) -> None:
    def run_cut(_prefix: object, script: Path, _lock: int) -> None:
        broken = tmp_path / "broken.sh"
        broken.write_text(cut(script.read_text(), step, when))
        done = subprocess.run([*shell, broken, host.prefix.root], check=False, capture_output=True)
        assert done.returncode == -9, done.stderr
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_script", run_cut)
    with pytest.raises(KeyboardInterrupt):
        uninstall(host.prefix, now, purge=True)
    script = uninstall_script(host.prefix)
    if (step, when) == ("record", "after"):
        assert list(host.prefix.root.iterdir()) == []
        return
    assert script.is_file(), "a person or a boot must find it"
    change = read_change(host.prefix)
    assert change is not None
    assert (change.op, change.purge) == ("uninstall", "yes")
    assert resumed_purge(host.prefix)
    done = subprocess.run([*shell, script, host.prefix.root], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(host.prefix.root.iterdir()) == []


def test_control_that_forgets_the_record_first_cannot_be_finished(host: SimHost, tmp_path: Path) -> None:
    early = SCRIPT.replace(f'STEPS="{" ".join(STEPS)}"', f'STEPS="record {" ".join(STEPS[:-1])}"')
    assert early != SCRIPT
    broken = tmp_path / "broken.sh"
    broken.write_text(cut(early, "record", "after"))
    write_change(host.prefix, HostChange("uninstall", "", "", "removing", "2026-01-02T03:04:05Z", purge="yes"))
    uninstall_script(host.prefix).write_text(SCRIPT)
    subprocess.run(["/bin/sh", broken, host.prefix.root], check=False, capture_output=True)
    assert not uninstall_script(host.prefix).exists()
    assert left(host) != set()


def test_uninstall_again_goes_on_where_one_was_cut_off_and_may_keep_more(
    host: SimHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_script", killed)
        with pytest.raises(KeyboardInterrupt):
            uninstall(host.prefix, now, purge=True)
    uninstall(host.prefix, now, purge=False)
    assert host.prefix.access.exists()


def test_script_without_its_record_removes_nothing(host: SimHost) -> None:
    script = uninstall_script(host.prefix)
    script.write_text(SCRIPT)
    before = left(host)
    for change in (None, HostChange(INSTALL, "1.0.2-0123456789ab", "", TRYING, "2026-01-02T03:04:05Z")):
        if change:
            write_change(host.prefix, change)
            before |= {"var/lib/appliance/change"}
        done = subprocess.run(["/bin/sh", script, host.prefix.root], check=False, capture_output=True, text=True)
        assert done.returncode == 2
        assert "records no uninstall" in done.stderr
        assert left(host) == before
    assert subprocess.run(["/bin/sh", script, "relative"], check=False, capture_output=True).returncode == 2


def test_step_that_fails_is_named_with_the_next_command(
    host: SimHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.sh"
    broken.write_text(SCRIPT.replace("step_state() {", "step_state() {\n    echo no such disk >&2; false"))
    with monkeypatch.context() as patch, pytest.raises(ApplyBrokenError) as caught:
        patch.setattr(module, "_SCRIPT", str(broken))
        uninstall(host.prefix, now, purge=True)
    assert "no such disk" in caught.value.found
    assert "'state'" in caught.value.found
    assert str(uninstall_script(host.prefix)) in caught.value.hint
    uninstall(host.prefix, now, purge=True)
    assert list(host.prefix.root.iterdir()) == []


def test_beside_an_install_it_leaves(host: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "hold", partial(hold, wait_s=0.1))
    # The lock of another process: of its own, a resumed run gives back what it has from its parent.
    holder = subprocess.Popen(["flock", host.prefix.journal / "lock", "sh", "-c", "echo; read -r line"], **PIPES)
    assert holder.stdin
    assert holder.stdout
    with holder:
        holder.stdout.readline()
        with pytest.raises(BusyError):
            uninstall(host.prefix, now, purge=True)
        holder.stdin.close()
    assert host.prefix.current.is_symlink()


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_command_loads_nothing_after_its_own_files_are_gone(
    host: SimHost, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    code = (
        "import sys\n"
        "from appliance.cli.command_table import loading\n"
        "from appliance.cli.upkeep import uninstall as command\n"
        "from appliance.host.maintenance import uninstall as module\n"
        "real = module.run_script\n"
        "class Refusing:\n"
        "    def find_spec(self, name, *_):\n"
        "        raise AssertionError(name + ' is loaded after its file is gone')\n"
        "def run(*arguments):\n"
        "    real(*arguments)\n"
        "    sys.meta_path.insert(0, Refusing())\n"
        "module.run_script = run\n"
        "from appliance.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "uninstall", "--prefix", host.prefix.root, "--purge", "--yes", *words],
        cwd=Path(__file__).parents[4],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "removes" in done.stderr) == (0, True), done.stderr
    assert ('"purge": true' if words else "are free again") in done.stdout
    assert list(host.prefix.root.iterdir()) == []


def test_command_asks_without_yes(host: SimHost) -> None:
    from tests.attacks.harness import command

    answer = command("uninstall", "--prefix", host.prefix.root)
    assert answer.code == 2
    assert "uninstall.unasked" in answer.talk
    assert f"removes    {host.prefix.opt}" in answer.talk
    assert host.prefix.current.is_symlink()


def test_no_other_command_gets_the_lock_before_everything_is_gone(
    host: SimHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_and_try(prefix: Prefix, script: Path, lock: int) -> None:
        # The last step asks for the lock first, as an install would.
        text, begin = script.read_text(), "\nstep_record() {\n"
        assert begin in text
        asked = f"mkdir -p {prefix.journal} && flock -n {prefix.journal}/lock echo free || true"
        script.write_text(text.replace(begin, f"{begin}    {asked}\n"))
        done = subprocess.run(["/bin/sh", script, prefix.root], pass_fds=(lock,), capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")
        assert (prefix.journal.exists(), prefix.opt.exists()) == (False, False)

    monkeypatch.setattr(module, "run_script", run_and_try)
    uninstall(host.prefix, now, purge=True)
    assert list(host.prefix.root.iterdir()) == []


def test_uninstall_that_never_ends_is_an_error_with_the_next_command(
    host: SimHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)
    script = uninstall_script(host.prefix)
    script.write_text("exec sleep 5\n")
    with pytest.raises(ApplyBrokenError, match="has not ended"), hold(host.prefix) as lock:
        module.run_script(host.prefix, script, lock)
