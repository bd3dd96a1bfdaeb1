"""The one form of the metadata that a request proposes.

Owns the way back from what a person is shown, `Root` and `Targets`, to the message that gets signed. So nothing is
signed that does not follow from the values on the screen: no field more, no other form, no key that no role names.
"""

from __future__ import annotations

from appliance.keys.signature_requests.request_refusal import refused
from appliance.keys.tuf_metadata import Times, root_of, target_entry, targets_of
from signing.roles import Root, Targets
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
    roles = {name: (tuple(role.keys.values()), role.threshold) for name, role in root.roles.items()}
    times = Times(root.expires, root.issued)
    _check(body, root_of(root.version, times, roles, root.profile, root.revoked), path)


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
        name: target_entry(entry.length, entry.sha256, entry.status, entry.statements)
        for name, entry in targets.entries.items()
    }
    _check(body, targets_of(targets.version, Times(targets.expires, targets.issued), entries), path)


def _check(body: Json, shown: dict[str, Json], path: str) -> None:
    if unknown := sorted(set(body) - set(shown)):
        raise refused(path, "fields that this program can show", f"the field {ascii(unknown[0])[:60]}")
    if other := sorted(name for name, value in shown.items() if to_file(body[name]) != to_file(value)):
        raise refused(path, f"{other[0]} as this program writes it", "more, or another form")
