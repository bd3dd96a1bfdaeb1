"""The launcher of a child process: it isolates the child, watches it, and ends with it.

Run as a script by `appliance.host.process.child` and by nothing else; standard library only. Three processes
result: the launcher, the first process of the child's own PID namespace, and the program itself.

Rules:
- the child has its own user, network and PID namespace; the network namespace holds only a loopback that is down;
- namespaces are entered before the program is loaded; where that fails, the status is `refused` and nothing is loaded;
- the program has no capabilities, no way to gain privileges, no core dumps (they would hold prompts), and a session of
  its own;
- when the appliance dies, however it dies, the lifeline closes and everything below is killed;
- when the launcher dies, the kernel kills the first process of the namespace, and with it the rest;
- signals to the launcher reach the program; the launcher ends with the program's exit status, a signal n as 128 + n.

Command line: `isolation.py LIFELINE STATUS UMASK FLAGS PROGRAM [ARGUMENT…]`, where the first two are descriptors and
FLAGS is a list of `isolate`, `keep-capabilities`, `stack=BYTES` with commas between, or `-`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
LAST_CAPABILITY = 63
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
EXIT_NOT_STARTED = 127

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


class Program(NamedTuple):
    """The program to load: its command line, which begins with its path, and its whole environment."""

    argv: list[str]
    env: dict[bytes, bytes]


def main(arguments: list[str]) -> int:
    """Isolate, start and watch one program.

    Args:
        arguments: as in the module's docstring; trusted, since the appliance passes them.

    Returns:
        The exit status for this process.
    """
    lifeline, status = int(arguments[0]), int(arguments[1])
    os.umask(int(arguments[2], 8))
    flags, program = arguments[3].split(","), Program(arguments[4:], _environment())
    os.set_inheritable(lifeline, False)
    os.set_inheritable(status, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, signal.SIGCHLD))
    try:
        _restrict("keep-capabilities" in flags)
        if "isolate" in flags:
            isolate()
    except OSError as error:
        _report(status, f"refused {error.strerror}")
        return EXIT_NOT_STARTED
    _report(status, "isolated" if "isolate" in flags else "open")
    if "isolate" not in flags:
        return _start(program, flags, lifeline, status)
    alive, keep = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(keep)
        _die_with_parent(alive)
        os._exit(_start(program, flags, lifeline, status))
    os.close(alive)
    os.close(status)
    return watch(first, lifeline)


def isolate() -> None:
    """Enter new network and PID namespaces, in a user namespace of its own unless this is root.

    Raises:
        OSError: the machine allows neither; this process may have entered some of the namespaces, and must end.
    """
    namespaces = CLONE_NEWNET | CLONE_NEWPID
    if os.geteuid() == 0 and _libc.unshare(namespaces) == 0:
        return
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(CLONE_NEWUSER | namespaces))
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def watch(child: int, lifeline: int) -> int:
    """Wait for a child, forward signals to it, and reap the orphans that this process inherits.

    Args:
        child: its process id.
        lifeline: a descriptor whose other end is closed when the appliance dies.

    Returns:
        The child's exit status, or 128 + n where signal n ended it.
    """
    wake, poll = _wakeup_pipe(), select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if lifeline in ready:
            poll.unregister(lifeline)
            os.kill(child, signal.SIGKILL)
        if wake in ready:
            for number in os.read(wake, 64):
                if number != signal.SIGCHLD:
                    os.kill(child, number)
        for process, code in _reap():
            if process == child:
                return code


def _start(program: Program, flags: list[str], lifeline: int, status: int) -> int:
    # In a PID namespace this is the first process: when it ends, the kernel ends the rest. Elsewhere `_end_rest` does.
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    alive, keep = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(keep)
        _die_with_parent(alive)
        _load(program, flags, status)
    os.close(alive)
    os.close(status)
    try:
        return watch(child, lifeline)
    finally:
        if "isolate" not in flags:
            _end_rest()


def _load(program: Program, flags: list[str], status: int) -> NoReturn:
    with contextlib.suppress(OSError):
        os.setsid()
    for number in (*FORWARDED, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        if "keep-capabilities" not in flags:
            _drop_capabilities()
        for flag in flags:
            if flag.startswith("stack="):
                _limit_stack(int(flag.removeprefix("stack=")))
        os.execve(program.argv[0], program.argv, program.env)
    except OSError as error:
        _report(status, f"failed {error.strerror}")
    os._exit(EXIT_NOT_STARTED)


def _limit_stack(size_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (size_bytes if hard < 0 else min(size_bytes, hard), hard))


def _restrict(keep_capabilities: bool) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if not keep_capabilities:
        # This takes effect when the program is loaded; until then unshare needs them. Unknown numbers are refused.
        for number in range(LAST_CAPABILITY + 1):
            _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)


def _drop_capabilities() -> None:
    # A program that root loads regains every inheritable capability, so none may be inheritable. Version 3 of the call
    # takes two 32-bit halves.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()))


def _die_with_parent(alive: int) -> None:
    # The parent may have died before this call: then the other end of this pipe is closed already.
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if select.select([alive], [], [], 0)[0]:
        os._exit(EXIT_NOT_STARTED)
    os.close(alive)


def _wakeup_pipe() -> int:
    reading, writing = os.pipe()
    for descriptor in (reading, writing):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (*FORWARDED, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reading


def _reap() -> Iterator[tuple[int, int]]:
    while True:
        try:
            process, state = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if process == 0:
            return
        code = os.waitstatus_to_exitcode(state)
        yield process, code if code >= 0 else 128 - code


def _end_rest() -> None:
    # This process inherits orphans. Each round kills those whose parents the round before has killed.
    while True:
        try:
            with open("/proc/thread-self/children", encoding="ascii") as file:
                left = [int(text) for text in file.read().split()]
        except OSError:
            return
        if not left:
            return
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _environment() -> dict[bytes, bytes]:
    # os.environ would differ: Python adds LC_CTYPE where no locale is set.
    with open("/proc/self/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if b"=" in entry)
        return {name: value for name, _, value in pairs}


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _report(status: int, word: str) -> None:
    with contextlib.suppress(OSError):
        os.write(status, f"{word}\n".encode())


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
