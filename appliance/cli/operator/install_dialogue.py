"""What an install shows the operator before it writes anything: the plan, and one question."""

from __future__ import annotations

import sys

import click

from appliance.cli.console.figures import format_memory, format_size
from appliance.cli.console.terminal import Terminal
from appliance.host.install.install_plan import InstallPlan
from bundles.bundle import Bundle
from signing.verified import Verified

_SHOWN_PACKAGES = 8


class OperatorDialogue:
    """Shows the plan of an install, and asks once where a person is there to answer.

    Args:
        terminal: where the plan is shown.
        is_agreed: whether the operator has said yes in the command.
    """

    def __init__(self, terminal: Terminal, *, is_agreed: bool) -> None:
        self._terminal, self._is_agreed = terminal, is_agreed

    def on_verified(self, bundle: Verified[Bundle]) -> None:
        """Go on: the program that runs applies the bundle."""

    def on_planned(self, plan: InstallPlan) -> None:
        """Show the plan, and ask.

        Raises:
            Abort: the answer is no; nothing was written.
        """
        for line in plan_lines(plan):
            self._terminal.message(line)
        if not self._is_agreed and has_person() and not click.confirm("install this?", err=True):
            self._terminal.message("nothing was changed")
            raise click.Abort


def has_person() -> bool:
    """Whether a question would be seen and can be answered: both input and messages are a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def plan_lines(plan: InstallPlan) -> list[str]:
    """The plan in a few lines."""
    contents = plan.bundle.value.contents
    lines = [f"to install: {plan.bundle.value.label} as {plan.release}"]
    if plan.files:
        lines.append(f"  copies    {plan.files} of {len(contents.files)} files, at most {format_size(plan.size_bytes)}")
    else:
        lines.append("  copies    nothing: every file is there; each is compared")
    if plan.packages:
        lines.append(f"  packages  {_packages(plan)}")
    if plan.units:
        lines.append(f"  services  {', '.join(plan.units)}; they start at every boot")
    else:
        lines.append(f"  services  none; to serve: appliance serve{plan.prefix.option}")
    if plan.memory is not None:
        need, budget = format_memory(plan.memory.total), format_memory(plan.memory.budget)
        lines.append(f"  memory    {need} of the {budget} that models may take")
    if plan.before is not None and plan.before.rpartition("/")[2] != plan.release.name:
        lines.append(f"  until it has answered, {plan.before.rpartition('/')[2]} serves")
    return lines


def _packages(plan: InstallPlan) -> str:
    names = [name.partition("_")[0] for name in plan.packages]
    shown = ", ".join(names[:_SHOWN_PACKAGES]) + (
        f" and {len(names) - _SHOWN_PACKAGES} more" if len(names) > _SHOWN_PACKAGES else ""
    )
    return f"for {plan.system}, those that are absent or older: {shown}"
