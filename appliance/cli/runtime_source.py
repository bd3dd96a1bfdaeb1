"""Finding a runtime at hand for a command: in an installed release, or in a bundle that was given.

Owns who is asked for trust. What is taken out is verified by the same doors as for an install.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.host.runtime.unpacked import UnpackedRuntime
    from bundles.bundle import Bundle
    from signing.verified import Verified


@dataclass(frozen=True, slots=True)
class Found:
    """A runtime, and a model to try it with where one was asked for."""

    runtime: UnpackedRuntime
    model: Path | None


def open_given(path: Path, prefix: Path | None, trust: Path | None, workspace: Path | None) -> Verified[Bundle]:
    """Verify the chain of trust of a bundle or stick that a person named."""
    from appliance.cli.console.clock import utc_now
    from appliance.host.tree.prefix import Prefix
    from appliance.host.trust.root_choice import choose_root
    from bundles.bundle import open_bundle
    from signing.floors import Floors

    return open_bundle(path, choose_root(trust, Prefix.at(prefix or Path("/")), workspace), Floors(), utc_now())


def release_at_hand(prefix: Path | None, scratch: Path, *, with_model: bool = False) -> Found | None:
    """The runtime of the installed release; None where nothing is installed.

    Args:
        prefix: of the host; None is the whole machine.
        scratch: a private folder that outlives what is returned.
        with_model: whether the smallest model is wanted, too; every byte of it is read.

    Raises:
        DamagedError: it is not what was signed.
        NotTrustedError: the chain does not cover it.
    """
    from appliance.cli.console.clock import utc_now
    from appliance.host.release.release import open_current
    from appliance.host.runtime.unpacked import of_release
    from appliance.host.tree.prefix import Prefix
    from bundles.check import check_file

    host = Prefix.at(prefix or Path("/"))
    if not host.current.is_symlink():
        return None
    release = open_current(host, utc_now())
    model = None
    if with_model:
        file = min(release.contents.of_kind("model"), key=lambda one: one.size)
        model = release.place(file)
        check_file(file, model)
    return Found(of_release(release, scratch), model)


def bundle_at_hand(
    path: Path,
    prefix: Path | None,
    trust: Path | None,
    workspace: Path | None,
    scratch: Path,
    *,
    with_model: bool = False,
) -> Found:
    """The runtime of a bundle or stick; the arguments are those of `open_given` and `release_at_hand`."""
    from appliance.host.runtime.unpacked import of_bundle
    from bundles.copy import copy_file
    from bundles.oci.layout import Layout

    contents = open_given(path, prefix, trust, workspace).value.contents
    model = None
    if with_model:
        file = min(contents.of_kind("model"), key=lambda one: one.size)
        model = scratch / "model.gguf"
        copy_file(file, Layout(path).open_chunk, model)
    return Found(of_bundle(Layout(path), contents, scratch), model)
