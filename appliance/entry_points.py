"""The modules of a host that other programs start by name: units, playbooks, and an installer of another version.

Owns the names. An installer starts some of these modules in the environment of a release of another version, so a
name never changes, wherever the code lies: it is an alias of the module that holds the code.
"""

from __future__ import annotations

ANSIBLE_CHILD = "appliance.host.runner"
ANSIBLE_CHECK = "appliance.host.check_runner"
ROLE_WRITER = "appliance.host.rendered"
LOGITS = "appliance.host.logits"
MEMORY_PROBE = "appliance.host.rehearsal"
GATEWAY = "appliance.serve.gateway"
GATEWAY_UNIT = "appliance.serve.gateway_unit"
ENGINE_UNIT = "appliance.serve.engine_unit"
ENGINE_END = "appliance.serve.engine_end"
SCRUB = "appliance.serve.scrub_unit"
TRIAL = "appliance.serve.trial_unit"

MODULES = {
    ANSIBLE_CHILD: "appliance.host.playbook.ansible_child",
    ANSIBLE_CHECK: "appliance.host.playbook.ansible_check",
    ROLE_WRITER: "appliance.host.playbook.role_writer",
    LOGITS: "appliance.host.runtime.logits",
    MEMORY_PROBE: "appliance.host.runtime.memory_probe",
    GATEWAY: "appliance.serve.gateway.server",
    GATEWAY_UNIT: "appliance.serve.unit_programs.gateway",
    ENGINE_UNIT: "appliance.serve.unit_programs.engine",
    ENGINE_END: "appliance.serve.unit_programs.engine_end",
    SCRUB: "appliance.serve.unit_programs.scrub",
    TRIAL: "appliance.serve.unit_programs.trial",
}
"""The module that holds the code, by the name that is started."""
