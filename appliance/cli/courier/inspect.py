"""`appliance inspect`: what is in a bundle, who signed it, what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from appliance.builder.compare.inspection import Inspection, Template, inspect, missing_bills
from appliance.builder.models.model_file import UNPROMPTED
from appliance.cli.bundle_argument import open_named_media
from appliance.cli.console.columns import labelled
from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from appliance.cli.console.waiting import select_option, waiting_of
from appliance.cli.courier.inspect_kiosk import show_allowed
from bundles.attestation.required_statements import statements_in
from bundles.bundle import Bundle
from bundles.contents.contents import Contents, Model
from bundles.gguf.kind import CHAT
from bundles.report import describe, format_size
from signing.verified import Verified


@click.command("inspect")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--kiosk",
    is_flag=True,
    help="Answer with a list for a scanning station instead: path, size, sha256, kind, licence of each file, as CSV.",
)
@trust_option
@prefix_option
@named_workspace_option
@select_option
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for what is not here: the stick with the bills of materials, or the rest of a folder that is filling, "
    "such as the spool of a data diode.",
)
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    paths: tuple[Path, ...],
    kiosk: bool,
    trust: Path | None,
    prefix: Path | None,
    workspace: Path | None,
    select: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Show what the bundle or stick at PATH holds, who signed it, and what it needs.

    Several paths are sticks that together hold it. The signatures of the list of files are verified first. The large
    files are not read: `appliance verify` does that. The answer of --json lists every file and every package. The bills
    of materials themselves are files of the bundle.

    \b
    Example:
      appliance inspect dist/smollm2-1.0.0 --workspace ~/appliance-workspace
      appliance inspect /media/stick --select smollm2-1.0.0
      appliance inspect /srv/spool --wait
      appliance inspect dist/smollm2-1.0.0 --workspace ~/appliance-workspace --kiosk >allowed.csv
    """
    if kiosk and len(paths) > 1:
        raise click.UsageError("a list for a scanning station is about one medium: give one PATH with --kiosk")
    if kiosk and wait:
        raise click.UsageError("a list for a scanning station names what is there now: leave out --wait")
    media = open_named_media(paths, trust, prefix, workspace, terminal.message, waiting_of(terminal, wait))
    if kiosk:
        (medium,) = media.media
        show_allowed(terminal, medium.layout, medium.bundles, as_json=as_json)
        return
    found = media.select(select)
    while wait and (missing := missing_bills(media.source, found.value.contents)):
        media.source.wait_for(missing)
    inspected = inspect(media.source, found.value.contents)
    for notice in media.source.notices:
        terminal.message(f"warning: {notice}")
    if found.evidence.is_development:
        terminal.development()
    if not inspected.has_bills:
        terminal.message("the bills of this bundle are not on this medium: licences of packages are not shown")
    if as_json:
        contents = asdict(found.value.contents)
        contents.pop("by_path")
        more = {
            "statements": sorted(statements_in(found.value.contents)),
            **asdict(inspected),
            "licences": inspected.licences,
        }
        terminal.answer_json({**describe(found), "contents": contents, **more})
        return
    for line in (*_who(found), *_needs(found.value.contents), *_models(found.value.contents, inspected)):
        terminal.answer(line)
    for line in _packages(inspected):
        terminal.answer(line)
    _kinds(terminal, found.value.contents)


def _who(found: Verified[Bundle]) -> Iterator[str]:
    evidence, bundle = found.evidence, found.value
    profile = evidence.profile or "production"
    yield from labelled("bundle", f"{bundle.label} ({evidence.status})")
    yield from labelled("manifest", bundle.manifest)
    yield from labelled("signed by", f"{len(evidence.signers)} of at least {evidence.threshold}, {profile} root")
    yield from labelled("", [key.fingerprint for key in evidence.signers])
    yield from labelled("fresh", f"proved {evidence.floors.time}, {evidence.expires[1]} expires {evidence.expires[0]}")
    yield from labelled("statements", ", ".join(sorted(statements_in(bundle.contents))) or "none")


def _needs(contents: Contents) -> Iterator[str]:
    needs = contents.needs
    yield from labelled("for", [f"{one.os} {one.arch}, Python {', '.join(one.python)}" for one in contents.targets])
    yield from labelled(
        "needs",
        [
            f"{format_size(needs.ram_bytes)} of memory, {format_size(needs.disk_bytes)} of disk",
            *(
                [f"glibc {needs.glibc}, GLIBCXX {needs.glibcxx}, CXXABI {needs.cxxabi}, or newer"]
                if needs.glibc
                else []
            ),
            *([f"a GPU driver of {needs.gpu_driver} or newer, for the GPU"] if needs.gpu_driver else []),
        ],
    )
    yield from labelled("processors", ", ".join(needs.cpu_variants) or "any")
    if contents.site:
        yield from labelled("site", f"may add {', '.join(contents.site.kinds)}")


def _models(contents: Contents, inspected: Inspection) -> Iterator[str]:
    for model in contents.models:
        yield ""
        yield from labelled("model", _model(contents, model))
        for template in inspected.templates[model.name]:
            yield from labelled("template", _template(template))
        if model.purpose == CHAT and model.template is None:
            yield from labelled("template", f"none: {UNPROMPTED}")


def _model(contents: Contents, model: Model) -> list[str]:
    file = contents.by_path[model.path]
    return [
        model.name,
        f"{model.architecture}, {model.parameters / 1e6:.0f} M weights, {model.quantisation}, {format_size(file.size)}",
        f"context {model.context}, licence {model.licence}",
        f"for {model.purpose}",
        *_accepted(model),
        f"from {model.lineage.source}",
        *(f"then {step}" for step in model.lineage.steps),
        file.sha256,
    ]


def _accepted(model: Model) -> list[str]:
    accepted = model.template_accepted
    return [f"template {accepted.sha256} accepted by {accepted.by}, {accepted.date}"] if accepted else []


def _template(template: Template) -> list[str]:
    known = f"the one that llama.cpp knows as {template.known}" if template.known else "none that llama.cpp ships"
    length = f", {format_size(template.size)}" if template.size else ""
    return [f"{template.key}: {known}{length}", template.sha256, *template.remarks]


def _packages(inspected: Inspection) -> Iterator[str]:
    yield ""
    for at, (licence, names) in enumerate(inspected.licences.items()):
        yield from labelled("licences" if at == 0 else "", f"{licence}: {', '.join(names)}")


def _kinds(terminal: Terminal, contents: Contents) -> None:
    counts: Counter[str] = Counter(file.kind for file in contents.files)
    sizes = {kind: sum(file.size for file in contents.of_kind(kind)) for kind in counts}
    rows = [
        *((kind, counts[kind], sizes[kind]) for kind in sorted(counts)),
        ("all", len(contents.files), sum(sizes.values())),
    ]
    terminal.answer("")
    terminal.table(
        ("kind", " files", f"{'bytes':>14}"), [(kind, f"{files:>6}", f"{total:>14}") for kind, files, total in rows]
    )
