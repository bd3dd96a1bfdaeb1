"""What an install shows the operator before it writes anything: the plan, and one question."""

from __future__ import annotations

import sys

import click

from appliance.cli.console.figures import format_memory
from appliance.cli.console.terminal import Terminal
from appliance.cli.console.waiting import is_watched
from appliance.host.install.hand_over import hand_over
from appliance.host.install.planning.install_plan import InstallPlan
from appliance.host.models.switch_memory import WINDOW
from appliance.host.preflight.inputs import Host
from bundles.bundle import Bundle
from bundles.chunks.source import ChunkSource
from bundles.progress import OnProgress
from bundles.report import format_size
from signing.verified import Verified

_SHOWN_PACKAGES = 8


class OperatorDialogue:
    """Shows the plan of an install, and asks once where a person is there to answer.

    Before that, it hands over to the bundle's own program where another one runs.

    Args:
        terminal: where the plan is shown.
        host: where to install.
        on_progress: called with bytes of that program.
        is_agreed: whether the operator has said yes in the command.
    """

    def __init__(self, terminal: Terminal, host: Host, on_progress: OnProgress, *, is_agreed: bool) -> None:
        self._terminal, self._host, self._on_progress, self._is_agreed = terminal, host, on_progress, is_agreed

    def on_verified(self, bundle: Verified[Bundle], source: ChunkSource) -> None:
        """Start the bundle's own program where another one runs; then this does not return."""
        hand_over(
            bundle.value,
            source,
            self._host.prefix,
            self._host.card.system.os,
            typed_arguments(click.get_current_context()),
            on_progress=self._on_progress,
            announce=lambda: self._announce(bundle),
        )

    def _announce(self, bundle: Verified[Bundle]) -> None:
        self._terminal.message(f"{bundle.value.label} was verified and brings another program: that one installs it")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()

    def on_planned(self, plan: InstallPlan) -> None:
        """Show the plan, and ask.

        Raises:
            Abort: the answer is no; nothing was written.
        """
        for line in plan_lines(plan):
            self._terminal.message(line)
        if not self._is_agreed and is_watched() and not click.confirm("install this?", err=True):
            self._terminal.message("nothing was installed")
            raise click.Abort


def typed_arguments(context: click.Context) -> list[str]:
    """The words of the running command as a person typed them: its name, its options, then its arguments."""
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        values = value if isinstance(value, tuple) else (value,)
        if isinstance(parameter, click.Argument):
            arguments += map(str, values)
        elif isinstance(value, bool):
            options.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            options += [word for one in values for word in (parameter.opts[0], str(one))]
    return [context.info_name or "", *options, "--", *arguments]


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
        lines.append("  services  none; the command to serve in the foreground follows the install")
    if plan.memory is not None:
        need, budget = format_memory(plan.memory.total), format_memory(plan.memory.budget)
        lines.append(f"  memory    {need} of the {budget} that models may take")
    if plan.switch is not None and plan.switch.way == WINDOW:
        lines.append("  switch    in a window: users get 503 until the new engines have started; see `appliance plan`")
    if plan.before is not None and plan.before.rpartition("/")[2] != plan.release.name:
        lines.append(f"  until it has answered, {plan.before.rpartition('/')[2]} serves")
    return lines


def _packages(plan: InstallPlan) -> str:
    names = [name.partition("_")[0] for name in plan.packages]
    shown = ", ".join(names[:_SHOWN_PACKAGES]) + (
        f" and {len(names) - _SHOWN_PACKAGES} more" if len(names) > _SHOWN_PACKAGES else ""
    )
    return f"for {plan.system}, those that are absent or older: {shown}"
