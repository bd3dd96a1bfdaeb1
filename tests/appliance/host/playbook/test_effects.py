"""What a role declares is read strictly, and equals what the modules that render it know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.layout.places import rendered_names
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import GROUP, USERS, unit_names
from appliance.host.maintenance import uninstall
from appliance.host.maintenance.uninstall import KEPT_ETC, KEPT_STATE, UNITS
from appliance.host.playbook.ansible_run import variables
from appliance.host.playbook.effects import (
    FILE,
    PURGE,
    RELEASE,
    UNINSTALL,
    UNIT,
    Effect,
    declared_effects,
    read_effect_files,
)
from appliance.host.site.config import SiteConfig
from appliance.resources import playbooks_path
from signing.errors import NotTrustedError
from tests.appliance.sim_host import new_host

PATH = "roles/one/meta/effects.yml"
VARIABLES = {"yes": True, "no": False, "root": "/r", "models": [{"name": "a"}, {"name": "b"}], "users": ["u"]}


def parse(text: str) -> tuple[Effect, ...]:
    return declared_effects({PATH: f"effects:\n{text}".encode()}, VARIABLES)


def test_every_role_declares_its_effects() -> None:
    roles = {path.name for path in (playbooks_path() / "roles").iterdir()}
    assert {path.split("/")[1] for path in read_effect_files(playbooks_path())} == roles


@pytest.mark.parametrize("root", ["/", "/srv/a b"])
def test_declared_files_of_a_release_are_those_that_every_check_expects(tmp_path: Path, root: str) -> None:
    prefix, bundle = Prefix(Path(root)), new_host(tmp_path).verify().value
    release = prefix.release_path(bundle.contents.version, bundle.manifest)
    files = read_effect_files(playbooks_path())
    # The bundle of these tests has no roles. By the path of their tasks a host knows what a bundle renders.
    toy = bundle.contents.of_kind("playbook")[0]
    tasks = [replace(toy, path=f"playbooks/{path}".replace("meta/effects", "tasks/main")) for path in files]
    for template in ("gateway/templates/appliance-gateway.socket", "engine/templates/appliance-scrub.timer"):
        tasks.append(replace(toy, path=f"playbooks/roles/{template}.j2"))
    bundle = replace(bundle, contents=replace(bundle.contents, files=(*bundle.contents.files, *tasks)))
    effects = declared_effects(files, variables(prefix, release, bundle, SiteConfig()))
    written = {one.file or one.name for one in effects if one.kind in (FILE, UNIT)}
    below = {path.removeprefix(f"{release}/") for path in written if path.startswith(f"{release}/")}
    assert below == set(rendered_names(prefix, bundle.contents, bundle.manifest))
    units = unit_names(bundle.contents, bundle.manifest) if prefix.is_system else ()
    assert {one.name for one in effects if one.kind == UNIT} == set(units)
    assert {one.name for one in effects if one.kind == "user"} == (
        {"appliance-engine", "appliance-gateway"} if prefix.is_system else set()
    )


def test_marks_conditions_and_lists_are_applied() -> None:
    assert parse(
        '- {kind: file, name: "{{ root }}/{{ item.name }}", mode: "0644", each: models, until: release}\n'
        '- {kind: user, name: "{{ item }}", each: users, when: "yes", until: uninstall}\n'
        '- {kind: folder, name: /x, mode: "0700", when: "no", until: purge}\n'
    ) == (
        Effect("one", "file", "/r/a", "release", 0o644),
        Effect("one", "file", "/r/b", "release", 0o644),
        Effect("one", "user", "u", "uninstall"),
    )


@pytest.mark.parametrize(
    "text",
    [
        '- {kind: file, name: x, mode: "0644", until: release}',  # relative
        "- {kind: file, name: /x, until: release}",  # no mode
        '- {kind: user, name: x, mode: "0644", until: release}',
        '- {kind: file, name: /x, mode: "0644", until: later}',
        '- {kind: device, name: /x, mode: "0644", until: release}',
        '- {kind: unit, name: x.service, mode: "0644", until: release}',  # no file
        '- {kind: file, name: /x, mode: "0644", until: release, shell: rm}',
        '- {kind: file, name: "/{{ nothing }}", mode: "0644", until: release}',
        '- {kind: file, name: "/{{ root | upper }}", mode: "0644", until: release}',
        '- {kind: file, name: "/{{ models }}", mode: "0644", until: release}',
        '- {kind: file, name: /x, mode: "0644", until: release, when: nothing}',
        "- x",
        "  - [",
    ],
)
def test_declaration_outside_of_the_format_is_refused(text: str) -> None:
    with pytest.raises(NotTrustedError) as caught:
        parse(text)
    assert (caught.value.code, caught.value.subject) == ("effects.refused", PATH)


def test_playbooks_that_declare_nothing_have_no_effects() -> None:
    assert declared_effects({}, VARIABLES) == ()


def test_uninstall_removes_what_is_declared_until_then_and_keeps_the_rest(tmp_path: Path) -> None:
    prefix, bundle = Prefix(Path("/")), new_host(tmp_path).verify().value
    given = variables(prefix, prefix.releases / "r", bundle, SiteConfig())
    effects = declared_effects(read_effect_files(playbooks_path()), given)
    removed = {one.name for one in effects if one.until == UNINSTALL}
    assert removed == {*UNITS, *USERS, GROUP, "/usr/local/bin/appliance"} & removed
    assert {*USERS, GROUP, "/usr/local/bin/appliance", "appliance-gateway.service"} <= removed
    script = (Path(uninstall.__file__).parent / "uninstall.sh").read_text()
    assert {name for name in removed if name.rpartition("/")[2] not in script} == set()
    kept = {Path(one.name) for one in effects if one.until == PURGE}
    own = {prefix.etc, *(prefix.etc / name for name in KEPT_ETC), *(prefix.state / name for name in KEPT_STATE)}
    assert kept <= own
    # What goes with its release lies in it, or is named after it.
    assert all(str(prefix.releases) in (one.file or one.name) for one in effects if one.until == RELEASE)
