"""A request for signatures: a small file that travels from the builder to each signer and back.

Owns its format, and who has to sign each message of it. One file serves both ways: signers add their signatures to it.

    {"before": {"root": …, "targets": …}, "format": 1, "install_by": TIME,
     "items": [{"kind", "path", "message" or "signed"}], "signatures": [{"keyid", "path", "sig"}]}

Rules:
- nothing in it states who must sign: `before` (the published root) and the root that it proposes decide that;
- `before` holds whole signed files, so a signer's machine can show what changes without trusting the request;
- metadata stands there as it is, any other message in base64; a kind that is not known is refused, never signed;
- an expiry override stands alone;
- metadata is shown to the last field: `metadata_form` refuses what does not follow from the values that are shown;
- a signature in it by a stranger, or one that does not verify, refuses the file;
- ASCII, canonical JSON, at most 8 MiB and 256 items; a file is read only if this program would write it so.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from appliance.keys.signature_requests.metadata_form import check_root_form, check_targets_form
from appliance.keys.signature_requests.request_refusal import refused
from bundles.contents.paths import check_path
from signing.chain import read_root
from signing.digest import parse_digest, sha256
from signing.errors import NotTrustedError
from signing.keys import PublicKey
from signing.roles import MAX_BYTES, Role, Root, Targets, parse_root, parse_signature, parse_targets, parse_time
from signing.strictjson import Json, load, load_canonical, to_file, to_signing

FORMAT = 1
MAX_REQUEST_BYTES = 8 << 20
MAX_ITEMS = 256
METADATA, BOOT, STATEMENT, OVERRIDE = "metadata", "boot", "statement", "override"
MAX_SIGNATURES = 8 * MAX_ITEMS
KINDS = {METADATA: (), BOOT: ("root",), STATEMENT: ("targets",), OVERRIDE: ("targets",)}
"""What may be signed, and by which roles' keys; metadata names its role itself."""
NOBODY = Role({}, 0)


@dataclass(frozen=True, slots=True)
class Item:
    """One message to sign.

    Args:
        kind: of `KINDS`.
        path: what it will be, for example `metadata/2.targets.json` or `BOOT/BOOT.sha256`; each path stands once.
        message: the bytes that get signed.
        body: the value of a metadata message; the message is its canonical form.
    """

    kind: str
    path: str
    message: bytes = field(repr=False)
    body: Json = field(default=None, repr=False)

    @classmethod
    def of_metadata(cls, body: Mapping[str, Json]) -> Item:
        """The item for a root or targets file."""
        return cls(METADATA, f"metadata/{body['version']}.{body['_type']}.json", to_signing(body), body)

    @property
    def role(self) -> str:
        """`root` or `targets`, for metadata."""
        return str(self.body["_type"])

    @property
    def version(self) -> int:
        """The version, of metadata."""
        return int(self.body["version"])

    def unsigned(self) -> bytes:
        """The metadata file that nobody has signed yet."""
        return to_file({"signatures": [], "signed": self.body})


@dataclass(frozen=True, slots=True)
class SignersNeeded:
    """Signatures that an item needs: whose, how many, and who has signed."""

    role: str
    keys: tuple[PublicKey, ...]
    threshold: int
    signers: tuple[PublicKey, ...]

    @property
    def is_met(self) -> bool:
        """Whether enough have signed."""
        return len(self.signers) >= self.threshold

    @property
    def waiting(self) -> tuple[PublicKey, ...]:
        """Those who may still sign."""
        return tuple(key for key in self.keys if key not in self.signers)


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and the signatures that it has collected.

    Args:
        items: what is to be signed.
        before: the files that are published now: `root` and `targets`; empty for a new trust root.
        install_by: the last day on which the bundle is meant to be installed; empty where that is not stated.
        signatures: DER by path and key id; all of them verified.
    """

    items: tuple[Item, ...]
    before: Mapping[str, bytes] = field(default_factory=dict)
    install_by: str = ""
    signatures: Mapping[tuple[str, str], bytes] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """A name for its file: `root-2`, `targets-7`; for an expiry override `override-` and digits of its digest."""
        if self.is_override:
            return f"override-{sha256(self.items[0].message)[:16]}"
        first = next((item for item in self.items if item.kind == METADATA), None)
        if first is None:
            return "statements"
        return f"{first.role}-{first.version}"

    @property
    def is_override(self) -> bool:
        """Whether it asks for an expiry override, which publishes nothing."""
        return bool(self.items) and self.items[0].kind == OVERRIDE

    @property
    def is_complete(self) -> bool:
        """Whether every item has enough signatures."""
        return all(need.is_met for item in self.items for need in self.needs(item))

    def item(self, path: str) -> Item | None:
        """The item of a path."""
        return next((item for item in self.items if item.path == path), None)

    def of_role(self, role: str) -> Item | None:
        """The metadata of a role, `root` or `targets`; there is at most one of each."""
        return next((item for item in self.items if item.kind == METADATA and item.role == role), None)

    def old_root(self) -> Root | None:
        """The root that is published now; None for a new one."""
        data = self.before.get("root")
        return _published_root(data) if data is not None else None

    def new_root(self) -> Root:
        """The root that holds when this request is signed.

        Raises:
            NotTrustedError: there is neither an old nor a new one.
        """
        proposed = self.of_role("root")
        if proposed is not None:
            return _proposed_root(proposed.unsigned(), proposed.path)
        old = self.old_root()
        if old is None:
            raise refused("request", "the published root, or a new one", "neither")
        return old

    def old_targets(self) -> Targets | None:
        """The targets that are published now, from the signed file in the request; None where there are none."""
        root, data = self.old_root(), self.before.get("targets")
        if root is None or data is None:
            return None
        return _published_targets(data, self.before["root"])

    def new_targets(self) -> Targets | None:
        """The targets that this request proposes; None where it proposes none.

        Raises:
            NotTrustedError: a host would refuse them, even with every signature.
        """
        item = self.of_role("targets")
        return None if item is None else _proposed_targets(item.unsigned(), item.path)

    def needs(self, item: Item) -> tuple[SignersNeeded, ...]:
        """Whose signatures an item needs; a new root needs those of the old one's people too."""
        new, old = self.new_root(), self.old_root()
        roles: list[tuple[str, Role]] = []
        if item.kind == METADATA and item.role == "root":
            if old is not None:
                roles.append((f"root {old.version}", old.roles["root"]))
            roles.append((f"root {new.version}", new.roles["root"]))
        elif item.kind == METADATA:
            roles.append(("targets", new.roles["targets"]))
        else:
            roles += [(name, new.roles[name]) for name in KINDS[item.kind]]
        return tuple(self._need(item, name, role) for name, role in roles)

    def _need(self, item: Item, name: str, role: Role) -> SignersNeeded:
        keys = tuple(sorted(role.keys.values(), key=lambda key: key.fingerprint))
        signers = tuple(key for key in keys if (item.path, key.key_id) in self.signatures)
        return SignersNeeded(name, keys, role.threshold, signers)

    def keys(self, item: Item) -> dict[str, PublicKey]:
        """Everybody who may sign an item, by key id."""
        return {key.key_id: key for need in self.needs(item) for key in need.keys}

    def people(self) -> tuple[PublicKey, ...]:
        """Everybody who may sign something here."""
        found = {key.fingerprint: key for item in self.items for key in self.keys(item).values()}
        return tuple(found.values())

    def with_signature(self, path: str, key: PublicKey, signature: bytes) -> Request:
        """The request with one signature more.

        Raises:
            NotTrustedError: the key may not sign this item, or did not make this signature.
        """
        item = self.item(path)
        if item is None or key.key_id not in self.keys(item):
            raise refused(path, "a signature by a key that may sign it", f"one by key {key.fingerprint[:16]}")
        key.verify(signature, item.message, path)
        return replace(self, signatures={**self.signatures, (path, key.key_id): signature})

    def is_same(self, other: Request) -> bool:
        """Whether another request is a copy of this one: equal in all but the signatures."""
        return replace(other, signatures={}) == replace(self, signatures={})

    def merged(self, other: Request) -> Request:
        """The request with the signatures of another copy of it.

        Raises:
            NotTrustedError: the other is another request.
        """
        if not self.is_same(other):
            raise NotTrustedError(
                "request.differs",
                other.label,
                expected="a copy of the request that this workspace has made",
                found="another one",
                hint="send the signers the file in requests/ again: what they signed is not what is asked now",
            )
        return replace(self, signatures={**self.signatures, **other.signatures})

    def envelope(self, item: Item) -> bytes:
        """The metadata file of an item, with the signatures that are here."""
        keys = self.keys(item)
        found = [
            {"keyid": key_id, "sig": self.signatures[item.path, key_id].hex()}
            for key_id in sorted(keys)
            if (item.path, key_id) in self.signatures
        ]
        return to_file({"signatures": found, "signed": item.body})


@lru_cache(maxsize=8)
def _published_root(data: bytes) -> Root:
    return read_root(data, "before/root")


@lru_cache(maxsize=8)
def _proposed_root(data: bytes, path: str) -> Root:
    return parse_root(data, path)[0]


@lru_cache(maxsize=2)
def _published_targets(data: bytes, root: bytes) -> Targets:
    return parse_targets(data, _published_root(root).roles["targets"], "before/targets")[0]


@lru_cache(maxsize=2)
def _proposed_targets(data: bytes, path: str) -> Targets:
    return parse_targets(data, NOBODY, path)[0]


def write_request(request: Request) -> bytes:
    """Serialize a request."""
    return to_file(
        {
            "format": FORMAT,
            "before": {name: load(data, name, MAX_REQUEST_BYTES) for name, data in request.before.items()},
            "install_by": request.install_by,
            "items": [
                {"kind": item.kind, "path": item.path, "message": base64.b64encode(item.message).decode()}
                if item.kind != METADATA
                else {"kind": item.kind, "path": item.path, "signed": item.body}
                for item in request.items
            ],
            "signatures": [
                {"path": path, "keyid": key_id, "sig": request.signatures[path, key_id].hex()}
                for path, key_id in sorted(request.signatures)
            ],
        }
    )


def read_request(data: bytes, subject: str) -> Request:
    """Read a request from untrusted bytes, and check every signature in it.

    Raises:
        NotTrustedError: it breaks a rule of this module.
    """
    if not data.isascii():  # text of four bytes a character would need four times the memory, too
        at = next(at for at, byte in enumerate(data) if byte > 0x7F)
        raise refused(subject, "a request, which is ASCII text", f"the byte 0x{data[at]:02x} at {at}")
    value = load_canonical(data, subject, MAX_REQUEST_BYTES)
    if not isinstance(value, dict) or set(value) != {"before", "format", "install_by", "items", "signatures"}:
        raise refused(subject, "a signing request", "another kind of file")
    if type(value["format"]) is not int or value["format"] != FORMAT:
        raise refused(subject, f"format {FORMAT}", ascii(value["format"])[:40])
    items = tuple(_item(entry, subject) for entry in _list(value["items"], MAX_ITEMS, subject))
    if not items or len({item.path for item in items}) != len(items):
        raise refused(subject, "items, each path once", "others")
    before = value["before"]
    if not isinstance(before, dict) or set(before) not in ({"root", "targets"}, {"root"}, set()):
        raise refused(subject, "the published root and targets", "others")
    request = Request(
        items, {name: to_file(entry) for name, entry in before.items()}, _install_by(value["install_by"], subject)
    )
    _check(request, subject)
    request = _with_signatures(request, _list(value["signatures"], MAX_SIGNATURES, subject), subject)
    if write_request(request) != data:
        raise refused(subject, "a request as this program writes it", "another form of the same request")
    return request


def _install_by(text: Json, subject: str) -> str:
    return "" if text == "" else parse_time(text, "install_by", subject)


def _check(request: Request, subject: str) -> None:
    # Each of these raises where something is not what it should be.
    root, old = request.new_root(), request.old_root()
    request.old_targets()
    if len(request.items) > 1 and any(item.kind == OVERRIDE for item in request.items):
        raise refused(subject, "an expiry override alone", f"{len(request.items)} items")
    if request.is_override and request.items[0].path != f"overrides/{request.label.removeprefix('override-')}.json":
        raise refused(subject, f"an override by the name of {request.label}", repr(request.items[0].path)[:60])
    for item in request.items:
        request.needs(item)
        if item.kind != METADATA:
            continue
        if request.of_role(item.role) != item:
            raise refused(item.path, f"one {item.role} file", "two")
        if len(item.message) > MAX_BYTES[item.role]:
            raise refused(item.path, "metadata that a host would read", f"{len(item.message)} bytes")
        if item.role == "root":
            check_root_form(item.body, root, item.path)
        elif (targets := request.new_targets()) is not None:
            check_targets_form(item.body, targets, item.path)
    if old is not None and root.version not in (old.version, old.version + 1):
        raise refused(subject, f"root version {old.version + 1}", f"version {root.version}")


def _with_signatures(request: Request, entries: list[Json], subject: str) -> Request:
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"keyid", "path", "sig"}:
            raise refused(subject, "signatures with keyid, path and sig", "other fields")
        item = request.item(str(entry["path"]))
        key = request.keys(item).get(parse_digest(entry["keyid"], subject)) if item else None
        if item is None or key is None:
            raise refused(subject, "signatures by those who are asked", "one by a stranger")
        request = request.with_signature(item.path, key, parse_signature(entry["sig"], subject))
    return request


def _item(entry: Json, subject: str) -> Item:
    if not isinstance(entry, dict) or set(entry) not in ({"kind", "path", "message"}, {"kind", "path", "signed"}):
        raise refused(subject, "items with kind, path, and message or signed", "other fields")
    if not any(entry["kind"] == kind for kind in KINDS):  # it may be a list, which no set can hold
        raise refused(subject, f"a kind of {', '.join(KINDS)}", ascii(entry["kind"])[:60])
    path = check_path(entry["path"])
    if (entry["kind"] == METADATA) != ("signed" in entry):
        raise refused(subject, "signed for metadata, message for all else", "the other")
    if "signed" in entry:
        return _metadata(entry["signed"], path)
    try:
        message = base64.b64decode(str(entry["message"]), validate=True)
    except (ValueError, binascii.Error):
        raise refused(subject, "messages in base64", "something else") from None
    return Item(entry["kind"], path, message)


def _metadata(body: Json, path: str) -> Item:
    if not isinstance(body, dict) or body.get("_type") not in ("root", "targets"):
        raise refused(path, "a root or targets file", "something else")
    if type(body.get("version")) is not int or path != f"metadata/{body['version']}.{body['_type']}.json":
        raise refused(path, f"metadata/{body.get('version')}.{body['_type']}.json", path)
    return Item.of_metadata(body)


def _list(value: Json, most: int, subject: str) -> list[Json]:
    if not isinstance(value, list) or len(value) > most:
        raise refused(subject, f"a list of at most {most}", "something else")
    return value
