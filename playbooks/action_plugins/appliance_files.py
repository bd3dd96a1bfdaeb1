"""Runs the module `appliance_files` in the process that Ansible has forked for the task, and not in one more.

Its documentation is in `library/appliance_files.py`. Hosts are local here, so the process runs where the files lie.
"""

from ansible.plugins.action import ActionBase

from appliance.host.playbook.files_module import OPTIONS, answer


class ActionModule(ActionBase):
    """The action of the module."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        """Check the options, and write unless in check mode."""
        result = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(argument_spec=OPTIONS)
        result.update(answer(options, is_check=self._task.check_mode))
        return result
