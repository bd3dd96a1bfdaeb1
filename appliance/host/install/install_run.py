"""One run of an install or a switch, under the lock: the values that its steps share.

Owns these values, and what several steps ask of them; what each step does is in `appliance.host.install.steps`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from appliance.host.activation.services import NoServices, Services
from appliance.host.activation.systemd_services import SystemdServices
from appliance.host.change.change_file import HostChange
from appliance.host.change.journal import Journal
from appliance.host.install.bundle_admission import AdmittedBundle, release_path
from appliance.host.layout.places import rendered_names
from appliance.host.models.switch_memory import WINDOW, judge_switch
from appliance.host.playbook.ansible_run import PlaybookCounts
from appliance.host.preflight.host_check import PreflightResult
from appliance.host.preflight.inputs import Host
from appliance.host.preflight.serving import release_workloads, serving_workloads
from appliance.host.process.programs import Programs
from appliance.host.release.environment import Interpreter
from appliance.host.release.release import Release
from appliance.host.release.release_check import rendered_digests
from appliance.host.release.release_json import Facts
from appliance.host.runtime.trial_ahead import TrialAhead
from appliance.host.runtime.variant_choice import Choice
from appliance.host.site.config import SiteConfig
from appliance.host.trust.expiry_exemption import Exemption
from bundles.bundle import Bundle
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, ApplyBrokenError, ApplyRestoredError
from signing.verified import Verified

GOOD, TRYING_NOW, STAGED = "good", "trying", "staged"
"""How a run ended: the release serves and is good; it serves and is watched; it waits for the switch."""


@dataclass(slots=True)
class InstallRun:
    """The values of one run.

    Args:
        host: the machine, and the choices of its operator.
        programs: starts the programs of the run.
        found: the bundle, verified.
        trust: bytes of the root that it was verified against.
        on_progress: called with what is done.
        admitted: the media, for a run that installs from them.
        preflight: of this host, for a run that installs from media.
    """

    host: Host
    programs: Programs
    found: Verified[Bundle]
    trust: bytes
    on_progress: OnProgress = ignore
    admitted: AdmittedBundle | None = None
    preflight: PreflightResult | None = None
    exemption: Exemption | None = None
    warnings: list[str] = field(default_factory=list)
    site: SiteConfig = field(default_factory=SiteConfig)
    was_complete: bool = False
    was_interrupted: bool = False
    is_tried: bool = False
    is_same: bool = False
    before: str | None = None
    """What `current` named when the run began."""
    previous: str | None = None
    """What `previous` named when the run began."""
    change: HostChange | None = None
    """The unfinished change of an earlier run that goes on if this run fails."""
    copied: int = 0
    played: PlaybookCounts = field(default_factory=lambda: PlaybookCounts(0, 0))
    choice: Choice = field(default_factory=lambda: Choice("", 0, 0))
    python: Interpreter | None = None
    uv: Path | None = None
    trial: TrialAhead | None = None
    """The measurements of CPU variants that are made while the environment is built."""
    facts: Facts | None = None
    release: Release | None = None
    answer: str = ""
    end: str = GOOD
    _is_window: bool | None = None
    services: Services = field(init=False)
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        prefix = self.host.prefix
        self.services = SystemdServices(prefix, self.host.now) if prefix.is_system else NoServices(self.programs)
        self.journal = Journal(prefix.journal / "install.jsonl", self.host.now)

    @property
    def path(self) -> Path:
        """The folder of the release."""
        return release_path(self.host.prefix, self.found.value)

    @property
    def is_current(self) -> bool:
        """Whether the release served when the run began: it is repaired or configured anew."""
        return self.before is not None and self.host.prefix.opt / self.before == self.path

    @property
    def back(self) -> str:
        """The folder's name of the release that a return goes to; empty where there is none.

        While another release is on trial, that is the last good one, and not the one on trial.
        """
        serving = Path(self.before).name if self.before else ""
        trial = self.change
        if trial is not None and trial.is_trying and trial.release == serving and trial.before != self.path.name:
            return trial.before
        return serving

    def needs_window(self) -> bool:
        """Whether the memory holds the engines of one release only: those that serve then end first.

        The first call decides; it comes before `current` is renamed.
        """
        if self._is_window is None:
            host = self.host
            serving = serving_workloads(host.prefix, host.now(), self.path)
            new = (self.preflight.models if self.preflight else ()) or release_workloads(self.opened())
            self._is_window = judge_switch(serving, new, host.card).way == WINDOW
        return self._is_window

    def is_on_trial(self) -> bool:
        """Whether the release is watched once it serves: a first install and a repair have no way back."""
        if self.is_current:
            return self.change is not None and self.change.is_trying
        if self.change is not None and self.change.is_trying and self.change.before == self.path.name:
            return False  # the last good release; the one on trial is nothing to return to
        return bool(self.back) and self.site.trial.good_after > 0

    def rendered_names(self) -> tuple[str, ...]:
        """The files that the playbooks write, by path below the release."""
        return rendered_names(self.host.prefix, self.found.value.contents, self.found.value.manifest)

    def compute_facts(self, site: SiteConfig) -> Facts:
        """Collect the facts of the release, with the digest of each rendered file.

        Raises:
            ApplyRestoredError: a file that the playbooks write is missing.
        """
        contents = self.found.value.contents
        config = rendered_digests(self.path, self.rendered_names(), "install again")
        assert self.python is not None, "the step before has found it"
        return Facts(
            name=contents.name,
            version=contents.version,
            manifest=self.found.value.manifest,
            cpu_variant=self.choice.variant,
            tokens_per_s=self.choice.generated_tokens_per_s,
            isolation=self.programs.isolation,
            python=str(self.python.path),
            python_version=self.python.version,
            site=site.digest,
            config=config,
        )

    def opened(self) -> Release:
        """The release with its facts.

        Raises:
            DriftError: no step has computed them.
        """
        assert self.facts is not None, "the step before has computed them"
        return Release(self.path, self.host.prefix, self.found, self.facts)

    def not_restored(self, first: BaseException, failed: ApplianceError | OSError) -> ApplyBrokenError:
        """The error for a return that failed, with the error that made it necessary."""
        error = ApplyBrokenError(
            "install.not-restored",
            self.before or "no release served before",
            expected="the release that served before to serve again",
            found=str(failed),
            hint="see `appliance status` and `journalctl -b`; then run the same command again",
        )
        if isinstance(first, ApplianceError):
            error.others = (first, *first.others)
        return error


def gate_failed(subject: str, expected: str, found: str, hint: str = "") -> ApplyRestoredError:
    """The error of a release that users do not reach; the one before serves again."""
    return ApplyRestoredError(
        "gate.failed",
        subject,
        expected=expected,
        found=found,
        hint="the release that served before serves again; "
        + (hint or "run the same command once more, and check the disk if it fails again"),
    )
