"""Releases that a host holds, without an environment: enough for what counts, removes and keeps them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from appliance.builder.chunking.chunker import Source
from appliance.host.activation.switch import point_at, target_of
from appliance.host.install.importer import accept, import_files, import_layout
from appliance.host.layout.places import OK_FILE, REVOKED_FILE
from appliance.host.layout.prefix import Prefix
from appliance.keys.workspace import create_development
from bundles.bundle import open_bundle
from bundles.oci.layout import Layout
from bundles.progress import ignore
from signing.floors import Floors
from tests.appliance.sim_host import SimHost, build_bundle
from tests.sim.gguf_files import gguf, string_key
from tests.toy import NOW


def empty_host(folder: Path) -> SimHost:
    """A workspace, and a prefix with folders and nothing else."""
    workspace, _ = create_development(folder / "workspace", NOW)
    prefix = Prefix.at(folder / "host")
    prefix.create()
    return SimHost(prefix, workspace, folder / "none")


def copied(host: SimHost, folder: Path) -> SimHost:
    """The same host at another place; its workspace is shared."""
    shutil.copytree(host.prefix.root, folder / "host", symlinks=True)
    return replace(host, prefix=Prefix.at(folder / "host"))


def hold_release(
    host: SimHost,
    version: str,
    *,
    model: str = "",
    serves: bool = False,
    is_complete: bool = True,
    extra: Sequence[Source] = (),
) -> Path:
    """Publish a bundle, and have the host hold it as a release.

    Args:
        host: from `empty_host`.
        version: `1.0.<n>`; a release of a larger n was finished later.
        model: two releases with one text here share their model.
        serves: whether `current` names it.
        is_complete: whether it has its mark.
        extra: more files of the bundle.
    """
    weights = gguf([string_key("tokenizer.chat_template", model or version)])
    source = build_bundle(host.workspace, version, extra=extra, weights=weights)
    found = open_bundle(source, host.trust, Floors(), NOW)
    path = host.prefix.release_path(version, found.value.manifest)
    accept(host.prefix, found, host.trust)
    import_layout(Layout(source), path, found, host.trust, NOW)
    import_files(host.prefix, Layout(source), path, found.value, ignore)
    if is_complete:
        (path / OK_FILE).write_bytes(b"")
        seconds = 1_700_000_000 + int(version.rpartition(".")[2])
        os.utime(path / OK_FILE, (seconds, seconds))
    (path / REVOKED_FILE).unlink(missing_ok=True)  # the test decides which release is revoked
    if serves:
        point_at(host.prefix, target_of(host.prefix, path))
    return path


def model_of(release: Path) -> str:
    """The digest of the one model of a release."""
    from appliance.host.release.installed_files import installed_files

    return next(file.sha256 for file in installed_files(release) if file.kind == "model")
