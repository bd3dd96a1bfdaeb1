"""The hosts whose receipts count in a workspace, and what each one holds (threats T39, T117).

Owns `hosts/<fingerprint>.json` of a workspace: the last receipt that was read of each host. It trusts no receipt with
more than the choice of what a stick leaves out.

Rules:
- a host is enrolled once, by a fingerprint that a person read on that host and not in the receipt;
- the counter of a host's receipts only rises; the same receipt may be read again. Floors only rise, too. A host that
  goes back was restored from an old image, or somebody brings an old receipt;
- a person lifts that by giving the fingerprint again, after looking at the host;
- of a bundle that this workspace never published nothing is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.keys.workspace import Workspace
from bundles.medium import Medium
from bundles.oci.layout import blob_path, target_path
from bundles.oci.manifest import MAX_MANIFEST_BYTES, parse_manifest
from bundles.receipt import MAX_RECEIPT_BYTES, HeldBundle, Receipt, read_receipt
from signing.digest import Digest, parse_digest, sha256
from signing.errors import ApplianceError, DamagedError, NotTrustedError
from signing.floors import Floors, parse_floors
from signing.strictjson import load_canonical, to_file

HOSTS = "hosts"
_MAX_RECORD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class HostRecord:
    """What a workspace remembers of a host: the counter, floors and sha256 of the last receipt that it read."""

    counter: int
    floors: Floors
    receipt: Digest


@dataclass(frozen=True, slots=True)
class HeldDigests:
    """What a delta for a host may leave out.

    Args:
        receipt: the one that names the bundles.
        digests: of every chunk of the bundles that it names, as far as this workspace knows these bundles.
        unknown: bundles that it names and this workspace does not know; nothing of them is left out.
    """

    receipt: Receipt
    digests: frozenset[Digest]
    unknown: tuple[HeldBundle, ...]


def held_digests(path: Path, workspace: Workspace) -> HeldDigests:
    """Read a receipt, and look up the chunks of the bundles that it names.

    Args:
        path: of the receipt, untrusted.
        workspace: where its host is enrolled, and whose bundles count.

    Raises:
        NotTrustedError: as `accept_receipt`.
    """
    receipt = accept_receipt(path, workspace)
    found: set[Digest] = set()
    unknown = []
    for held in receipt.bundles:
        manifest = _manifest(held, workspace)
        if manifest is None:
            unknown.append(held)
        else:
            found |= set(parse_manifest(manifest).blobs)
    return HeldDigests(receipt, frozenset(found), tuple(unknown))


def accept_receipt(path: Path, workspace: Workspace, fingerprint: Digest | None = None) -> Receipt:
    """Verify a receipt of an enrolled host, and remember it.

    Args:
        path: untrusted.
        workspace: that keeps the record of the host.
        fingerprint: enrols the host with this key; for a host that is enrolled its record begins anew.

    Raises:
        NotTrustedError: it is of no enrolled host, changed, or older than the last one of its host.
        DamagedError: the record of the host is not what this workspace wrote.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_RECEIPT_BYTES + 1)
    known = {fingerprint} if fingerprint is not None else set(enrolled(workspace))
    receipt = read_receipt(data, known, str(path))
    host = receipt.host.fingerprint
    if fingerprint is None and (last := _record(workspace, host)) is not None:
        check_order(receipt, sha256(data), last, str(path))
    value = {"counter": receipt.counter, "floors": asdict(receipt.floors), "receipt": sha256(data)}
    Medium(workspace.path).write(f"{HOSTS}/{host}.json", to_file(value))
    return receipt


def enrolled(workspace: Workspace) -> tuple[Digest, ...]:
    """The fingerprints of the hosts that are enrolled in a workspace, sorted.

    Raises:
        DamagedError: a file lies there under another name.
    """
    return tuple(_parse_name(name) for name in Medium(workspace.path).list(HOSTS))


def check_order(receipt: Receipt, digest: Digest, last: HostRecord, subject: str) -> None:
    """Refuse a receipt that is older than the last one of its host, or of a host that was set back (threat T117).

    Args:
        receipt: verified.
        digest: the sha256 of its file.
        last: what is remembered of its host.
        subject: the file's name, for the error.

    Raises:
        NotTrustedError: code `receipt.old`.
    """
    if digest == last.receipt:
        return
    if receipt.counter <= last.counter:
        raise _old(subject, f"a counter above {last.counter}", str(receipt.counter))
    if last.floors.raised(receipt.floors) != receipt.floors:
        raise _old(subject, f"floors not below {_words(last.floors)}", _words(receipt.floors))


def _old(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError(
        "receipt.old",
        subject,
        expected=expected,
        found=found,
        hint="use the newest receipt of this host. If this is it, the host was set back to an old image: look at "
        "`appliance status` there, then enrol it again: appliance receipt read FILE --fingerprint SHA256",
    )


def _words(floors: Floors) -> str:
    return f"root {floors.root}, targets {floors.targets}, snapshot {floors.snapshot}, time {floors.time}"


def _record(workspace: Workspace, host: Digest) -> HostRecord | None:
    path = f"{HOSTS}/{host}.json"
    data = Medium(workspace.path).read(path, _MAX_RECORD_BYTES)
    if data is None:
        return None
    try:
        value = load_canonical(data, path, _MAX_RECORD_BYTES)
        if not isinstance(value, dict) or set(value) != {"counter", "floors", "receipt"}:
            raise _damaged(path, "other members")
        if type(value["counter"]) is not int:
            raise _damaged(path, "another counter")
        return HostRecord(
            value["counter"], parse_floors(to_file(value["floors"]), path), parse_digest(value["receipt"], path)
        )
    except NotTrustedError as error:
        raise _damaged(path, error.found) from None


def _parse_name(name: str) -> Digest:
    digits, _, suffix = name.rpartition(".")
    try:
        if suffix == "json":
            return parse_digest(digits, name)
    except NotTrustedError:
        pass
    raise _damaged(f"{HOSTS}/{name}", "another name")


def _damaged(path: str, found: str) -> DamagedError:
    return DamagedError(
        "hosts.damaged",
        path,
        expected="the record of an enrolled host, as this workspace wrote it",
        found=found,
        hint="remove this file, then enrol the host again: appliance receipt read FILE --fingerprint SHA256",
    )


def _manifest(held: HeldBundle, workspace: Workspace) -> bytes | None:
    # What is read is named by its digest: where it lies is no question of trust.
    for medium, path in _places(held, workspace):
        try:
            data = medium.read(path, MAX_MANIFEST_BYTES)
        except ApplianceError:
            continue
        if data is not None and sha256(data) == held.manifest:
            return data
    return None


def _places(held: HeldBundle, workspace: Workspace) -> Iterator[tuple[Medium, str]]:
    yield workspace.repository, target_path(held.name, held.version, held.manifest)
    yield Medium(workspace.dist / f"{held.name}-{held.version}"), blob_path(held.manifest)
