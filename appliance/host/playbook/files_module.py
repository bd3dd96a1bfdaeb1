"""What the playbooks' module `appliance_files` does, for the two ways in which Ansible can call it.

Owns its options and its answer. Ansible finds the action in `playbooks/action_plugins/`, and runs it in a process that
it has forked anyway. Without the action it starts the module in `playbooks/library/` in a process of its own, which
takes a second on a slow machine. Both call `answer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.host.playbook import role_writer
from appliance.host.playbook.text_checks import CHECKS

_MODE = {"type": "str", "required": True}
_PATH = {"type": "path", "required": True}
_FOLDER = {"path": _PATH, "mode": _MODE}
_FILE = {
    "path": _PATH,
    "mode": _MODE,
    "content": {"type": "str", "required": True},
    "validate": {"type": "str", "choices": sorted(CHECKS), "default": "none"},
    "keep": {"type": "bool", "default": False},
}
OPTIONS = {
    "group": {"type": "str", "default": ""},
    "users": {"type": "list", "elements": "str", "default": []},
    "folders": {"type": "list", "elements": "dict", "options": _FOLDER, "default": []},
    "files": {"type": "list", "elements": "dict", "options": _FILE, "default": []},
}
"""The options of the module, as Ansible's argument specifications describe them."""


def answer(options: Mapping[str, Any], *, is_check: bool) -> dict[str, Any]:
    """Write what a role has rendered, or only name what would be written.

    Args:
        options: as `OPTIONS` describes them.
        is_check: whether nothing may be written.

    Returns:
        The result for Ansible: `changed`, `changes` and `diff`; or `failed` with `msg`.
    """
    order = {**options, "files": [{**file, "check": file["validate"]} for file in options["files"]]}
    try:
        changes = (role_writer.predict if is_check else role_writer.apply)(order)
    except (ValueError, OSError) as error:
        return {"failed": True, "msg": str(error)}
    return {
        "changed": bool(changes),
        "changes": [{"kind": one.kind, "name": one.name, "is_new": one.is_new} for one in changes],
        "diff": [one.as_diff() for one in changes],
    }
