"""The program `ansible-playbook`, as a run of the playbooks starts it. A release's environment has no scripts.

Command line: `python -I -m appliance.host.playbook.ansible_program ARGUMENTS`, as of `ansible-playbook`.

Owns the start. A release holds no compiled Python files, since these could not be compared with signed ones. So every
start compiles 500 modules, and the collector of cycles would walk over all that they make: a third of the time.
"""

from __future__ import annotations

import gc
import sys


def main(arguments: list[str]) -> None:
    """Run Ansible; it ends the process itself.

    Args:
        arguments: of `ansible-playbook`.
    """
    gc.disable()
    from ansible.cli import playbook

    # What was imported stays. The processes that Ansible forks for its tasks share it, too.
    gc.freeze()
    gc.enable()
    playbook.main(["ansible-playbook", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
