"""The one form of the metadata that a request proposes.

Owns the way back from what a person is shown, `Root` and `Targets`, to the message that gets signed. So nothing is
signed that does not follow from the values on the screen: no field more, no other form, no key that no role names.
"""

from __future__ import annotations

from appliance.keys.tuf_metadata import SPEC_VERSION
from signing.errors import NotTrustedError
from signing.keys import key_to_json
from signing.roles import REVOKED_KEYS, Root, Targets
from signing.strictjson import Json, to_file


def check_root_form(body: Json, root: Root, path: str) -> None:
    """Refuse the `signed` part of a root file that states more, or otherwise, than the root read from it.

    Args:
        body: untrusted.
        root: read from it.
        path: its name, for the error.

    Raises:
        NotTrustedError: naming the field.
    """
    _check(
        body,
        {
            **_common("root", root),
            "consistent_snapshot": True,
            "keys": {key_id: key_to_json(key) for role in root.roles.values() for key_id, key in role.keys.items()},
            "roles": {
                name: {"keyids": sorted(role.keys), "threshold": role.threshold} for name, role in root.roles.items()
            },
            **({"x-appliance-profile": root.profile} if root.profile else {}),
            **({REVOKED_KEYS: list(root.revoked)} if root.revoked else {}),
        },
        path,
    )


def check_targets_form(body: Json, targets: Targets, path: str) -> None:
    """Refuse the `signed` part of a targets file that states more, or otherwise, than the targets read from it.

    Args:
        body: untrusted.
        targets: read from it.
        path: its name, for the error.

    Raises:
        NotTrustedError: naming the field.
    """
    entries = {
        name: {
            "length": entry.length,
            "hashes": {"sha256": entry.sha256},
            "custom": {"status": entry.status, "statements": list(entry.statements)},
        }
        for name, entry in targets.entries.items()
    }
    _check(body, {**_common("targets", targets), "targets": entries}, path)


def _common(kind: str, read: Root | Targets) -> dict[str, Json]:
    return {
        "_type": kind,
        "spec_version": SPEC_VERSION,
        "version": read.version,
        "expires": read.expires,
        "x-appliance-issued": read.issued,
    }


def _check(body: Json, shown: dict[str, Json], path: str) -> None:
    if unknown := sorted(set(body) - set(shown)):
        raise _refuse(path, "fields that this program can show", f"the field {ascii(unknown[0])[:60]}")
    if other := sorted(name for name, value in shown.items() if to_file(body[name]) != to_file(value)):
        raise _refuse(path, f"{other[0]} as this program writes it", "more, or another form")


def _refuse(path: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError(
        "request.refused",
        path,
        expected=expected,
        found=found,
        hint="sign nothing; ask whoever sent this for the file in requests/ of the workspace",
    )
