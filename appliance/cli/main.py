"""The program's front door: finds the command, runs it, and turns whatever happens into an exit code.

Rules:
- a command's module is imported only when that command runs, so that `appliance --help` needs no heavy library;
- every error of `signing.errors` leaves with its own exit code; a wrong command line with 2; a signal n with 128 + n;
- a full disk or a refused permission is the machine's answer, not our bug: exit 1 and its name;
- anything else is our bug: exit 70 and a report file that holds no environment and no local values.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import signal
import sys
from types import FrameType

import click

from appliance.cli.console.terminal import Terminal
from signing.errors import ApplianceError

EXIT_OUR_BUG = 70
_COLLECT_EVERY = 50_000  # objects

COMMANDS = {
    "init": "appliance.cli.init",
    "lock": "appliance.cli.lock",
    "build": "appliance.cli.build",
    "key": "appliance.cli.key",
    "sign": "appliance.cli.sign",
    "verify": "appliance.cli.verify",
    "evidence": "appliance.cli.evidence",
    "inspect": "appliance.cli.inspect",
    "diff": "appliance.cli.diff",
    "bundle": "appliance.cli.bundle",
    "stick": "appliance.cli.stick",
    "trust": "appliance.cli.trust",
    "host": "appliance.cli.host",
    "plan": "appliance.cli.plan",
    "install": "appliance.cli.install",
    "serve": "appliance.cli.serve",
    "status": "appliance.cli.status",
    "demo": "appliance.cli.demo.command",
}
"""Every command and the module that holds it as `command`, in the order of a bundle's life."""

# What a machine refuses, in the order: no space, quota, read-only, not permitted, no such name.
_REFUSED = {
    errno.ENOSPC: "free some space there, then run the same command again",
    errno.EDQUOT: "your quota there is used up: free some space, then run the same command again",
    errno.EROFS: "that file system is read-only: choose another folder",
    errno.EACCES: "run as the user who owns it, or choose another folder",
    errno.EPERM: "run as the user who owns it, or choose another folder",
    errno.ENAMETOOLONG: "check how the path is spelled",
}


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands whose module is part of this installation."""
        return [name for name, module in COMMANDS.items() if _is_installed(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in COMMANDS or not _is_installed(COMMANDS[cmd_name]):
            return None
        command = importlib.import_module(COMMANDS[cmd_name]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name]}.command is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or name the one that was probably meant."""
        name = args[0]
        if not name.startswith("-") and (name not in COMMANDS or not _is_installed(COMMANDS[name])):
            import difflib

            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            meant = f"; did you mean '{close[0]}'?" if close else ""
            raise click.UsageError(f"no command '{name}'{meant}", ctx)
        return super().resolve_command(ctx, args)


def _is_installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="airgap-appliance", prog_name="appliance")
def appliance() -> None:
    """Build, sign, carry, install and serve language models on machines that no network reaches.

    \b
    Example:
      appliance demo        the whole journey on this machine
    """


def main() -> None:
    """The entry point `appliance`."""
    # Nothing that is loaded becomes garbage, and looking for some takes a tenth of a short command's time.
    gc.set_threshold(_COLLECT_EVERY)
    _never_fail_to_spell()
    signal.signal(signal.SIGTERM, _on_terminate)
    code = run(sys.argv[1:], Terminal())
    for stream in (sys.stdout, sys.stderr):
        # Nobody may be there to read it any more, or it was closed from the start: the exit code tells what happened.
        with contextlib.suppress(OSError, AttributeError, ValueError):
            stream.flush()
    # Everything is done and closed. Taking all modules apart is a tenth of a short command's time.
    os._exit(code)


def run(arguments: list[str], terminal: Terminal) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name.
        terminal: where errors are shown; the command gets the same one.

    Returns:
        The exit code (DESIGN 11). Raises nothing.
    """
    try:
        appliance.main(arguments, prog_name="appliance", standalone_mode=False, obj=terminal)
    except ApplianceError as error:
        terminal.error(error)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        terminal.say(error.ctx.get_help())
        return 2
    except click.UsageError as error:
        _show_usage(error, terminal)
        return 2
    except click.ClickException as error:
        terminal.failure(error.format_message(), exit_code=error.exit_code)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        terminal.say("interrupted")
        return 128 + signal.SIGINT
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _machine_refused(error, arguments, terminal)
    except Exception:  # noqa: BLE001 - the one place where our own bugs end, with a report instead of a screenful
        return _our_bug(arguments, terminal)
    return 0


def _show_usage(error: click.UsageError, terminal: Terminal) -> None:
    command = error.ctx.command_path if error.ctx else "appliance"
    terminal.failure(error.format_message(), f"{command} --help", exit_code=2)


def _machine_refused(error: OSError, arguments: list[str], terminal: Terminal) -> int:
    hint = _REFUSED.get(error.errno or 0)
    if hint is None:
        return _our_bug(arguments, terminal)
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
    terminal.failure(f"{(error.strerror or str(error)).lower()}{where}", hint)
    return 1


def _our_bug(arguments: list[str], terminal: Terminal) -> int:
    import platform
    import tempfile
    import traceback
    from importlib.metadata import version

    kind, error, _ = sys.exc_info()
    terminal.failure(f"this is a bug of ours: {kind.__name__ if kind else ''}: {error}", exit_code=EXIT_OUR_BUG)
    report = (
        f"airgap-appliance {version('airgap-appliance')}, Python {platform.python_version()}, {platform.platform()}\n"
        f"appliance {' '.join(arguments)}\n\n{traceback.format_exc()}"
    )
    try:
        descriptor, path = tempfile.mkstemp(prefix="appliance-report-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(report)
    except OSError:
        terminal.say(report)
    else:
        terminal.say(f"hint: send the report {path} to whoever gave you this program; it holds no keys and no prompts")
    return EXIT_OUR_BUG


def _on_terminate(_number: int, _frame: FrameType | None) -> None:
    # Raised, not acted on here: open files and child processes are ended by the code that owns them.
    raise SystemExit(128 + signal.SIGTERM)


def _never_fail_to_spell() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
