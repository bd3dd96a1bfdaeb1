#!/usr/bin/python
"""The module of the roles: what a role has rendered is compared with this host, and the difference is written.

It runs in the environment of a release, whose package `appliance` holds the code.
"""

DOCUMENTATION = r"""
module: appliance_files
short_description: Writes the users, folders and files of a role, all at once
description:
  - Checks every text as its reader will parse it, and then writes what differs, each file as a whole and durably.
  - Nothing is written where one text fails its check. Nothing is written through a symbolic link.
  - In check mode it names exactly what it would change.
options:
  group:
    description: A group of the system that the users belong to. It is made where it is missing.
    type: str
    default: ''
  users:
    description: Users that services run as, without a home or a shell. They are made where they are missing.
    type: list
    elements: str
    default: []
  folders:
    description: Folders to make, each inside one that exists or that stands before it in the list.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      mode:
        description: Octal digits, whatever the umask is.
        type: str
        required: true
  files:
    description: Files to write, each inside a folder that exists.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      mode:
        description: Octal digits, whatever the umask is.
        type: str
        required: true
      content:
        description: The whole text.
        type: str
        required: true
      validate:
        description: The reader that must be able to parse the text.
        type: str
        choices: [json, nft, none, shell, site, unit]
        default: none
      keep:
        description: Whether a file that exists is left alone.
        type: bool
        default: false
author: The project
"""

EXAMPLES = r"""
- name: Write the configuration of the gateway
  appliance_files:
    files:
      - path: /opt/appliance/current/config/gateway.json
        mode: "0644"
        content: "{{ lookup('ansible.builtin.template', 'gateway.json.j2') }}"
        validate: json
"""

RETURN = r"""
changes:
  description: What was changed, or would be, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: One of file, folder, group, user.
      type: str
    name:
      description: The path, or the name of the user or group.
      type: str
    is_new:
      description: Whether nothing was there before.
      type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from appliance.host.playbook.files_module import OPTIONS, answer


def main():
    """Check the options, write unless in check mode, and report the changes."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    result = answer(module.params, is_check=module.check_mode)
    if result.get("failed"):
        module.fail_json(msg=result["msg"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
