"""Rules that every request must keep, even with every signature.

Owns the checks that the builder makes when it asks and that every signer's machine makes again before it signs.

Rules:
- what is published now is in the request, root and targets: without it, nobody sees what would be taken back;
- versions go up by one; a copy of the repository that others have left behind is refused (`repository.stale`);
- the stated time never goes back;
- what was revoked stays revoked and stays listed (threat T9), bundles and keys;
- an expiry override is for a bundle that is published and not revoked, by its very manifest;
- nothing expires before the day on which the bundle is meant to be installed.
"""

from __future__ import annotations

from appliance.keys.signature_requests.request import METADATA, OVERRIDE, Item, Request
from appliance.keys.signature_requests.request_refusal import refused
from appliance.keys.signature_requests.request_text import parse_asked_override
from signing.chain import read_root
from signing.errors import ApplianceError, NotTrustedError
from signing.roles import parse_root


def check_rules(request: Request) -> None:
    """Refuse a request that breaks a rule of this module.

    Raises:
        ApplianceError: naming the rule.
        NotTrustedError: it would take a revocation back.
    """
    if set(request.before) == {"root"}:
        raise refused(
            request.label,
            "the published root and targets",
            "the root alone: a request that was signed already, or one that hides what is published",
        )
    for item in request.items:
        if item.kind == METADATA:
            issued = str(item.body["x-appliance-issued"])
            before = request.old_root() if item.role == "root" else request.old_targets()
            check_next(before.version + 1 if before else 1, item.version, item.path)
            if before and issued < before.issued:
                raise ApplianceError(
                    "request.time-goes-back",
                    item.path,
                    expected=f"a time of at least {before.issued}",
                    found=issued,
                    hint="the builder's clock is wrong; set it, then make the request again",
                )
            if item.role == "targets":
                _check_revoked(request)
            else:
                _check_revoked_keys(request)
        elif item.kind == OVERRIDE:
            _check_override(request, item)
    _check_horizon(request)


def check_trust(request: Request, trusted: bytes) -> None:
    """Refuse a request that another trust root than a given one would sign.

    Args:
        request: untrusted.
        trusted: a root file that the signer knows: the one that the request was made under.

    Raises:
        NotTrustedError: code `request.other-root`.
    """
    old = request.before.get("root")
    known = read_root(trusted, "trusted root")
    if old is None or parse_root(old, "before/root")[1].signed != parse_root(trusted, "trusted root")[1].signed:
        raise NotTrustedError(
            "request.other-root",
            request.label,
            expected=f"trust root version {known.version} that you named",
            found="another one" if old else "a new trust root",
            hint="sign nothing; ask a root key holder for the newest root file, and compare fingerprints with paper",
        )


def check_next(expected: int, found: int, subject: str) -> None:
    """Refuse a version that is not the next one.

    Raises:
        ApplianceError: code `repository.stale`.
    """
    if expected != found:
        raise ApplianceError(
            "repository.stale",
            subject,
            expected=f"version {expected}",
            found=f"version {found}",
            hint="this is an old copy of the repository: go on in the newest copy of the workspace, then ask again",
        )


def check_expiry(expires: str, install_by: str, what: str) -> None:
    """Refuse what expires before the day on which it is meant to be installed.

    Args:
        expires: in the form of metadata's times.
        install_by: likewise; empty means that no day was stated.
        what: which file.

    Raises:
        ApplianceError: code `request.expires-early`.
    """
    if install_by and expires < install_by:
        raise ApplianceError(
            "request.expires-early",
            what,
            expected=f"to be valid until {install_by}, when the bundle is meant to be installed",
            found=f"{what} expires {expires}, before that",
            hint="renew it first: appliance trust rotate" if what == "root" else "choose an earlier --install-by",
        )


def _check_horizon(request: Request) -> None:
    check_expiry(request.new_root().expires, request.install_by, "root")
    for item in request.items:
        if item.kind == METADATA:
            check_expiry(str(item.body["expires"]), request.install_by, item.role)


def _check_override(request: Request, item: Item) -> None:
    override, targets = parse_asked_override(item), request.old_targets()
    entry = targets.entries.get(override.target) if targets else None
    if entry is None or entry.status == "revoked" or entry.sha256 != override.manifest:
        raise NotTrustedError(
            "request.override",
            f"{override.name} {override.version}",
            expected="a published bundle that is not revoked, by its own manifest",
            found=f"{entry.status}, manifest {entry.sha256}" if entry else "no such bundle",
            hint="sign nothing; ask whoever sent this for another request",
        )


def _check_revoked(request: Request) -> None:
    old, new = request.old_targets(), request.new_targets()
    for name, entry in (old.entries if old else {}).items():
        now = new.entries.get(name) if new else None
        if entry.status == "revoked" and (now is None or (now.status, now.sha256) != ("revoked", entry.sha256)):
            raise NotTrustedError(
                "bundle.unrevoked",
                name,
                expected="revoked, for ever",
                found=now.status if now else "no entry",
                hint="publish a new version instead",
            )


def _check_revoked_keys(request: Request) -> None:
    old = request.old_root()
    missing = sorted(set(old.revoked if old else ()) - set(request.new_root().revoked))
    if missing:
        raise NotTrustedError(
            "key.unrevoked",
            request.label,
            expected=f"the revoked key ids {', '.join(missing)}",
            found="a root that no longer lists them",
            hint="sign nothing: a revocation is never taken back; ask a root key holder",
        )
