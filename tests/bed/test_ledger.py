"""The attempt ledger sees every attempt to reach a network, and is red when it could not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import network as network_module
from tests.bed.abilities import LACKS, no_network, no_root, no_strace
from tests.bed.canaries import CANARIES, LOOKUP, Canary
from tests.bed.cell import processes_in
from tests.bed.fixtures import require
from tests.bed.ledger import AttemptsError, Culprit, Ledger, read_calls
from tests.bed.network import Destination, Network, NotIsolatedError, require_isolated
from tests.bed.open_network import ASK, OUTSIDE, Outside, open_way_out

TOP = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tests.bed.ledger", "--"]
LOOPBACK = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()); print('ok')"
)
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]


@pytest.fixture
def loud() -> Iterator[Ledger]:
    """A ledger under which attempts are expected."""
    require(no_network())
    with Ledger() as made:
        yield made


@pytest.fixture
def outside() -> Iterator[Outside]:
    require(no_network())
    require(no_root())
    with Outside() as made:
        yield made


def run_command(argv: list[str], *, before: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    require(no_network())
    return subprocess.run([*(before or []), *COMMAND, *argv], cwd=TOP, capture_output=True, text=True, timeout=60)


def test_command_that_uses_loopback_only_leaves_the_ledger_at_0(ledger: Ledger) -> None:
    assert ledger.run(["python3", "-c", LOOPBACK]).out == "ok\n"
    assert ledger.attempts().total == 0


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.name)
def test_one_attempt_is_counted_under_its_kind_with_its_destination(loud: Ledger, canary: Canary) -> None:
    loud.run(canary.argv, check=False, timeout_s=60)
    attempts = loud.attempts()
    assert getattr(attempts, canary.kind) >= 1
    assert attempts.total == getattr(attempts, canary.kind)
    assert attempts.destinations == (Destination(canary.address, canary.protocol, canary.port),)
    with pytest.raises(AttemptsError, match=canary.address):
        loud.require_none()


@pytest.mark.ci
def test_lookup_of_a_name_is_counted_as_dns(loud: Ledger) -> None:
    loud.run(LOOKUP, check=False, timeout_s=120)
    assert loud.attempts().dns >= 1


def test_attempt_is_refused_at_once_and_does_not_hang(loud: Ledger) -> None:
    refused = loud.run(CANARIES[0].argv, check=False, timeout_s=60)
    assert "ConnectionRefusedError" in refused.err


def test_root_inside_cannot_clear_the_ledger(loud: Ledger) -> None:
    loud.run(CANARIES[0].argv, check=False)
    loud.run(["nft", "flush", "ruleset"])
    assert loud.run(["nft", "delete", "table", "inet", network_module.TABLE], check=False).code != 0
    loud.run(CANARIES[1].argv, check=False)
    assert loud.attempts().ipv4 == 2


def test_daemon_that_outlives_its_command_is_ended_with_the_ledger(loud: Ledger) -> None:
    loud.run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in processes_in(loud.network.cell.namespaces)}
    assert "sleep" in names
    loud.close()
    assert processes_in(loud.network.cell.namespaces) == []


def test_two_ledgers_do_not_see_each_other(loud: Ledger, ledger: Ledger) -> None:
    loud.run(CANARIES[0].argv, check=False)
    assert (loud.attempts().total, ledger.attempts().total) == (1, 0)


# Controls: with the isolation removed, each check must fail.


def test_control_without_a_namespace_the_proof_fails() -> None:
    with pytest.raises(NotIsolatedError, match="network of this machine"):
        require_isolated(os.getpid(), {"lo"})


@pytest.mark.parametrize("rule", ["counter name ipv4 goto stop", "counter name ipv4"])
def test_control_without_the_counter_the_proof_fails(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    require(no_network())
    without = network_module.RULES.replace(f"meta nfproto ipv4 {rule}", "meta nfproto ipv4 accept #")
    assert without != network_module.RULES
    monkeypatch.setattr(network_module, "RULES", without)
    with pytest.raises(NotIsolatedError, match="was not counted"):
        Network()


@pytest.mark.ci
def test_control_a_network_that_was_opened_turns_the_ledger_red(loud: Ledger, outside: Outside) -> None:
    open_way_out(loud.network.cell, outside)
    loud.run(["python3", "-c", ASK], check=False)
    assert OUTSIDE in {destination.address for destination in loud.attempts().destinations}
    with pytest.raises(NotIsolatedError, match="way out: wan0"):
        loud.network.prove()


def test_control_the_outside_answers_where_nothing_stands_in_the_way(outside: Outside) -> None:
    asked = subprocess.run([*outside.cell.enter(), "--", "python3", "-c", ASK.replace(OUTSIDE, "127.0.0.1")])
    assert asked.returncode == 0


# The command line.


def test_command_line_passes_output_and_exit_code_of_a_quiet_command_through() -> None:
    ended = run_command(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (ended.returncode, ended.stdout) == (7, "out\n")
    assert ended.stderr == "err\nledger: nothing tried to reach a network\n"


@pytest.mark.ci
@pytest.mark.parametrize("canary", [CANARIES[0], CANARIES[3], CANARIES[8]], ids=lambda canary: canary.name)
def test_command_line_is_red_for_an_attempt_and_names_the_process(canary: Canary) -> None:
    require(no_strace())
    ended = run_command(canary.argv)
    assert ended.returncode == 1
    assert "tried to reach a network: 1 packets" in ended.stderr
    assert f"  python3 → {canary.address} port {canary.port}\n" in ended.stderr


def test_process_is_called_by_the_program_it_became() -> None:
    """A shell becomes a script, the script an interpreter, which forks; what was not found does not count."""
    log = """\
10 execve("/usr/bin/sh", [...], 0x7ffd /* 35 vars */) = 0
10 vfork( <unfinished ...>
11 execve("/opt/shims/python3", [...], 0x7ffd /* 35 vars */ <unfinished ...>
10 <... vfork resumed>) = 11
11 <... execve resumed>) = 0
11 execve("/opt/bin/bash", [...], 0x7ffd /* 35 vars */) = -1 ENOENT (No such file or directory)
11 execve("/usr/bin/python3.11", [...], 0x7ffd /* 35 vars */) = 0
11 clone(child_stack=NULL, flags=SIGCHLD, child_tidptr=0x7f60) = 12
12 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = -1 EPERM (Operation)
10 connect(3, {sa_family=AF_INET6, sin6_port=htons(53), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}, 28) = 0
"""
    assert read_calls(log) == [Culprit("python3.11", "192.0.2.1", 443), Culprit("sh", "2001:db8::1", 53)]


@pytest.mark.ci
def test_command_line_is_red_when_the_command_hides_its_failure() -> None:
    require(no_strace())
    hidden = run_command(["sh", "-c", 'python3 -c "$0" 2>/dev/null; exit 0', CANARIES[0].argv[2]])
    assert hidden.returncode == 1


@pytest.mark.ci
def test_command_line_works_without_root() -> None:
    require(no_strace())
    require(no_root())
    readable = subprocess.run([*NOBODY, sys.executable, "-c", "import tests.bed.ledger"], cwd=TOP, capture_output=True)
    if readable.returncode != 0:
        pytest.skip(f"{LACKS}a checkout and a Python that every user can read")
    quiet = run_command(["python3", "-c", LOOPBACK], before=NOBODY)
    assert (quiet.returncode, quiet.stdout) == (0, "ok\n")
    loud = run_command(CANARIES[0].argv, before=NOBODY)
    assert loud.returncode == 1
    assert "python3 → 192.0.2.1 port 443" in loud.stderr


@pytest.mark.parametrize("arguments", [[], ["--"], ["true"]], ids=str)
def test_command_line_tells_how_it_is_called(arguments: list[str]) -> None:
    ended = subprocess.run([*COMMAND[:-1], *arguments], cwd=TOP, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: ")
