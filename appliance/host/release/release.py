"""An installed release: how it is opened, and whether it still is what was signed.

Owns `Release` and the full comparison of a release folder with its bundle. It changes nothing: repair is the install's.

Rules:
- the installed bundle is verified by the same door as a stick: its manifest and contents lie in `bundle/`;
- the folder is a closed world: every file in it is named by the contents, by a wheel's RECORD or by `RELEASE.json`;
- damaged (3), not trusted (4) and changed on this host (9) are told apart, and everything is told at once.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from appliance.host.release.facts import Facts, read_facts
from appliance.host.tree.places import FACTS_FILE, OK_FILE, STORED, place, rendered_names
from appliance.host.tree.prefix import Prefix
from appliance.host.trust.floor_store import read_floors, read_root
from appliance.host.trust.root_choice import none_pinned
from bundles.bundle import Bundle, open_bundle
from bundles.check import check_file, hash_range
from bundles.contents.model import Contents, File, Member, Model
from bundles.oci.layout import INDEX_FILE, LAYOUT_FILE, Layout, blob_path
from bundles.oci.manifest import MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, write_index
from bundles.parallel import work_off
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest
from signing.errors import ApplianceError, DamagedError, DriftError, NotTrustedError, UsageError, worst
from signing.verified import Verified

VARIANT_PREFIX = "libggml-cpu-"
_HINT = "run the same `appliance install` again: it repairs the release"


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is complete and whose chain of trust holds; its big bytes are checked by `check_release`.

    Args:
        path: its folder.
        prefix: the host that it is installed on.
        bundle: what was signed.
        facts: what this host decided.
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
        DamagedError: the release is incomplete.
        NotTrustedError: no root is pinned, or the chain does not cover the release.
    """
    target = current_target(prefix)
    if target is None:
        raise UsageError(
            "release.none",
            str(prefix.root),
            expected="an installed release",
            found="none",
            hint=f"appliance install SOURCE{prefix.option}",
        )
    path = prefix.opt / target
    if path.parent != prefix.releases or path.is_symlink() or not path.is_dir():
        raise NotTrustedError(
            "release.current", str(prefix.current), expected="a link into releases/", found=target, hint=_HINT
        )
    return open_release(prefix, path, now)


def current_target(prefix: Prefix) -> str | None:
    """Where the link to the release that serves points, as it is written; None where there is none.

    Raises:
        DriftError: something else than a link has its name, as after a copy that follows links.
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
        is_on_trial: whether it is being tried before it is complete; its chain of trust must hold all the same.
    """
    if not is_on_trial and not (path / OK_FILE).is_file():
        raise DamagedError(
            "release.incomplete", str(path), expected="a finished install", found=f"no {OK_FILE}", hint=_HINT
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
        raise DamagedError(
            "release.facts",
            FACTS_FILE,
            expected=f"facts of {bundle.value.label}, manifest {bundle.value.manifest}",
            found=f"facts of {facts.name} {facts.version}, manifest {facts.manifest}",
            hint=_HINT,
        )
    _check_facts(facts, rendered_names(prefix, contents, bundle.value.manifest), contents)
    return Release(path, prefix, bundle, facts)


def check_release(release: Release, on_progress: OnProgress = ignore, *, models: bool = True) -> None:
    """Compare every byte of an installed release with what was signed.

    Args:
        release: opened, so its chain holds.
        on_progress: called with bytes and steps done.
        models: False leaves the models to whoever opens them for serving and hashes them then.

    Raises:
        NotTrustedError: files that nothing names; beats the others.
        DamagedError: files that differ or are missing, named as the bundle names them.
        DriftError: configuration that was changed on this host.
    """
    # Engines open releases without looking at the environment, and what compares it reads wheels.
    from appliance.host.release.environment import Interpreter
    from appliance.host.release.environment_check import check_environment

    errors: list[ApplianceError] = []
    for check in (
        _check_files(release, models),
        _check_runtime(release),
        _check_config(release),
        _check_names(release),
    ):
        errors += check
    errors += _check_layout(Layout(release.path / "bundle"), release.bundle.value)
    python = Interpreter(Path(release.facts.python), release.facts.python_version)
    try:
        check_environment(release.prefix, release.path, release.contents, python, on_progress)
    except ApplianceError as error:
        known = {(other.code, other.subject) for other in errors}
        errors += [one for one in (error, *error.others) if (one.code, one.subject) not in known]
        error.others = ()
    on_progress(Progress("checking the release", 1, 1, "steps"))
    if errors:
        raise worst(errors)


def check_engine_files(release: Release) -> None:
    """Compare what an engine is made of, besides its model, with what was signed: program, libraries, configuration.

    Raises:
        DamagedError, NotTrustedError, DriftError: as `check_release`.
    """
    errors = [*_check_runtime(release), *_check_config(release)]
    if errors:
        raise worst(errors)


def runtime_members(contents: Contents) -> Iterator[tuple[File, Member]]:
    """What is taken out of the runtime wheels, with the wheel that brings it."""
    for file in contents.of_kind("runtime"):
        for member in file.members:
            yield file, member


def variant_of(member: Member) -> str | None:
    """The CPU generation that a member is for, for example `haswell`; None for what every CPU needs."""
    name = PurePosixPath(member.path).name
    return name[len(VARIANT_PREFIX) : -len(".so")] if name.startswith(VARIANT_PREFIX) else None


def check_runtime(folder: Path, contents: Contents, variant: str) -> list[ApplianceError]:
    """Compare a runtime folder with the signed members: all that every CPU needs, and one variant."""
    errors: list[ApplianceError] = []
    needed = [found for found in runtime_members(contents) if variant_of(found[1]) in (None, variant)]
    expected = {PurePosixPath(member.path).name for _, member in needed}
    here: dict[str, tuple[int, Digest, int] | None] = {}
    work_off(expected, lambda name: here.update({name: describe(folder / name)}))
    for file, member in needed:
        found = here[PurePosixPath(member.path).name]
        if found != (member.size, member.sha256, member.mode):
            wanted = f"{member.size} bytes with sha256 {member.sha256}, mode {member.mode:o}"
            errors.append(_changed(f"{file.path}: {member.path}", wanted, _words(found)))
    errors += [
        _unlisted(f"runtime/{entry.name}")
        for entry in sorted(os.scandir(folder) if folder.is_dir() else (), key=lambda entry: entry.name)
        if entry.name not in expected
    ]
    return errors


def describe(path: Path) -> tuple[int, Digest, int] | None:
    """Size, sha256 and mode of a regular file; None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        return status.st_size, Digest(hash_range(descriptor, 0, status.st_size)), status.st_mode & 0o7777
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _check_facts(facts: Facts, names: tuple[str, ...], contents: Contents) -> None:
    # Nobody signs this file, so it may name what was rendered here and nothing else.
    if set(facts.config) != set(names) or facts.cpu_variant not in contents.needs.cpu_variants:
        raise DamagedError(
            "release.facts",
            FACTS_FILE,
            expected=f"digests of {', '.join(names)}, and a CPU variant of the bundle",
            found=f"{', '.join(sorted(facts.config))}, and {facts.cpu_variant}"[:300],
            hint=_HINT,
        )


def _check_files(release: Release, models: bool) -> Iterator[ApplianceError]:
    for file in release.contents.files:
        if models or file.kind not in STORED:
            try:
                check_file(file, release.place(file))
            except (DamagedError, NotTrustedError) as error:
                yield error


def _check_runtime(release: Release) -> list[ApplianceError]:
    return check_runtime(release.runtime, release.contents, release.facts.cpu_variant)


def _check_config(release: Release) -> Iterator[ApplianceError]:
    for path, digest in release.facts.config.items():
        found = describe(release.path / path)
        if found is None or found[1] != digest:
            yield DriftError(
                "release.config-changed",
                path,
                expected=f"sha256 {digest}, as the install rendered it",
                found=_words(found),
                hint=_HINT,
            )


def _check_names(release: Release) -> Iterator[ApplianceError]:
    known = {str(release.place(file)) for file in release.contents.files if file.kind not in STORED}
    known |= {str(release.path / path) for path in (*release.facts.config, FACTS_FILE, OK_FILE)}
    known |= {str(release.path / "bundle" / name) for name in (LAYOUT_FILE, INDEX_FILE)}
    # These are compared with lists of their own; a link in their place is caught below, since links are not walked.
    elsewhere = {
        str(release.path / name) for name in ("venv", "runtime", "bundle/blobs", "bundle/metadata", "bundle/targets")
    }
    for folder, folders, names in os.walk(release.path):
        links = [name for name in folders if os.path.islink(f"{folder}/{name}")]
        folders[:] = [name for name in folders if f"{folder}/{name}" not in elsewhere]
        for name in (*names, *links):
            path = f"{folder}/{name}"
            if path not in known:
                yield _unlisted(str(Path(path).relative_to(release.path)))


def _check_layout(layout: Layout, bundle: Bundle) -> Iterator[ApplianceError]:
    try:
        layout.check_names((bundle.manifest, bundle.config.sha256))
    except NotTrustedError as error:
        yield error
    # Nobody signs the index: it follows from the manifest.
    manifest = layout.medium.read(blob_path(bundle.manifest), MAX_MANIFEST_BYTES) or b""
    if layout.medium.read(INDEX_FILE, MAX_INDEX_BYTES) != write_index(manifest):
        yield _changed(f"bundle/{INDEX_FILE}", "the index of the signed manifest", "something else")


def _changed(subject: str, expected: str, found: str) -> DamagedError:
    return DamagedError("release.file-changed", subject, expected=expected, found=found, hint=_HINT)


def _unlisted(subject: str) -> NotTrustedError:
    return NotTrustedError(
        "release.unlisted",
        subject,
        expected="only what was signed or installed",
        found="a file that nothing names",
        hint=f"find out who put it there; then {_HINT}",
    )


def _words(found: tuple[int, Digest, int] | None) -> str:
    return "no such file" if found is None else f"{found[0]} bytes with sha256 {found[1]}, mode {found[2]:o}"
