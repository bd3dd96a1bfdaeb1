"""An installed release, and how it is opened.

Owns `Release` and the verification of its chain of trust. It changes nothing: `appliance install` repairs.

Rules:
- the chain is verified as that of a stick: the release's `bundle/` holds metadata, manifest and contents;
- `RELEASE.json` is not signed: it may name the rendered files and a CPU variant of the bundle, nothing else;
- `appliance.host.release.release_check` states which difference has which exit code.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from appliance.host.layout.places import FACTS_FILE, OK_FILE, REPAIR_HINT, place, rendered_names
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release_json import Facts, read_facts
from appliance.host.trust.root_choice import none_pinned
from appliance.host.trust.trust_store import read_floors, read_root
from bundles.bundle import Bundle, open_bundle
from bundles.contents.contents import Contents, File, Member, Model
from signing.errors import DriftError, NotTrustedError, UsageError
from signing.verified import Verified

VARIANT_PREFIX = "libggml-cpu-"


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is complete and whose chain of trust holds; `check_release` compares its bytes.

    Args:
        path: its folder.
        prefix: the host that it is installed on.
        bundle: what was signed.
        facts: what this host decided while it was installed.
    """

    path: Path
    prefix: Prefix
    bundle: Verified[Bundle]
    facts: Facts

    @property
    def contents(self) -> Contents:
        """The signed contents."""
        return self.bundle.value.contents

    @property
    def runtime(self) -> Path:
        """The folder with `llama-server`, its libraries, and the one CPU variant."""
        return self.path / "runtime"

    @property
    def python(self) -> Path:
        """The interpreter of the release's environment."""
        return self.path / "venv" / "bin" / "python"

    @property
    def config(self) -> Path:
        """The folder of the rendered configuration."""
        return self.path / "config"

    def place(self, file: File) -> Path:
        """Where a file of the bundle lies on this host."""
        return place(self.prefix, self.path, file)

    def model_file(self, model: Model) -> tuple[File, Path]:
        """A model's file in the bundle, and where it lies on this host."""
        file = self.contents.by_path[model.path]
        return file, self.place(file)


def open_current(prefix: Prefix, now: datetime) -> Release:
    """Open the release that serves.

    Args:
        prefix: the host.
        now: the clock, in UTC; see `signing.verify`.

    Raises:
        UsageError: nothing is installed here.
        DamagedError: a file of the chain of trust cannot be read.
        DriftError: the release is incomplete, or `RELEASE.json` is not what an install wrote.
        NotTrustedError: no root is pinned, or the chain does not cover the release.
    """
    hint = f"appliance install SOURCE{prefix.option}"
    return open_release(prefix, current_folder(prefix, hint, REPAIR_HINT), now)


def current_folder(prefix: Prefix, none_hint: str, link_hint: str) -> Path:
    """Find the folder of the release that serves, and nothing else that `current` may name.

    Args:
        prefix: the host.
        none_hint: what to do where nothing is installed.
        link_hint: what to do where the link names no release.

    Raises:
        UsageError: nothing is installed here.
        NotTrustedError: the link leads out of `releases/`, or to no folder.
    """
    target = current_target(prefix)
    if target is None:
        raise UsageError(
            "release.none", str(prefix.root), expected="an installed release", found="none", hint=none_hint
        )
    path = prefix.opt / target
    if path.parent != prefix.releases or path.is_symlink() or not path.is_dir():
        raise NotTrustedError(
            "release.current", str(prefix.current), expected="a link into releases/", found=target, hint=link_hint
        )
    return path


def current_target(prefix: Prefix) -> str | None:
    """Read the link to the release that serves, as it is written; None where there is none.

    Raises:
        DriftError: its name belongs to something else than a link, as after a copy that follows links.
    """
    try:
        return os.readlink(prefix.current)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise DriftError(
            "release.current",
            str(prefix.current),
            expected="a link into releases/",
            found="something else than a link",
            hint="move it away, then run the same `appliance install` again",
        ) from None


def open_release(prefix: Prefix, path: Path, now: datetime, *, is_on_trial: bool = False) -> Release:
    """Open one release by its folder; see `open_current`.

    Args:
        prefix, now: as there.
        path: the folder.
        is_on_trial: whether it is tried before it is complete; its chain of trust must hold nevertheless.
    """
    if not is_on_trial and not (path / OK_FILE).is_file():
        raise DriftError(
            "release.incomplete", str(path), expected="a finished install", found=f"no {OK_FILE}", hint=REPAIR_HINT
        )
    root = read_root(prefix)
    if root is None:
        raise none_pinned(prefix)
    bundle = open_bundle(path / "bundle", root, read_floors(prefix), now)
    if path != prefix.release_path(bundle.value.contents.version, bundle.value.manifest):
        raise NotTrustedError(
            "release.misplaced",
            str(path),
            expected=prefix.release_path(bundle.value.contents.version, bundle.value.manifest).name,
            found=path.name,
            hint="somebody moved release folders; install again",
        )
    facts, contents = read_facts(path), bundle.value.contents
    if (facts.name, facts.version, facts.manifest) != (contents.name, contents.version, bundle.value.manifest):
        raise DriftError(
            "release.facts",
            FACTS_FILE,
            expected=f"facts of {bundle.value.label}, manifest {bundle.value.manifest}",
            found=f"facts of {facts.name} {facts.version}, manifest {facts.manifest}",
            hint=REPAIR_HINT,
        )
    _check_facts(facts, rendered_names(prefix, contents, bundle.value.manifest), contents)
    return Release(path, prefix, bundle, facts)


def runtime_members(contents: Contents) -> Iterator[tuple[File, Member]]:
    """List the members that a host extracts from the runtime wheels, each with its wheel."""
    for file in contents.of_kind("runtime"):
        for member in file.members:
            yield file, member


def variant_of(member: Member) -> str | None:
    """The CPU generation that a member is for, for example `haswell`; None for what every CPU needs."""
    name = PurePosixPath(member.path).name
    return name[len(VARIANT_PREFIX) : -len(".so")] if name.startswith(VARIANT_PREFIX) else None


def _check_facts(facts: Facts, names: tuple[str, ...], contents: Contents) -> None:
    # This file is not signed, so it may name what was rendered here and nothing else.
    if set(facts.config) != set(names) or facts.cpu_variant not in contents.needs.cpu_variants:
        raise DriftError(
            "release.facts",
            FACTS_FILE,
            expected=f"digests of {', '.join(names)}, and a CPU variant of the bundle",
            found=f"{', '.join(sorted(facts.config))}, and {facts.cpu_variant}"[:300],
            hint=REPAIR_HINT,
        )
