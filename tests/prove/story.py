"""The story that is proven: from a stick to an answer, to the next version and back, over a reboot, without a network.

A byte that was not signed must give no answer. Owns the order of the steps and what each must show. It works on any
`Host` and knows nothing of how that is made.

Rules:

- what is typed on the host is what an operator types, from the sheet on; the bed puts nothing of the program there;
- the bed's own eyes on the host (`inside.py`) are the only other thing that is put there;
- digests are compared with what the builder knows, never with what the host shows elsewhere.
"""

from __future__ import annotations

import time
from typing import Any

from tests.bed.bare_host import QUESTION, Operator, Typed, printed_command
from tests.bed.host import Finished, Host
from tests.prove.attempts import Attempts, call_inside, put_inside
from tests.prove.material import Material
from tests.prove.transcript import Transcript, UnprovenError, expect, expect_in

URL = "http://127.0.0.1:8443"
KEY_FILE = "/etc/appliance/default.key"
GATEWAY = "appliance-gateway.service"
COMMAND = "appliance"
"""What an operator types once the host has one."""
INSTALL_S, READY_S = 1800.0, 240.0
TOKENS = 8
"""An emulated processor makes one or two in a second."""
EXIT_DAMAGED, EXIT_NOT_TRUSTED = 3, 4
SHOWN_LINES = 24


class Story:
    """One host's way.

    Args:
        host: fresh.
        material: what the connected side brings.
        transcript: takes every step.
    """

    def __init__(self, host: Host, material: Material, transcript: Transcript) -> None:
        self.host, self.material, self.transcript = host, material, transcript
        self.attempts = Attempts(host)
        self.operator = Operator(host)
        self.stick = ""
        self.serving = material.manifest
        """The digest of the release that must answer."""
        self.engine = f"appliance-engine@{material.manifest[:12]}-{material.model.name}.service"
        self.store = f"/var/lib/appliance/models/{material.file.sha256}/{material.file.path.rpartition('/')[2]}"

    def run(self) -> None:
        """Every step, in order.

        Raises:
            UnprovenError: something is not as it must be.
        """
        self.isolation()
        self.plugging()
        self.refusing_sheet()
        self.installing(self.checking())
        self.answering("An answer", "Name the capital of France.")
        self.installing_again()
        self.upgrading()
        self.rolling_back()
        self.rebooting()
        self.refusing()
        self.serving_again()
        self.counting()

    def isolation(self) -> None:
        """The host has no way out, and the count works."""
        proves = "no link but loopback and no route; attempts made on purpose fail at once, and each is counted"
        with self.transcript.step("A host without a network card", proves):
            put_inside(self.host)
            self.attempts.arm()
            self._show(["ip", "-brief", "link"])

    def plugging(self) -> None:
        """The stick is what an operator has in the hand."""
        proves = "a write-protected FAT32 stick, from which nothing can be run"
        with self.transcript.step("The stick", proves):
            self.stick = self.host.plug(self.material.stick)
            shown = self._show(["findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", self.stick])
            for part in ("vfat ro,", "noexec", "nosuid", "nodev"):
                expect_in("how the stick is mounted", part, shown.out)
            self._show(["ls", self.stick])

    def refusing_sheet(self) -> None:
        """Whom to trust is decided by paper, which did not come with the stick."""
        wrong = self.material.sheet.replace(self.material.fingerprint, "0" * 64)
        with self.transcript.step("Whom to trust", "the fingerprint on paper decides; with another one nothing runs"):
            self.operator.write_sheet(wrong)
            refused = self._typed(self.operator.check(self.stick, timeout_s=INSTALL_S), EXIT_NOT_TRUSTED)
            expect_in("what the sheet says", "REFUSED", refused.finished.err)

    def checking(self) -> str:
        """The sheet checks the stick with what the host has, and the verifier prints one command."""
        proves = "signatures, then every byte; then the program lies on the host, and one command installs with it"
        with self.transcript.step("The sheet", proves):
            self.operator.write_sheet(self.material.sheet)
            checked = self._typed(self.operator.check(self.stick, timeout_s=INSTALL_S))
            expect_in("the stick holds the bundle that was built", self.material.manifest, checked.finished.out)
            return printed_command(checked)

    def installing(self, command: str) -> None:
        """Everything that the host needs comes from the stick."""
        proves = "a plan, a question, then users, services and a release from the stick alone; they start at every boot"
        with self.transcript.step("Install", proves):
            said = self._typed(self.operator.agree(command, timeout_s=INSTALL_S)).finished
            expect_in("it asks once", QUESTION, said.out)
            expect_in("it installs the bundle that was built", f"sha256:{self.material.manifest}", said.out)
            for unit in (self.engine, GATEWAY):
                expect(f"{unit} runs", "active", self._systemctl("is-active", unit))
                expect(f"{unit} starts at boot", "enabled", self._systemctl("is-enabled", unit))
            self._show(["systemctl", "list-units", "--no-legend", "--plain", "appliance-*"])

    def answering(self, title: str, question: str) -> None:
        """One question, and the digests of what answered."""
        proves = "the answer names the very release and model that were signed, and an engine without a network"
        with self.transcript.step(title, proves):
            self._ask(question)

    def installing_again(self) -> None:
        """The same command once more changes nothing and interrupts nobody."""
        proves = "changed=0, and the engine that serves is the same process"
        with self.transcript.step("Install again", proves):
            before = self._main_pid()
            said = self._appliance("install", self.stick, timeout_s=INSTALL_S)
            expect_in("Ansible changes nothing", "changed=0", said.out)
            expect_in("nothing is changed", "was complete, nothing changed", said.out)
            expect("the engine's process", before, self._main_pid())

    def upgrading(self) -> None:
        """The next version comes on a second stick, which holds only what it adds."""
        proves = "a small stick brings the next version; it answers, is on trial, and the way back is open"
        with self.transcript.step("Upgrade", proves):
            stick = self.host.plug(self.material.newer)
            self._show(["du", "-sh", stick])
            self._appliance("install", stick, "--yes", timeout_s=INSTALL_S)
            self.serving = self.material.newer_manifest
            self._ask("What is the capital of Italy?", tokens=4)
            expect_in("what status says", f"previous   {self._release(self.material.manifest)}", self._status())

    def rolling_back(self) -> None:
        """One command brings the version before back."""
        proves = "one command, and the version before answers again"
        with self.transcript.step("Roll back", proves):
            self._appliance("rollback")
            self.serving = self.material.manifest
            self._await_ready()
            self._ask("What is the capital of Spain?", tokens=4)
            expect_in("what status says", "everything is as it was signed", self._status())

    def rebooting(self) -> None:
        """The host comes up by itself and serves the same."""
        proves = "after a reboot it verifies and serves by itself, without a hand and without the stick"
        with self.transcript.step("Reboot", proves):
            counted = self.attempts.require_none()
            self.transcript.write(f"   until here: {counted}")
            before = self._boot_id()
            self.host.stop()
            self.host.boot()
            if before == self._boot_id():
                raise UnprovenError("the host was rebooted", "another boot id", before)
            self.transcript.write(f"   during boot: {self.attempts.arm_again()}")
            self._await_ready()
            self._ask("Which planet is known as the red planet?", tokens=4)

    def refusing(self) -> None:
        """One changed bit on the disk, and the engine does not start."""
        proves = f"the engine ends with exit code {EXIT_DAMAGED} and stays down, status names the file, nothing answers"
        with self.transcript.step("One changed byte on the disk", proves):
            self._flip()
            self._show(["systemctl", "restart", self.engine], code=None)
            self._await_failed()
            shown = self._show(["systemctl", "show", "--property=ActiveState,ExecMainStatus", self.engine])
            expect_in("how the engine ended", f"ExecMainStatus={EXIT_DAMAGED}", shown.out)
            said = self._show(["journalctl", "-b", "-q", "-o", "cat", "-n", "6", "-u", self.engine])
            expect_in("what the engine said", self.material.model.path, said.out)
            status = self._appliance("status", code=EXIT_DAMAGED)
            for part in (self.material.model.path, "service.not-running", f"exit status {EXIT_DAMAGED}"):
                expect_in("what status says", part, status.out + status.err)
            answer = call_inside(self.host, "ask", URL, KEY_FILE, "Are you there?", str(TOKENS))
            self.transcript.write(f"   a question is refused with status {answer['status']}: {answer['body']}")
            if answer["status"] < 500:
                raise UnprovenError("nothing is served from a changed model", "a status from 500 on", answer)

    def serving_again(self) -> None:
        """With the byte as it was, everything is as before."""
        proves = "the byte put back, the engine verifies it and serves; status finds nothing"
        with self.transcript.step("The byte put back", proves):
            self._flip()
            self._show(["systemctl", "restart", self.engine])
            self._await_ready()
            self._ask("What is the opposite of hot?", tokens=4)
            said = self._appliance("status")
            expect_in("what status says", "everything is as it was signed", said.out)

    def counting(self) -> None:
        """Nothing tried to leave the host, the whole time."""
        with self.transcript.step("Attempts to reach a network", "0"):
            self.transcript.write(f"   since the reboot: {self.attempts.require_none()}")

    def _appliance(self, *arguments: str, code: int = 0, timeout_s: float = 300) -> Finished:
        return self._show([COMMAND, *arguments], code=code, timeout_s=timeout_s)

    def _status(self) -> str:
        return self._appliance("status").out

    def _release(self, manifest: str) -> str:
        """The name of an installed release, by its bundle's digest."""
        names = self.host.run(["ls", "/opt/appliance/releases"]).out.split()
        return next(name for name in names if name.endswith(manifest[:12]))

    def _typed(self, typed: Typed, code: int = 0) -> Typed:
        """Show what the operator of the bare host typed, with the end of what it showed."""
        shown = (typed.finished.err + typed.finished.out.replace("\r", "")).rstrip().splitlines()
        self.transcript.typed(typed.line, typed.finished.code, typed.seconds, "\n".join(shown[-SHOWN_LINES:]))
        expect("its exit code", code, typed.finished.code)
        return typed

    def _show(self, argv: list[str], *, code: int | None = 0, timeout_s: float = 120) -> Finished:
        """Run a command, and show it with its answer and the end of its messages."""
        started = time.monotonic()
        done = self.host.run(argv, check=False, timeout_s=timeout_s)
        talk = done.err.rstrip().splitlines()
        kept = talk if done.code else talk[-1:]
        self.transcript.command(argv, done.code, time.monotonic() - started, "\n".join([*kept, done.out]))
        if code is not None:
            expect(f"the exit code of {argv[0]} {argv[1] if argv[1:] else ''}", code, done.code)
        return done

    def _ask(self, question: str, tokens: int = TOKENS) -> None:
        answer = call_inside(self.host, "ask", URL, KEY_FILE, question, str(tokens))
        expect(f"the status of an answer ({answer['body']})", 200, answer["status"])
        body: dict[str, Any] = answer["body"]
        text, made_by = body["choices"][0]["message"]["content"].strip(), answer["headers"]
        if not text:
            raise UnprovenError("the model answers", "at least one word", body)
        self.transcript.write(f"   question: {question}")
        self.transcript.write(
            f"   answer:   {text}   ({body['usage']['completion_tokens']} tokens, {answer['seconds']} s)"
        )
        self.transcript.lines("\n".join(f"{name}: {value}" for name, value in made_by.items()))
        known = self.material
        expect("the release that answered", self.serving, made_by["appliance-release"])
        expect("the model that answered", known.file.sha256, made_by["appliance-model"])
        expect("the chat template that was used", known.model.template, made_by["appliance-template"])
        expect("the engine's way out", "netns", made_by["appliance-isolation"])

    def _flip(self) -> None:
        found = call_inside(self.host, "flip", self.store, str(self.material.file.size // 2))
        self.transcript.write(f"   byte {found['offset']} of {self.store}: {found['before']} is now {found['after']}")

    def _await_ready(self) -> None:
        seconds = call_inside(self.host, "await", URL, str(READY_S), timeout_s=READY_S + 60)
        self.transcript.write(f"   ready {seconds} s later")

    def _await_failed(self) -> None:
        end = time.monotonic() + READY_S
        while (state := self._systemctl("is-active", self.engine)) != "failed":
            if time.monotonic() > end:
                raise UnprovenError("the engine refuses to start", "failed", state)
            time.sleep(1)

    def _systemctl(self, *arguments: str) -> str:
        return self.host.run(["systemctl", *arguments], check=False).out.strip()

    def _main_pid(self) -> str:
        return self._systemctl("show", "--property=MainPID", "--value", self.engine)

    def _boot_id(self) -> str:
        return self.host.run(["cat", "/proc/sys/kernel/random/boot_id"]).out.strip()
