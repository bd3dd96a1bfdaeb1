"""`appliance inspect`: what is in a bundle, who signed it, what it needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from appliance.cli.options import json_option, named_workspace_option, pass_terminal, prefix_option, trust_option
from appliance.cli.terminal import Terminal


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@trust_option
@prefix_option
@named_workspace_option
@json_option
@pass_terminal
def command(
    terminal: Terminal, path: Path, trust: Path | None, prefix: Path | None, workspace: Path | None, as_json: bool
) -> None:
    """Show what the bundle or stick at PATH holds, after verifying who signed that list.

    The big bytes are not read: `appliance verify` does that.

    \b
    Example:
      appliance inspect dist/smollm2-1.0.0 --workspace ~/appliance-workspace
    """
    from dataclasses import asdict

    from appliance.cli.clock import utc_now
    from appliance.host.pinned import choose_root
    from appliance.host.prefix import Prefix
    from bundles.bundle import open_bundle
    from bundles.report import describe
    from signing.floors import Floors

    found = open_bundle(path, choose_root(trust, Prefix.at(prefix or Path("/")), workspace), Floors(), utc_now())
    contents = found.value.contents
    if found.evidence.is_development:
        terminal.development()
    if as_json:
        value = asdict(contents)
        value.pop("by_path")
        terminal.answer_json({**describe(found), "contents": value})
        return
    terminal.answer(f"{found.value.label}  manifest sha256:{found.value.manifest}")
    needs = contents.needs
    for target in contents.targets:
        terminal.answer(
            f"for {target.os} {target.arch}, Python {' '.join(target.python)}, glibc {needs.glibc} or newer"
        )
    terminal.answer(f"needs {needs.ram_bytes >> 20} MiB of memory and {needs.disk_bytes >> 20} MiB of disk")
    rows = [
        (
            model.name,
            model.architecture,
            model.quantisation,
            f"{model.parameters / 1e6:.0f} M",
            model.context,
            model.licence,
        )
        for model in contents.models
    ]
    terminal.table(("model", "architecture", "quantised", "weights", "context", "licence"), rows)
    counts: Counter[str] = Counter(file.kind for file in contents.files)
    sizes = {kind: sum(file.size for file in contents.of_kind(kind)) for kind in counts}
    terminal.table(("kind", "files", "bytes"), [(kind, counts[kind], sizes[kind]) for kind in sorted(counts)])
