"""The publisher's TUF repository: one writer, all products of a trust root.

Owns its files: what is published now, and putting in place what enough people have signed.

Rules:
- nothing is written that our own verifier would not accept after it;
- all files of a publication, and the signed request, are first recorded in `trust/publishing.json`, then put in place;
- the next run finishes one that was killed: readers find the old or the new repository, and no signature is lost;
- the versions that were published last are kept beside the repository: an older copy of it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from appliance.keys.signature_requests.request import METADATA, Request, write_request
from appliance.keys.signature_requests.request_rules import check_expiry
from appliance.keys.tuf_metadata import LIFETIMES, format_time, write_snapshot
from appliance.keys.workspace import Workspace
from bundles.medium import Medium
from bundles.oci.layout import target_name
from signing.chain import ReadMetadata, Walked, walk
from signing.digest import Digest
from signing.errors import ApplianceError, DamagedError, NotTrustedError
from signing.floors import Floors, parse_floors
from signing.roles import MAX_BYTES
from signing.strictjson import Json, load, load_canonical, to_file

JOURNAL = "trust/publishing.json"
FLOORS = "trust/floors.json"
REQUESTS, DONE = "requests", "requests/done"
_MAX_JOURNAL = 64 << 20
Files = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Published:
    """The state of the repository.

    Args:
        walked: as our own verifier reads it.
        targets: bytes of the newest targets file.
    """

    walked: Walked
    targets: bytes

    @property
    def entries(self) -> dict[str, Json]:
        """Target name to `{length, hashes, custom}`."""
        value = load_canonical(self.targets, "targets.json", MAX_BYTES["targets"])
        return dict(value["signed"]["targets"])

    @property
    def before(self) -> dict[str, bytes]:
        """The files that a request compares with."""
        return {"root": self.walked.root_bytes, "targets": self.targets}


def published(workspace: Workspace) -> Published:
    """Read the repository, after finishing a publication that was interrupted.

    Raises:
        NotTrustedError: it is not covered by its own root.
        ApplianceError: it is older than what was published last (code `repository.stale`).
    """
    finish_publication(workspace)
    walked = walk(workspace.root_file.read_bytes(), _reader(workspace, {}), Floors())
    last = _last(workspace)
    if walked.targets.version < last.targets or walked.root.version < last.root:
        raise ApplianceError(
            "repository.stale",
            str(workspace.repository.root),
            expected=f"targets version {last.targets}, root version {last.root}",
            found=f"targets version {walked.targets.version}, root version {walked.root.version}",
            hint="this is an old copy of trust/repository: restore the newest one",
        )
    return Published(walked, _read(workspace.repository, f"{walked.targets.version}.targets.json"))


def published_manifest(workspace: Workspace, name: str, version: str) -> Digest | None:
    """The manifest digest that this version was published with, or None."""
    entry = published(workspace).walked.targets.entries.get(target_name(name, version))
    return entry.sha256 if entry else None


def read_newest(workspace: Workspace, request: Request | None = None, now: datetime | None = None) -> Files:
    """The metadata files that a bundle carries, by name: every root, and the newest timestamp, snapshot and targets.

    Args:
        workspace: of the publisher.
        request: one that waits for signatures: the files are then as they will be, and too few have signed them.
        now: with `request`: the time that the builder states.
    """
    current = published(workspace)
    walked = current.walked
    roots = [f"{number}.root.json" for number in range(1, walked.root.version + 1)]
    files = {name: _read(workspace.repository, name) for name in roots}
    if request is not None and not request.is_complete and now is not None:
        return {**files, **proposed(workspace, request, now)}
    names = (f"{walked.floors.snapshot}.snapshot.json", f"{walked.targets.version}.targets.json", "timestamp.json")
    return {**files, **{name: _read(workspace.repository, name) for name in names}}


def proposed(workspace: Workspace, request: Request, now: datetime) -> Files:
    """The metadata files that a request would publish, by name, with the signatures that it has.

    Args:
        workspace: whose builder's key signs snapshot and timestamp.
        request: complete or not.
        now: the time that the builder states.

    Raises:
        UsageError: the builder's key is not here.
        ApplianceError: the builder's files would expire before the bundle is meant to be installed.
    """
    files = {
        item.path.removeprefix("metadata/"): request.envelope(item) for item in request.items if item.kind == METADATA
    }
    proposals = [data for name, data in files.items() if name.endswith(".targets.json")]
    targets = proposals[0] if proposals else request.before["targets"]
    number = int(load(targets, "targets", MAX_BYTES["targets"])["signed"]["version"])
    last = published(workspace).walked.floors.snapshot if request.before else 0
    for role in ("snapshot", "timestamp"):
        check_expiry(format_time(now + timedelta(days=LIFETIMES[role])), request.install_by, role)
    return {**files, **write_snapshot(last + 1, targets, number, workspace.builder(request.new_root()), now)}


def write_signed(workspace: Workspace, request: Request, now: datetime) -> None:
    """Publish what enough people have signed.

    Args:
        workspace: locked by the caller.
        request: complete.
        now: the time that the builder states.

    Raises:
        NotTrustedError: our own verifier would refuse the result, so nothing is written.
    """
    files = proposed(workspace, request, now)
    root = f"{request.new_root().version}.root.json"
    pinned = workspace.root_file.read_bytes() if request.before else files[root]
    walked = walk(pinned, _reader(workspace, files), _last(workspace))
    floors = Floors(walked.root.version, walked.floors.timestamp, walked.floors.snapshot, walked.targets.version)
    journal = {f"trust/repository/metadata/{name}": data for name, data in files.items()}
    journal[FLOORS] = to_file(asdict(floors))
    journal[f"{DONE}/{request.label}.json"] = write_request(filed(request))
    # Last: a workspace is one that has trust/root.json.
    journal["trust/root.json"] = walked.root_bytes
    serialized = to_file([[path, load(data, path, _MAX_JOURNAL)] for path, data in journal.items()])
    workspace.repository.root.mkdir(parents=True, exist_ok=True)
    Medium(workspace.path).write(JOURNAL, serialized)
    finish_publication(workspace)


def filed(request: Request) -> Request:
    """A request as it is kept once it was signed: what, and by whom. The targets of that time are in the repository."""
    return replace(request, before={name: data for name, data in request.before.items() if name == "root"})


def finish_publication(workspace: Workspace) -> None:
    """Put in place what was recorded and not yet put in place; nothing where there is no such thing."""
    medium = Medium(workspace.path)
    journal = medium.read(JOURNAL, _MAX_JOURNAL)
    if journal is None:
        return
    for path, value in load_canonical(journal, JOURNAL, _MAX_JOURNAL):
        medium.write(path, to_file(value))
        if path.startswith(f"{DONE}/"):
            (workspace.path / REQUESTS / path.removeprefix(f"{DONE}/")).unlink(missing_ok=True)
    (workspace.path / JOURNAL).unlink()


def _reader(workspace: Workspace, files: Mapping[str, bytes]) -> ReadMetadata:
    repository = workspace.repository

    def read(name: str, most: int) -> bytes | None:
        if name in files:
            return files[name][: most + 1]
        return repository.read(f"metadata/{name}", most) if repository.root.is_dir() else None

    return read


def _last(workspace: Workspace) -> Floors:
    path = workspace.path / FLOORS
    try:
        return parse_floors(path.read_bytes(), str(path))
    except FileNotFoundError:
        return Floors()
    except NotTrustedError as error:
        raise DamagedError(
            "repository.floors",
            str(path),
            expected="the versions published last",
            found=error.found,
            hint="restore trust/floors.json from a backup",
        ) from None


def _read(repository: Medium, name: str) -> bytes:
    data = repository.read(f"metadata/{name}", MAX_BYTES["targets"])
    if data is None:
        raise DamagedError(
            "repository.missing",
            f"{repository.root}/metadata/{name}",
            expected="a file of the repository",
            found="none",
            hint="restore trust/repository from a backup",
        )
    return data
