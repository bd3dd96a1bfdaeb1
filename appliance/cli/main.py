"""The entry point `appliance`: it finds the command, runs it, and ends with an exit code.

Rules:
- every error of `signing.errors` has its own exit code; a wrong command line ends with 2, a signal n with 128 + n;
- a full disk or a refused permission is the machine's answer and no bug: exit 1 and its name;
- anything else is a bug: exit 70 and a report file without environment and local values.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from appliance.cli.command_table import CommandTable
from appliance.cli.console.stream import discard
from appliance.cli.console.terminal import Terminal
from signing.errors import ApplianceError

EXIT_BUG = 70


# What a machine refuses, and the next step.
_REFUSED = {
    errno.ENOSPC: "free some space there, then run the same command again",
    errno.EDQUOT: "your quota there is used up: free some space, then run the same command again",
    errno.EROFS: "that file system is read-only: choose another folder",
    errno.EACCES: "run as the user who owns it, or choose another folder",
    errno.EPERM: "run as the user who owns it, or choose another folder",
    errno.ENAMETOOLONG: "check the path: one of its names is too long",
}


@click.group(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="airgap-appliance", prog_name="appliance")
def appliance() -> None:
    """Build, sign, carry, install and serve language models on machines that no network reaches.

    \b
    Example:
      appliance demo        the whole journey on this machine
    """


def main() -> NoReturn:
    """Run the command line of this process, and end it with the exit code."""
    _escape_unencodable_text()
    signal.signal(signal.SIGTERM, _on_terminate)
    code = run(sys.argv[1:], Terminal())
    _flush_output()
    sys.exit(code)


def run(arguments: list[str], terminal: Terminal) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name.
        terminal: where errors are shown; the command gets the same one.

    Returns:
        The exit code (docs/architecture.md, Commands and exit codes). Raises nothing.
    """
    try:
        appliance.main(arguments, prog_name="appliance", standalone_mode=False, obj=terminal)
    except ApplianceError as error:
        terminal.error(error)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        for line in error.ctx.get_help().splitlines():
            terminal.message(line)
        return 2
    except click.UsageError as error:
        _show_usage(error, arguments, terminal)
        return 2
    except click.ClickException as error:
        terminal.failure(error.format_message(), exit_code=error.exit_code)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        terminal.message("interrupted")
        return 128 + signal.SIGINT
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _show_refusal(error, arguments, terminal)
    except Exception as error:  # noqa: BLE001 - the one place where a bug ends, with a report instead of a traceback
        return _show_bug(error, arguments, terminal)
    return 0


def _show_usage(error: click.UsageError, arguments: Sequence[str], terminal: Terminal) -> None:
    command = error.ctx.command_path if error.ctx else "appliance"
    # A wrong option may stand before --json, and a wrong command has no options at all.
    terminal.answers_json = terminal.answers_json or "--json" in arguments
    terminal.failure(error.format_message(), f"{command} --help", exit_code=2)


def _show_refusal(error: OSError, arguments: Sequence[str], terminal: Terminal) -> int:
    if error.errno == errno.ENOENT and not _has_folder():
        terminal.failure("the folder that this command runs in is gone", "go to another one first: cd /")
        return 1
    hint = _REFUSED.get(error.errno or 0)
    if hint is None:
        return _show_bug(error, arguments, terminal)
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
    terminal.failure(f"{(error.strerror or str(error)).lower()}{where}", hint)
    return 1


def _has_folder() -> bool:
    try:
        os.getcwd()  # the stick that it was on may have been taken away
    except OSError:
        return False
    return True


def _show_bug(error: Exception, arguments: Sequence[str], terminal: Terminal) -> int:
    from appliance.cli.bug_report import format_report, write_report  # loaded for a bug only: it needs much to load

    terminal.failure(f"this is a bug of this program: {type(error).__name__}: {error}", exit_code=EXIT_BUG)
    report = format_report(error, arguments)
    try:
        path = write_report(report)
    except OSError:
        for line in report.splitlines():
            terminal.message(line)
    else:
        terminal.message(
            f"hint: send the report {path} to the publisher of this program; it holds no keys and no prompts"
        )
    return EXIT_BUG


def _on_terminate(_number: int, _frame: FrameType | None) -> None:
    # Raised, not handled here: open files and child processes are ended by the code that owns them.
    raise SystemExit(128 + signal.SIGTERM)


def _escape_unencodable_text() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush_output() -> None:
    """Write what is buffered. Where that fails, the exit code still stands, and Python's own last flush is silent."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            discard(stream)


if __name__ == "__main__":
    main()
