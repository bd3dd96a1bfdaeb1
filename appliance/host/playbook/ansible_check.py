"""The child process that runs Ansible in check mode: it names what would change, and changes nothing.

Command line: `python -I -m appliance.host.playbook.ansible_check RUN`, as of `ansible_child`.

Owns nothing but this name. Check mode is chosen by what is started, and not by a field of the order. A release of a
version without check mode would pass over such a field, and change the host.
"""

from __future__ import annotations

import sys

from appliance.host.playbook.ansible_child import run_playbook


def main(arguments: list[str]) -> int:
    """Run one playbook in check mode; the arguments and the exit code are those of `ansible_child.main`."""
    return run_playbook(arguments, is_check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
