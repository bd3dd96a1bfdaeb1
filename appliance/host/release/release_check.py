"""Whether an installed release still is what was signed, and what its install created from that.

Owns the comparison of a release with its bundle. `appliance status`, `verify` and `serve`, the gateway's unit and the
install all call `check_release`, so that each finds the same, with the same codes and hints. It changes nothing.

Rules, the same for all of them:
- signed bytes that differ, are missing or cannot be read are damaged: exit code 3. So are files that were extracted
  from signed ones;
- a file that nothing names is not trusted: exit code 4. The contents name the files of the bundle, a wheel's RECORD
  those of the environment;
- a file that this host wrote, and that was changed since, is drift: exit code 9. Such are the rendered configuration,
  `RELEASE.json`, `RELEASE.ok`, the copy of the site's file, and the links and `pyvenv.cfg` of the environment;
- a release with the mark `REVOKED` is not trusted: 4, even where the metadata here allow it;
- the rendered configuration must also fit the contents and the path of the release. One that was copied to another
  prefix is drift;
- all differences are reported at once. The gravest is raised: not trusted, then damaged, then drift.

Besides, `status` alone reports what lies outside the release: the site's file and the services.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from appliance.host.layout.places import RECORDS, REPAIR_HINT, SITE_FILE, STATE_FILE, STORED
from appliance.host.release.release import Release, runtime_members, variant_of
from appliance.host.release.rendered_configuration import configuration_errors
from appliance.host.release.state_format import state_file
from appliance.host.trust.revocations import check_mark
from bundles.bundle import Bundle
from bundles.chunks.check import CHANGED, check_file, hash_range
from bundles.contents.contents import Contents
from bundles.oci.covered_names import is_metadata_path, refuse_unlisted, unlisted
from bundles.oci.layout import INDEX_FILE, LAYOUT_FILE, Layout, blob_path, target_path
from bundles.oci.manifest import MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, write_index
from bundles.parallel import work_off
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, ApplyRestoredError, DamagedError, DriftError, NotTrustedError, worst

_WHO_HINT = f"find out who put it there; then {REPAIR_HINT}"


def check_release(release: Release, on_progress: OnProgress = ignore, *, models: bool = True) -> None:
    """Compare every byte of an installed release with what was signed, or with what the install recorded.

    Args:
        release: opened, so its chain holds.
        on_progress: called with bytes and steps done.
        models: False leaves out the models: the engine that opens them for serving compares them then.

    Raises:
        NotTrustedError: there is a file that nothing names; this outranks the others.
        DamagedError: a signed file differs or is missing, named as the bundle names it; this outranks drift.
        DriftError: a file that this host wrote was changed.
    """
    # Engines never check the environment, so this module must load without the modules that read wheels.
    from appliance.host.release.environment import Interpreter
    from appliance.host.release.environment_check import check_environment

    errors: list[ApplianceError] = []
    for check in (
        _check_files(release, models),
        _check_runtime(release),
        _check_config(release),
        _check_names(release),
        _check_mark(release),
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
    """Compare the program, libraries and configuration of an engine with what was signed or rendered; not its model.

    Raises:
        DamagedError, NotTrustedError, DriftError: as `check_release`.
    """
    errors = [*_check_runtime(release), *_check_config(release)]
    if errors:
        raise worst(errors)


def check_runtime(folder: Path, contents: Contents, variant: str) -> list[ApplianceError]:
    """Compare a runtime folder with the signed members: those for every CPU, and those of one variant.

    Its owner is that of the release's folder, and nobody else may write to it.
    """
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
    return [*errors, *_owner_errors(folder, sorted(name for name, found in here.items() if found is not None))]


def _owner_errors(folder: Path, names: Iterable[str]) -> Iterator[ApplianceError]:
    """What in a runtime folder another user could exchange: libraries are loaded by name, after they were compared."""
    if not folder.is_dir():
        return
    owner = folder.parent.stat().st_uid
    for path in (folder, *(folder / name for name in names)):
        status = path.lstat()
        if status.st_uid != owner or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield DriftError(
                "runtime.owner",
                f"{folder.name}/{path.name}" if path != folder else folder.name,
                expected=f"a file that only user {owner} may change",
                found=f"user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}",
                hint=REPAIR_HINT,
            )


def rendered_digests(folder: Path, names: Iterable[str], hint: str) -> dict[str, Digest]:
    """Compute the digest of each file that the playbooks have written.

    Args:
        folder: of the release.
        names: paths below it.
        hint: what to do where one is missing.

    Raises:
        ApplyRestoredError: one is missing.
    """
    digests = {}
    for name in names:
        rendered = describe(folder / name)
        if rendered is None:
            raise ApplyRestoredError(
                "render.missing", name, expected="a file that the playbook writes", found="none", hint=hint
            )
        digests[name] = rendered[1]
    return digests


def describe(path: Path) -> tuple[int, Digest, int] | None:
    """Read the size, sha256 and mode of a regular file; None where there is none."""
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


def _check_files(release: Release, models: bool) -> Iterator[ApplianceError]:
    for file in release.contents.files:
        if models or file.kind not in STORED:
            try:
                check_file(file, release.place(file))
            except DamagedError as error:
                error.hint = REPAIR_HINT if error.code == CHANGED else error.hint
                yield error
            except NotTrustedError as error:
                error.hint = _WHO_HINT
                yield error


def _check_runtime(release: Release) -> list[ApplianceError]:
    return check_runtime(release.runtime, release.contents, release.facts.cpu_variant)


def _check_config(release: Release) -> list[ApplianceError]:
    errors: list[ApplianceError] = []
    written = {SITE_FILE: release.facts.site, STATE_FILE: sha256(state_file(release.contents))}
    # Releases of the first versions hold neither.
    applied = {name: digest for name, digest in written.items() if os.path.lexists(release.path / name)}
    for path, digest in {**release.facts.config, **applied}.items():
        found = describe(release.path / path)
        if found is None or found[1] != digest:
            errors.append(
                DriftError(
                    "release.config-changed",
                    path,
                    expected=f"sha256 {digest}, as the install rendered it",
                    found=_words(found),
                    hint=REPAIR_HINT,
                )
            )
    # An unchanged file may still belong to another path, as in a copy of the whole prefix.
    known = {error.subject for error in errors}
    return [*errors, *(error for error in configuration_errors(release) if error.subject not in known)]


def _check_names(release: Release) -> Iterator[ApplianceError]:
    known = {str(release.place(file)) for file in release.contents.files if file.kind not in STORED}
    known |= {str(release.path / path) for path in (*release.facts.config, *RECORDS)}
    known |= {str(release.path / "bundle" / name) for name in (LAYOUT_FILE, INDEX_FILE)}
    # Other functions compare these folders. A link in the place of one is reported below, since links are not followed.
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


def _check_mark(release: Release) -> Iterator[ApplianceError]:
    try:
        check_mark(release.path)
    except NotTrustedError as error:
        yield error


def _check_layout(layout: Layout, bundle: Bundle) -> Iterator[ApplianceError]:
    try:
        refuse_unlisted(_unlisted_in(layout, bundle))
    except NotTrustedError as error:
        yield error
    # The index is not signed: it follows from the manifest.
    manifest = layout.medium.read(blob_path(bundle.manifest), MAX_MANIFEST_BYTES) or b""
    if layout.medium.read(INDEX_FILE, MAX_INDEX_BYTES) != write_index(manifest):
        yield _changed(f"bundle/{INDEX_FILE}", "the index of the signed manifest", "something else")


def _unlisted_in(layout: Layout, bundle: Bundle) -> list[str]:
    # Metadata of earlier publications may lie here: a copy is renewed file by file, and the timestamp names the rest.
    expected = {blob_path(bundle.manifest), blob_path(bundle.config.sha256)}
    expected.add(target_path(bundle.contents.name, bundle.contents.version, bundle.manifest))
    found = (path for path in unlisted(layout, expected) if not is_metadata_path(path))
    return [path for path in found if not path.endswith("/")]


def _changed(subject: str, expected: str, found: str) -> DamagedError:
    return DamagedError("release.file-changed", subject, expected=expected, found=found, hint=REPAIR_HINT)


def _unlisted(subject: str) -> NotTrustedError:
    return NotTrustedError(
        "release.unlisted",
        subject,
        expected="only what was signed or installed",
        found="a file that nothing names",
        hint=_WHO_HINT,
    )


def _words(found: tuple[int, Digest, int] | None) -> str:
    return "no such file" if found is None else f"{found[0]} bytes with sha256 {found[1]}, mode {found[2]:o}"
