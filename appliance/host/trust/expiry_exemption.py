"""Whether an expiry override lifts the expiry of a bundle on this host, and the record of those that did (TRUST 12).

Owns the comparison of a signed statement with this host, and `trust/overrides/<manifest>.json`. It lifts an expiry and
nothing else: everything else about the bundle was verified before, without it.

Rules (threat T96):
- the statement names this very bundle, and this host's key or this site;
- this host's proved time is not after its last day; the clock decides nothing, as everywhere;
- it is recorded before any content is written, and `status` and `verify` show it as long as the release is installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix, make_folder
from appliance.keys.signers.host_key import host_public
from bundles.attestation.dsse import MAX_ENVELOPE_BYTES
from bundles.attestation.expiry_override import ExpiryOverride, read_override
from bundles.bundle import Bundle
from signing.digest import Digest
from signing.errors import NotTrustedError
from signing.keys import PublicKey
from signing.verified import Verified


@dataclass(frozen=True, slots=True)
class Exemption:
    """A statement that holds here.

    Args:
        override: what was signed.
        signers: fingerprints of who signed it.
        data: the file.
    """

    override: ExpiryOverride
    signers: tuple[Digest, ...]
    data: bytes

    def describe(self) -> dict[str, object]:
        """It as one JSON object."""
        place = {"host": self.override.host} if self.override.host else {"site": self.override.site}
        return {"last_day": self.override.last_day, **place, "signers": list(self.signers)}

    def __str__(self) -> str:
        people = ", ".join(one[:16] for one in self.signers)
        return f"for {self.override.place}, until {self.override.last_day}, signed by {people}"


def exempt(found: Verified[Bundle], data: bytes, prefix: Prefix, site: str, subject: str) -> Exemption:
    """Check that an override lifts the expiry of a bundle on this host.

    Args:
        found: verified but for its expiry.
        data: the override's file, untrusted.
        prefix: this host.
        site: the site's name, of `site.yaml`; empty where it has none.
        subject: the file's name, for errors.

    Raises:
        NotTrustedError: too few have signed it, it is for something else, or its last day is over.
    """
    exemption = _read(data, found.evidence.attesters, found.evidence.threshold, subject)
    override = exemption.override
    if (override.target, override.manifest) != (found.evidence.target, found.value.manifest):
        raise _refuse(
            "override.other-bundle", subject, f"{found.value.label}, {found.value.manifest}", _bundle(override)
        )
    if override.host:
        key = host_public(prefix.trust)
        own = key.fingerprint if key else "none: nothing was installed here yet, so use an override for a site"
        if override.host != own:
            raise _refuse("override.other-host", subject, f"this host's key {own}", override.host)
    elif override.site != site:
        own = f"this site, {site}" if site else f"a name of this site in {prefix.site_file}"
        raise _refuse("override.other-site", subject, own, override.site)
    if found.evidence.floors.time[:10] > override.last_day:
        raise _refuse(
            "override.over", subject, f"a last day of at least {found.evidence.floors.time[:10]}", override.last_day
        )
    return exemption


def record(prefix: Prefix, exemption: Exemption) -> None:
    """Keep an override that lifted an expiry, durably."""
    path = _place(prefix, exemption.override.manifest)
    make_folder(path.parent)
    write_file(path, exemption.data)


def recorded(prefix: Prefix, found: Verified[Bundle]) -> Exemption | None:
    """The override by which a release was installed; None where it needed none.

    Args:
        prefix: this host.
        found: the release's bundle, verified.

    Raises:
        NotTrustedError: what lies there is no override for this bundle by people who sign or have signed content.
    """
    path = _place(prefix, found.value.manifest)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ENVELOPE_BYTES + 1)
    except FileNotFoundError:
        return None
    evidence = found.evidence
    # Its signers may have been rotated out since; a threshold that was raised since does not count for the past.
    keys = (*evidence.attesters, *(key for key in evidence.former if key.key_id not in evidence.revoked))
    exemption = _read(data, keys, 1, str(path))
    if exemption.override.manifest != found.value.manifest:
        raise _refuse("override.other-bundle", str(path), found.value.manifest, _bundle(exemption.override))
    return exemption


def describe_recorded(prefix: Prefix, found: Verified[Bundle]) -> dict[str, object] | None:
    """The override by which a release was installed, as one JSON object; None where it needed none.

    A record that does not verify is described by its error: it decides nothing, and serving goes on.
    """
    try:
        exemption = recorded(prefix, found)
    except NotTrustedError as error:
        return {"error": str(error)}
    return exemption.describe() if exemption else None


def _read(data: bytes, keys: Iterable[PublicKey], threshold: int, subject: str) -> Exemption:
    override, signers = read_override(data, keys, threshold, subject)
    return Exemption(override, tuple(key.fingerprint for key in signers), data)


def _place(prefix: Prefix, manifest: Digest) -> Path:
    return prefix.trust / "overrides" / f"{manifest}.json"


def _bundle(override: ExpiryOverride) -> str:
    return f"{override.name} {override.version}, {override.manifest}"


def _refuse(code: str, subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError(
        code,
        subject,
        expected=expected,
        found=found,
        hint="ask the people who sign content for another override, or for a newer stick",
    )
