"""The table of commands: where each is, and what it does in one line.

Rules:
- a command's module is imported when that command runs: `appliance --help` shows the table and imports none of them;
- a row's help is the first sentence of the command's own help; a test compares them.
"""

from __future__ import annotations

import gc
import importlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import click

from signing.errors import ApplianceError


class CommandEntry(NamedTuple):
    """A row: the module that holds the command as `command`, its help in one line, and its group."""

    module: str
    help: str
    group: str


_MAKE, _CHECK, _HOST, _LEARN = "Make a bundle", "Check and carry", "On a host", "Learn"
COMMANDS = {
    "init": CommandEntry(
        "appliance.cli.publisher.init", "Make a workspace: a trust root, its keys, and an empty repository", _MAKE
    ),
    "lock": CommandEntry("appliance.cli.publisher.lock", "Pin every source of RECIPE by size and SHA-256", _MAKE),
    "build": CommandEntry("appliance.cli.publisher.build", "Build the bundle of RECIPE and sign it", _MAKE),
    "key": CommandEntry("appliance.cli.publisher.key", "Make a signing key, or show its public half", _MAKE),
    "sign": CommandEntry("appliance.cli.publisher.sign", "Show what REQUEST asks to sign; with --key, sign it", _MAKE),
    "trust": CommandEntry(
        "appliance.cli.publisher.trust", "Show, pin or change the trust root: the keys whose signatures count", _MAKE
    ),
    "verify": CommandEntry("appliance.cli.courier.verify", "Verify the signatures and every byte of PATH", _CHECK),
    "evidence": CommandEntry(
        "appliance.cli.courier.evidence", "Check a record that `appliance verify --evidence` wrote", _CHECK
    ),
    "inspect": CommandEntry(
        "appliance.cli.courier.inspect",
        "Show what the bundle or stick at PATH holds, who signed it, and what it needs",
        _CHECK,
    ),
    "diff": CommandEntry(
        "appliance.cli.courier.diff",
        "Show what differs between the bundles OLD and NEW, and what a delta carries",
        _CHECK,
    ),
    "stick": CommandEntry("appliance.cli.courier.stick", "Write bundles to sticks, and check what sticks hold", _CHECK),
    "bundle": CommandEntry("appliance.cli.courier.bundle", "Carry a bundle through a registry", _CHECK),
    "host": CommandEntry(
        "appliance.cli.planner.host", "Show what this machine is, and whether it can take a bundle", _HOST
    ),
    "plan": CommandEntry(
        "appliance.cli.planner.plan",
        "Show how much memory the models of SOURCE need, and what an install would change",
        _HOST,
    ),
    "install": CommandEntry(
        "appliance.cli.operator.install", "Install the bundle at SOURCE on this host, or finish or repair it", _HOST
    ),
    "serve": CommandEntry(
        "appliance.cli.operator.serve", "Verify everything that is installed, then serve it until Ctrl-C", _HOST
    ),
    "status": CommandEntry(
        "appliance.cli.operator.status", "Show what is installed, and every difference from what was signed", _HOST
    ),
    "bench": CommandEntry("appliance.cli.operator.bench", "Measure tokens/s and time to first token", _HOST),
    "scrub": CommandEntry("appliance.cli.upkeep.scrub", "Read the served models from the disk again", _HOST),
    "config": CommandEntry(
        "appliance.cli.upkeep.config", "Show, check or apply what the site has decided: site.yaml", _HOST
    ),
    "access": CommandEntry("appliance.cli.access.command", "Grant, show and revoke users' keys; show usage", _HOST),
    "tls": CommandEntry("appliance.cli.access.tls", "Make, renew or show the certificates of this site", _HOST),
    "gc": CommandEntry("appliance.cli.upkeep.gc", "Remove releases and models that this host does not need", _HOST),
    "switch": CommandEntry("appliance.cli.operator.switch", "Make a staged RELEASE serve", _HOST),
    "rollback": CommandEntry(
        "appliance.cli.upkeep.rollback", "Go back to an installed release: RELEASE, or the one before", _HOST
    ),
    "backup": CommandEntry(
        "appliance.cli.upkeep.backup",
        "Write what no stick can bring back to DEST: floors, keys, configuration",
        _HOST,
    ),
    "restore": CommandEntry("appliance.cli.upkeep.restore", "Put back what BACKUP has; floors only rise", _HOST),
    "uninstall": CommandEntry(
        "appliance.cli.upkeep.uninstall", "Remove the appliance from this host: files, services, users", _HOST
    ),
    "receipt": CommandEntry(
        "appliance.cli.operator.receipt", "Write what this host holds, or read what a host wrote", _HOST
    ),
    "doctor": CommandEntry(
        "appliance.cli.upkeep.doctor", "Show what is wrong on this machine, and the command that mends it", _HOST
    ),
    "support": CommandEntry(
        "appliance.cli.upkeep.support",
        "Write a file about this host to DEST, a folder or a file, for the people who help",
        _HOST,
    ),
    "demo": CommandEntry("appliance.cli.demo.command", "Show the whole journey on this machine", _LEARN),
    "docs": CommandEntry("appliance.cli.docs", "Show a page of the project, or list all pages", _LEARN),
}
"""Every command by its name; in each group in the order of use."""


class CommandTable(click.Group):
    """A group of commands that imports one when it runs."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line."""
        with _without_reader():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _without_reader():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands whose module is part of this installation."""
        return [name for name in COMMANDS if _is_installed(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command.

        Raises:
            ApplianceError: the command needs a library that this installation lacks.
        """
        if not _is_installed(cmd_name):
            return None
        module = COMMANDS[cmd_name].module
        command = _import(cmd_name, module).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, from the table alone."""
        names = self.list_commands(ctx)
        for group in dict.fromkeys(COMMANDS[name].group for name in names):
            with formatter.section(group):
                formatter.write_dl([(name, COMMANDS[name].help) for name in names if COMMANDS[name].group == group])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or name the one that was probably meant."""
        name = args[0]
        if not name.startswith("-") and not _is_installed(name):
            import difflib  # for a mistyped name only

            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            meant = f"; did you mean '{close[0]}'?" if close else ""
            raise click.UsageError(f"no command '{name}'{meant}", ctx)
        return super().resolve_command(ctx, args)


def _is_installed(name: str) -> bool:
    return name in COMMANDS and find_spec(COMMANDS[name].module) is not None


@contextmanager
def _without_reader() -> Iterator[None]:
    # Of a help text: click would end with 1, as if the command had failed.
    try:
        yield
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None


def _import(name: str, module: str) -> ModuleType:
    with loading(name, module):
        return importlib.import_module(module)


@contextmanager
def loading(name: str, module: str) -> Iterator[None]:
    """Load modules in the block: without a search for garbage, which modules are not, at this time and later.

    Args:
        name: of the command that needs them.
        module: one of them. Where it is loaded already, nothing is done.

    Raises:
        ApplianceError: they need a library that this installation lacks (code `command.extra-missing`).
    """
    pauses = module not in sys.modules and gc.isenabled()
    if pauses:
        gc.disable()
    try:
        yield
        if pauses:
            gc.freeze()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("appliance", "bundles", "signing"):
            raise  # a bug: the module is part of this program
        raise ApplianceError(
            "command.extra-missing",
            f"appliance {name}",
            expected="the libraries of the extra 'build'",
            found=f"no module {error.name}",
            hint="run it on the machine that builds: pip install 'airgap-appliance[build]'",
        ) from None
    finally:
        if pauses:
            gc.enable()
