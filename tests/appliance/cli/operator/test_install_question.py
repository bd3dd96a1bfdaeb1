"""`appliance install` shows its plan, asks once on a terminal, and pins a root whose fingerprints it was given."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.cli.operator import install as program
from appliance.cli.operator.install_dialogue import OperatorDialogue, plan_lines, typed_arguments
from appliance.host.install.bundle_admission import verify_media
from appliance.host.install.planning.install_plan import InstallPlan, plan_install
from appliance.host.layout.prefix import Prefix
from appliance.host.models.fit import Fit
from appliance.host.preflight.host_check import PreflightResult
from appliance.host.preflight.inputs import Host
from appliance.host.trust.trust_store import read_root, write_root
from bundles.bundle import Bundle
from signing.verified import Verified
from tests.attacks.harness import Answer, Stick, command, make_stick
from tests.toy import build_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder, under a root that no test trusts."""
    return build_toy(tmp_path_factory.mktemp("toy"))[1]


@pytest.fixture
def stick(toy: Path, tmp_path: Path) -> Stick:
    """The bundle on a stick, signed by people."""
    return make_stick(toy, tmp_path)


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    return Prefix.at(tmp_path / "host")


@pytest.fixture
def prints(stick: Stick) -> list[str]:
    """The fingerprints that stand on paper: as many as must sign."""
    return [str(one.public.fingerprint) for one in stick.repository.people.root][:2]


@dataclass
class Reached:
    """Whether an install went on after its plan, and which root it was given."""

    plans: int = 0
    root: bytes = b""
    is_compared: bool = False


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> Reached:
    """`appliance install` ends where it would begin to write."""
    seen = Reached()

    def stop(
        source: Path, trust: bytes, host: Host, _progress: object, dialogue: OperatorDialogue, **_options: bool
    ) -> None:
        found = verify_media(source, trust, host).found
        dialogue.on_planned(plan_of(host, found))
        seen.plans, seen.root, seen.is_compared = seen.plans + 1, trust, host.is_root_compared
        raise SystemExit(0)

    monkeypatch.setattr(program, "install", stop)
    return seen


def plan_of(host: Host, found: Verified[Bundle]) -> InstallPlan:
    preflight = PreflightResult(None, ("x64",), (), (), Fit(8 << 20, 2 << 20, 4, 64, (), ()), 3, 5_000_000)
    return plan_install(host, host.prefix.release_path("1.0.0", found.value.manifest), found, preflight)


def install(stick: Stick, prefix: Prefix, *words: str) -> Answer:
    return command("install", stick.path, "--prefix", prefix.root, *words)


def named(stick: Stick, prints: list[str]) -> list[str]:
    return ["--root", str(stick.root_file), *(word for one in prints for word in ("--fingerprint", one))]


class FakeTerminal(io.StringIO):
    """A text stream that is a terminal for whoever asks it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a person sit at the terminal, who types a text."""

    def sit(typed: str) -> None:
        monkeypatch.setattr(sys, "stdin", FakeTerminal(typed))
        monkeypatch.setattr(sys, "stderr", FakeTerminal())

    return sit


def test_yes_on_a_terminal_goes_on_and_no_changes_nothing(
    stick: Stick, prefix: Prefix, prints: list[str], reached: Reached, person: Callable[[str], None]
) -> None:
    person("y\n")
    assert install(stick, prefix, *named(stick, prints)).code == 0
    assert reached.plans == 1
    for typed in ("n\n", "\n", ""):
        person(typed)
        answer = install(stick, prefix, *named(stick, prints))
        assert answer.code == 130
    assert "nothing was installed" in answer.talk or not typed
    assert reached.plans == 1
    assert not prefix.root.exists()


def test_nothing_is_asked_with_the_option_nor_without_a_terminal(
    stick: Stick, prefix: Prefix, prints: list[str], reached: Reached, person: Callable[[str], None]
) -> None:
    assert install(stick, prefix, *named(stick, prints)).code == 0
    person("")
    assert install(stick, prefix, *named(stick, prints), "--yes").code == 0
    assert reached.plans == 2


def test_plan_names_what_is_copied_where_and_the_memory(
    stick: Stick, prefix: Prefix, prints: list[str], reached: Reached
) -> None:
    shown = install(stick, prefix, *named(stick, prints)).talk.splitlines()
    assert shown[1].startswith(f"to install: toy 1.0.0 as {prefix.releases}/1.0.0-")
    assert shown[2].strip().startswith("copies    3 of ")
    assert shown[2].endswith("at most 5.0 MB")
    assert shown[3].strip() == "services  none; the command to serve in the foreground follows the install"
    assert shown[4].strip() == "memory    2 MiB of the 8 MiB that models may take"
    assert len(shown) == 5


def test_plan_names_packages_services_and_what_serves_until_then(stick: Stick, tmp_path: Path) -> None:
    found = stick.verify()
    packages = tuple(f"python3.11-{at}_3.11.2-6_amd64.deb" for at in range(10))
    release = tmp_path / "1.0.0-abc"
    plan = InstallPlan(
        found, Prefix(Path("/")), release, 0, 0, packages, "debian-12", ("a.service",), None, "releases/0.9"
    )
    _, copies, brought, services, before = plan_lines(plan)
    assert copies == "  copies    nothing: every file is there; each is compared"
    assert brought.endswith("python3.11-7 and 2 more")
    assert services == "  services  a.service; they start at every boot"
    assert before == "  until it has answered, 0.9 serves"


def test_root_with_its_fingerprints_is_announced_and_goes_with_the_install(
    stick: Stick, prefix: Prefix, prints: list[str], reached: Reached
) -> None:
    answer = install(stick, prefix, *named(stick, prints))
    assert "this install pins root version 1 on this host: it has the given fingerprints" in answer.talk
    assert (reached.root, reached.is_compared) == (stick.root, True)


@pytest.mark.parametrize(
    "words", [("--root", "ROOT"), ("--fingerprint", "0" * 64), ("--root", "ROOT", "--trust", "ROOT")]
)
def test_root_and_fingerprints_go_together_and_replace_no_other_trust(
    stick: Stick, prefix: Prefix, prints: list[str], reached: Reached, words: tuple[str, ...]
) -> None:
    words = tuple(str(stick.root_file) if word == "ROOT" else word for word in words)
    more = ("--fingerprint", prints[0]) if "--trust" in words else ()
    assert install(stick, prefix, *words, *more).code == 2
    assert reached.plans == 0


def test_pinned_root_stays_and_must_cover_the_bundle_too(
    stick: Stick, prefix: Prefix, prints: list[str], reached: Reached, tmp_path: Path
) -> None:
    made, _ = build_toy(tmp_path / "other")
    prefix.create()
    write_root(prefix, made.root_file.read_bytes())
    assert install(stick, prefix, *named(stick, prints)).code == 4
    assert read_root(prefix) == made.root_file.read_bytes()
    assert reached.plans == 0


@pytest.mark.parametrize(
    "words",
    [
        ["/media/stick"],
        ["--yes", "--json", "/media/a", "/media/b"],
        ["--wait", "--select", "toy-1.0.0", "-odd-"],
        ["--no-wait", "--prefix", "/srv/host", "/media/a"],
        ["--root", __file__, "--fingerprint", "0" * 64, "--fingerprint", "1" * 64, "/media/a"],
    ],
)
def test_other_program_gets_the_words_that_were_typed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPLIANCE_WORKSPACE", "/somewhere")  # which the other program reads itself
    names = [word for word in words if word.startswith("/media") or word == "-odd-"]
    options = words[: len(words) - len(names)]
    typed = [*options, "--", *names]
    with program.command.make_context("install", typed) as context:
        once = typed_arguments(context)
    assert once[0] == "install"
    assert once[-len(names) - 1 :] == ["--", *names]
    assert sorted(once[1 : -len(names) - 1]) == sorted(options)
    with program.command.make_context("install", once[1:]) as again:
        assert again.params == context.params
