"""`appliance demo`: the whole journey on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from appliance.builder.recipe.reader import load_recipe
from appliance.cli.console.figures import format_duration
from appliance.cli.console.options import json_option, pass_terminal
from appliance.cli.console.terminal import Terminal
from appliance.cli.demo.flip_byte import restore
from appliance.cli.demo.steps import Journey
from appliance.resources import recipes_path
from signing.errors import BusyError


@click.command("demo")
@click.option(
    "--folder",
    metavar="DIR",
    default=".demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Takes everything that the demo makes.",
)
@json_option
@pass_terminal
def command(terminal: Terminal, folder: Path, as_json: bool) -> None:
    """Show the whole journey on this machine.

    Six steps build, sign, carry, install, serve, and refuse damage. They run the commands that you would type, with a
    small real model. The host half runs without any network where this machine allows it. A second run changes nothing
    that is already right.

    \b
    Example:
      appliance demo --folder /tmp/demo
    """
    recipe_path = _relative(recipes_path() / "smollm2.yaml")
    recipe = load_recipe(recipe_path)
    with _only_one(folder):
        repaired = restore(folder)
        if repaired is not None:
            terminal.message(f"an earlier demo was stopped while a byte was changed: restored {repaired}")
        journey = Journey(terminal, folder, recipe_path, f"{recipe.name}-{recipe.version}")
        steps = _walk(terminal, journey)
        summary = _summary(journey, steps)
        _write(folder / "demo.json", summary)
    if as_json:
        terminal.answer_json(summary)
        return
    terminal.message()
    terminal.table(("step", "proved", "seconds"), [(one["title"], one["proved"], one["seconds"]) for one in steps])
    terminal.answer("")
    for one in journey.traced:
        terminal.answer(str(one))
    terminal.message()
    total = format_duration(sum(one["seconds"] for one in steps))
    terminal.message(f"{len(steps)} steps in {total}; {folder / 'demo.json'} has it all")


def _walk(terminal: Terminal, journey: Journey) -> list[dict[str, Any]]:
    done = []
    steps = journey.steps()
    for number, step in enumerate(steps, 1):
        started = time.monotonic()
        terminal.step(f"{number}/{len(steps)}  {step.title}")
        terminal.message(f"  {step.does}")
        proved = step.work()
        seconds = round(time.monotonic() - started, 1)
        terminal.message(f"  proved: {proved}", style="green")
        terminal.message(f"  took {format_duration(seconds)}")
        done.append({"title": step.title, "proved": proved, "seconds": seconds})
    return done


def _summary(journey: Journey, steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "steps": steps,
        "isolation": journey.isolation,
        "user": "root" if os.geteuid() == 0 else "ordinary",
        "bundle": str(journey.bundle),
        "stick": str(journey.stick),
        "host": str(journey.host),
        "model": str(journey.model()),
        "answers": [answer.as_json() for answer in journey.answers],
        "refusals": journey.refusals,
        "manifest": journey.manifest(),
        "digests": [
            {"name": one.name, "sha256": one.sha256, "file": str(one.file) if one.file else None}
            for one in journey.traced
        ],
    }


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _write(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.rename(path)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                "demo.busy", str(folder), expected="one demo at a time in a folder", hint="wait for the other to end"
            ) from None
        yield
