"""`appliance build`: from a recipe to a signed bundle.

Most of the builder is loaded inside of the commands, while the files of the cache are hashed.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance import clock
from appliance.builder.assembly.ahead import begun_ahead
from appliance.builder.cache.content_store import Cache, cache_root
from appliance.cli.command_table import loading
from appliance.cli.console.options import converter_option, json_option, pass_terminal, workspace_option
from appliance.cli.console.terminal import Terminal
from signing.errors import ApplianceError

if TYPE_CHECKING:
    from appliance.builder.assembly.assembler import Built
    from appliance.keys.workspace import Workspace


_BUILDER = "appliance.builder.assembly.assembler"


class _Day(click.DateTime):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is no day; write it as 2027-06-30", param, ctx)


@click.command("build")
@click.argument("recipe", type=click.Path(path_type=Path))
@workspace_option
@click.option(
    "--install-by",
    metavar="YYYY-MM-DD",
    type=_Day(["%Y-%m-%d"]),
    help="The last day on which the bundle is meant to be installed: refuse to sign what expires before.",
)
@click.option("--check", is_flag=True, help="Build again, compare with the published bundle, and change nothing.")
@converter_option
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    recipe: Path,
    workspace: Path,
    install_by: datetime | None,
    check: bool,
    converter: Path | None,
    as_json: bool,
) -> None:
    """Build the bundle of RECIPE and sign it.

    Everything comes from the lock beside the recipe, by size and SHA-256; what is not in the lock does not go in. The
    first build compiles the runtime, which takes about ten minutes on two cores. Later ones compile it again where the
    sources or the tools changed: the first line states why, and how long the last time took. The runtime and every
    download are cached. The bundle is written to dist/NAME-VERSION in the workspace.

    Where several people sign, the bundle waits there. Give each of them a copy of the request that is named at the end.
    Then add what comes back with `appliance sign --add`.

    The same recipe and lock give the same bytes. With --check they are built again elsewhere and compared with the
    published bundle, or built twice where nothing is published. Every difference is named, and the exit code is then 1.
    Downloads, the runtime, and converted or quantised models come from the cache.

    \b
    Example:
      appliance build bundles/recipes/smollm2.yaml --workspace ~/appliance-workspace
      appliance build bundles/recipes/smollm2.yaml --workspace ~/appliance-workspace --check
    """
    if check:
        if install_by:
            raise click.UsageError("--install-by is about what is signed, and --check signs nothing")
        _check(terminal, recipe, workspace, converter, as_json)
        return
    cache = Cache(cache_root(os.environ))
    with loading("build", _BUILDER), begun_ahead(recipe, cache, _search_path()):
        from appliance.builder.assembly.assembler import assemble
        from appliance.keys.workspace import open_workspace
    opened = open_workspace(workspace)
    _show_reason(terminal, recipe, cache)
    with terminal.progress() as on_progress:
        built = assemble(
            recipe,
            opened,
            cache,
            clock.utc_now(),
            on_progress,
            f"{install_by:%Y-%m-%d}T23:59:59Z" if install_by else "",
            converter,
        )
    _show(terminal, opened, built, as_json)


def _search_path() -> str:
    return os.environ.get("PATH", os.defpath)


def _show_reason(terminal: Terminal, recipe: Path, cache: Cache) -> None:
    from appliance.builder.assembly.assembler import compilation_reason

    if reason := compilation_reason(recipe, cache, _search_path()):
        terminal.message(reason)


def _show(terminal: Terminal, opened: Workspace, built: Built, as_json: bool) -> None:
    label = f"{built.contents.name} {built.contents.version}"
    if opened.root().profile:
        terminal.development()
    if built.replaced is not None:
        terminal.message(
            f"warning: {label} was published before as sha256:{built.replaced}. A host that runs that one will not "
            "accept it together with the new metadata. Give every change a version of its own"
        )
    if 0 < built.boot_reads < built.contents.format:
        terminal.message(
            f"warning: the verifier in BOOT/ reads bundles up to format {built.boot_reads}, and this one has format "
            f"{built.contents.format}: a bare host refuses it until the root's people have signed a newer BOOT/. The "
            "request asks them for it"
        )
    for old in built.unmaintained:
        terminal.message(
            f"warning: {old.name} {old.version}: the last release of its project was on {old.last_release}"
        )
    if built.unmaintained:
        terminal.message("hint: licences/DEPENDENCIES.md in the bundle lists why each dependency is there")
    pending = built.request if built.request is not None and not built.request.is_complete else None
    if as_json:
        answer = {
            "bundle": str(built.path),
            "manifest": built.manifest,
            "name": built.contents.name,
            "version": built.contents.version,
            "files": len(built.contents.files),
            "bytes": built.contents.size_bytes,
            "files_written": built.files_written,
            "signed": pending is None,
            "request": str(opened.requests / f"{pending.label}.json") if pending else None,
        }
        terminal.answer_json(answer)
        return
    terminal.answer(f"{label}  manifest sha256:{built.manifest}")
    terminal.answer(f"{len(built.contents.files)} files, {built.contents.size_bytes} bytes in {built.path}")
    written = built.files_written
    terminal.message(f"{written} files written" if written else "nothing had to be written")
    if pending is not None:
        from appliance.keys.signature_requests.request_text import progress

        for line in progress(pending):
            terminal.answer(line)
        terminal.message(f"hint: give each signer a copy of {opened.requests / pending.label}.json")


def _check(terminal: Terminal, recipe: Path, workspace: Path, converter: Path | None, as_json: bool) -> None:
    cache = Cache(cache_root(os.environ))
    with loading("build", _BUILDER), begun_ahead(recipe, cache, _search_path()):
        from appliance.builder.compare.rebuild import DIFFERS, rebuild
        from appliance.keys.workspace import open_workspace
    _show_reason(terminal, recipe, cache)
    try:
        with terminal.progress() as on_progress:
            again = rebuild(recipe, open_workspace(workspace), cache, on_progress, converter)
    except ApplianceError as error:
        if as_json and error.code == DIFFERS:
            terminal.answer_json({"same": False, "differences": [_difference(one) for one in (error, *error.others)]})
        raise
    contents = again.contents
    if as_json:
        answer = {
            "name": contents.name,
            "version": contents.version,
            "manifest": again.manifest,
            "files": len(contents.files),
            "bytes": contents.size_bytes,
            "same": True,
            "bundle": str(again.standing) if again.standing else None,
        }
        terminal.answer_json(answer)
        return
    terminal.answer(f"{contents.name} {contents.version}  manifest sha256:{again.manifest}")
    where = f"built again, and {again.standing} has the same bytes" if again.standing else "built twice: the same bytes"
    terminal.answer(f"{where}, in {len(contents.files)} files")


def _difference(error: ApplianceError) -> dict[str, str]:
    return {"what": error.subject, "expected": error.expected, "found": error.found}
