"""The runtime that a command needs: of an installed release, or of a bundle that the command line names.

It is unpacked into a private folder. Every byte is compared with what was signed, as an install does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance import clock
from appliance.cli.bundle_argument import open_named_bundle
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import open_current
from appliance.host.runtime.unpacked import UnpackedRuntime, of_bundle, of_release
from bundles.chunks.check import check_file
from bundles.chunks.copy import copy_file
from bundles.oci.layout import Layout
from signing.errors import UsageError


@dataclass(frozen=True, slots=True)
class TrialRuntime:
    """An unpacked runtime, and a model to try it with where one was wanted."""

    runtime: UnpackedRuntime
    model: Path | None


def runtime_of_release(prefix: Path | None, scratch: Path, *, with_model: bool = False) -> TrialRuntime | None:
    """The runtime of the installed release; None where nothing is installed.

    Args:
        prefix: of the host; None is the whole machine.
        scratch: a private folder that outlives the result.
        with_model: whether the smallest model is wanted, too; every byte of it is read.

    Raises:
        DamagedError: it is not what was signed.
        NotTrustedError: the chain does not cover it.
    """
    host = Prefix.at(prefix or Path("/"))
    if not host.current.is_symlink():
        return None
    release = open_current(host, clock.utc_now())
    model = None
    if with_model:
        file = min(release.contents.of_kind("model"), key=lambda one: one.size)
        model = release.place(file)
        check_file(file, model)
    return TrialRuntime(of_release(release, scratch), model)


def runtime_of_bundle(
    path: Path,
    trust: Path | None,
    prefix: Path | None,
    workspace: Path | None,
    scratch: Path,
    report: Callable[[str], None],
    *,
    with_model: bool = False,
) -> TrialRuntime:
    """The runtime of a bundle or stick; for the arguments see `open_named_bundle` and `runtime_of_release`."""
    contents = open_named_bundle(path, trust, prefix, workspace, report).value.contents
    runtime, model = of_bundle(Layout(path), contents, scratch), None
    if with_model:
        if not contents.models:
            raise UsageError("plan.no-model", str(path), expected="at least one model", found="none")
        file = min((contents.by_path[one.path] for one in contents.models), key=lambda one: one.size)
        model = scratch / "model.gguf"
        copy_file(file, Layout(path).open_chunk, model)
    return TrialRuntime(runtime, model)
