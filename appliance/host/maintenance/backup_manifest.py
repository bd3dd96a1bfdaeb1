"""The signed list of a backup: which host it is of, its floors, and every file with size and digest.

Owns the form of `BACKUP.json`: a DSSE envelope with one signature by the key of the host that wrote it. The caller
gives the hosts whose backups count; a backup of another host is refused before anything of it is used.

Rules (threat T127):
- every path follows a grammar of a few names: a backup has no place for a private key or an installed release;
- the key that signed did not come with the backup: it is that of this host, or one that a person named by fingerprint;
- what is not listed is not read.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass

from bundles.attestation.dsse import check_signers, pae, parse_envelope
from signing.digest import Digest, parse_digest
from signing.errors import HostUnfitError, NotTrustedError
from signing.floors import Floors, parse_floors
from signing.keys import PublicKey, key_from_json, key_to_json
from signing.roles import parse_time
from signing.strictjson import MAX_INT, Json, load, load_canonical, to_file

MANIFEST_FILE = "BACKUP.json"
PAYLOAD_TYPE = "application/vnd.airgap-appliance.backup.v1+json"
FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILES = 1024
ROOT, ACCESS, SITE, ROOTS, AUDIT = "root.json", "access.db", "site.yaml", "roots", "audit"
_PATH = re.compile(
    r"root\.json|access\.db|site\.yaml|roots/[1-9][0-9]{0,9}\.root\.json|audit/[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
)
_FIELDS = {"counter", "counted", "files", "floors", "format", "host", "state", "time"}


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A file of a backup: its path with `/`, its size in bytes and its digest."""

    path: str
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """What a host states about its backup.

    Args:
        host: its key.
        time: of the host's clock, which proves nothing.
        state: the format of its stored state.
        floors: the lowest versions that it accepted.
        counter: the number of its last receipt; 0 where there was none.
        counted: when that receipt was written; empty where there was none.
        files: by path, each once.
    """

    host: PublicKey
    time: str
    state: int
    floors: Floors
    counter: int
    counted: str
    files: tuple[BackupFile, ...]

    @property
    def payload(self) -> bytes:
        """The bytes that are signed: canonical JSON."""
        return to_file(
            {
                "counted": self.counted,
                "counter": self.counter,
                "files": [asdict(file) for file in self.files],
                "floors": asdict(self.floors),
                "format": FORMAT,
                "host": key_to_json(self.host),
                "state": self.state,
                "time": self.time,
            }
        )


def is_backup_path(path: str) -> bool:
    """Whether a backup may have a file of this name."""
    return _PATH.fullmatch(path) is not None


def write_manifest(manifest: BackupManifest, sign: Callable[[bytes], bytes]) -> bytes:
    """Sign a list.

    Args:
        manifest: what is listed.
        sign: makes a signature, ECDSA P-256 in DER, with the key of `manifest.host` over a message.
    """
    signature = sign(pae(PAYLOAD_TYPE, manifest.payload))
    signatures = [{"keyid": manifest.host.key_id, "sig": base64.b64encode(signature).decode()}]
    payload = base64.b64encode(manifest.payload).decode()
    return to_file({"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": signatures})


def read_manifest(data: bytes, known: Collection[Digest], subject: str) -> BackupManifest:
    """Verify the list of a backup.

    Args:
        data: untrusted.
        known: fingerprints of the keys of hosts whose backups count; they did not come with the backup.
        subject: the file's name, for errors.

    Raises:
        NotTrustedError: no list, one of a host that is not known, one that was changed, or a path outside the grammar.
        HostUnfitError: a later version of this program wrote it.
    """
    envelope = parse_envelope(load(data, subject, MAX_MANIFEST_BYTES), PAYLOAD_TYPE, subject)
    value = load_canonical(envelope.payload, subject, MAX_MANIFEST_BYTES)
    if not isinstance(value, dict) or "host" not in value:
        raise _refused(subject, "the list of a backup", "something else")
    host = key_from_json(value["host"], subject)
    check_host(host, known, subject)
    check_signers(envelope, [host], 1, subject)
    if value.get("format") != FORMAT or type(value["format"]) is not int:
        raise HostUnfitError(
            "backup.newer-format",
            subject,
            expected=f"a backup of format {FORMAT}",
            found=f"format {value.get('format')!r}"[:60],
            hint="restore it with the version of this program that wrote it, or a later one",
        )
    return _parse(value, host, subject)


def check_host(host: PublicKey, known: Collection[Digest], subject: str) -> None:
    """Refuse a backup of a host that was not named (threat T127).

    Raises:
        NotTrustedError: code `backup.stranger`.
    """
    if host.fingerprint not in known:
        raise NotTrustedError(
            "backup.stranger",
            subject,
            expected="a backup of this host",
            found=f"one of the host with the key {host.fingerprint}",
            hint="compare with what `appliance trust show` printed on that host, as it was written down there; then: "
            "appliance restore BACKUP --from-host SHA256",
        )


def _parse(value: dict[str, Json], host: PublicKey, subject: str) -> BackupManifest:
    if set(value) != _FIELDS:
        raise _refused(subject, f"the members {', '.join(sorted(_FIELDS))}", "others")
    counter, counted, files = value["counter"], value["counted"], value["files"]
    if not _is_count(counter, 0) or not isinstance(counted, str) or bool(counted) != bool(counter):
        raise _refused(subject, "the number of a receipt and its time", repr(counter)[:40])
    if not _is_count(value["state"], 1):
        raise _refused(subject, "a format of the stored state", repr(value["state"])[:40])
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise _refused(subject, f"a list of at most {MAX_FILES} files", "something else")
    listed = tuple(_file(item, subject) for item in files)
    if len({file.path for file in listed}) != len(listed):
        raise _refused(subject, "each file once", "one twice")
    return BackupManifest(
        host,
        parse_time(value["time"], "time", subject),
        value["state"],
        parse_floors(to_file(value["floors"]), subject),
        counter,
        parse_time(counted, "counted", subject) if counted else "",
        listed,
    )


def _file(item: Json, subject: str) -> BackupFile:
    if not isinstance(item, dict) or set(item) != {"path", "sha256", "size"}:
        raise _refused(subject, "files with path, sha256, size", "others")
    path = item["path"]
    if not isinstance(path, str) or not is_backup_path(path) or not _is_count(item["size"], 0):
        raise _refused(subject, "the path of a file that a backup may have, and its size", repr(path)[:120])
    return BackupFile(path, item["size"], parse_digest(item["sha256"], subject))


def _is_count(value: Json, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_INT


def _refused(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("backup.refused", subject, expected=expected, found=found)
