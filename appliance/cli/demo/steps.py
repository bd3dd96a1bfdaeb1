"""What the demo shows, step by step.

Owns the order and what each step proves. Every step runs the commands that a person would type, and fails where one of
them ends otherwise than the step claims.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.cli.console.terminal import Terminal
from appliance.cli.demo.chat import ChatAnswer, request_answer
from appliance.cli.demo.child_commands import Commands, Finished
from appliance.cli.demo.flip_byte import changed_byte
from appliance.cli.demo.network import enter_empty_network, interfaces
from appliance.cli.demo.trace import TracedFile, trace
from signing.errors import ApplianceError
from signing.strictjson import load

QUESTIONS = ("Name the capital of France.", "Which planet is known as the red planet?")
DAMAGED = 3


@dataclass(frozen=True)
class Step:
    """A part of the journey: its title, what it does in one sentence, and the work, which returns what it proved."""

    title: str
    does: str
    work: Callable[[], str]


@dataclass
class Journey:
    """The demo's state from step to step.

    Args:
        terminal: where it is shown.
        folder: holds everything that the demo makes.
        recipe: what is built.
        name: of the bundle, as `name-version`.
    """

    terminal: Terminal
    folder: Path
    recipe: Path
    name: str
    answers: list[ChatAnswer] = field(default_factory=list)
    refusals: list[dict[str, Any]] = field(default_factory=list)
    traced: list[TracedFile] = field(default_factory=list)
    isolation: str = ""

    def __post_init__(self) -> None:
        self.commands = Commands(self.terminal)
        self.workspace = self.folder / "workspace"
        self.bundle = self.workspace / "dist" / self.name
        self.stick = self.folder / "stick"
        self.host = self.folder / "host"

    def steps(self) -> tuple[Step, ...]:
        """The six steps, in order."""
        return (
            Step("Who may sign", "Makes a workspace with a trust root and keys for trials.", self.make_workspace),
            Step("From a recipe to a signed bundle", "Checks the lock, builds what is not cached, signs.", self.build),
            Step("Onto a stick", "Writes the stick, reads it back, verifies it.", self.write_stick),
            Step("Onto a host without a network", "Pins the root, then installs from the stick.", self.install),
            Step("An answer, and what made it", "Verifies again, serves, and asks one question.", self.answer),
            Step("One changed byte", "Changes one byte on the host, then one on the stick.", self.damage),
        )

    def make_workspace(self) -> str:
        """Make the publisher's workspace."""
        self.commands.run("init", self.workspace)
        return "a development root, marked as one everywhere"

    def build(self) -> str:
        """Lock and build the bundle."""
        self.commands.run("lock", self.recipe)
        self.commands.run("build", self.recipe, "--workspace", self.workspace)
        return f"one signed manifest names every byte: {self.manifest()[:12]}"

    def write_stick(self) -> str:
        """Write the folder that stands for a stick, and verify it."""
        self._take_new_stick()
        self.commands.run("stick", "write", self.bundle, self.stick, "--workspace", self.workspace)
        self.commands.run("verify", self.stick, "--workspace", self.workspace)
        return "every blob is a signed one, and nothing else is there"

    def install(self) -> str:
        """Leave the network, pin the root, install."""
        self._leave_network()
        self.commands.run(
            "trust",
            "pin",
            self.workspace / "trust" / "root.json",
            *(word for value in self._fingerprints() for word in ("--fingerprint", value)),
            "--prefix",
            self.host,
        )
        self.commands.run("install", self.stick, "--prefix", self.host)
        self.commands.run("verify", "--prefix", self.host)
        return f"installed {self._where()}"

    def answer(self) -> str:
        """Serve, and ask the first question."""
        self._ask(QUESTIONS[0])
        return "the answer's digests are those of the files on the disk"

    def damage(self) -> str:
        """Change one byte on the host and one on the stick; both must be refused, and restored."""
        model = self.model()
        with changed_byte(self.folder, model) as offset:
            self.terminal.message(f"  changed byte {offset} of {model}")
            self._refused(model, model.name, "verify", "--prefix", self.host)
            self._refused(model, model.name, "serve", "--prefix", self.host, "--port", "0")
        self.terminal.message(f"  restored byte {offset} of {model}")
        self._ask(QUESTIONS[1])
        blob, name = self.model_chunk()
        with changed_byte(self.folder, blob) as offset:
            self.terminal.message(f"  changed byte {offset} of {blob}")
            self._refused(blob, name, "verify", self.stick, "--workspace", self.workspace)
        self.terminal.message(f"  restored byte {offset} of {blob}")
        self.commands.run("verify", self.stick, "--workspace", self.workspace)
        return "the changed file is named, exit code 3, nothing is served"

    def manifest(self) -> str:
        """The digest of the bundle's manifest."""
        return _manifest_of(self.bundle)

    def model(self) -> Path:
        """The installed model's file."""
        found = sorted((self.host / "var/lib/appliance/models").glob("*/*.gguf"))
        if not found:
            raise ApplianceError("demo.unexpected", str(self.host), expected="an installed model", found="none")
        return found[0]

    def model_chunk(self) -> tuple[Path, str]:
        """The largest blob of the model on the stick, and the path that the model has in the bundle."""
        blobs = self.stick / "blobs" / "sha256"
        manifest = load((blobs / self.manifest()).read_bytes(), "manifest")
        contents = load((blobs / manifest["config"]["digest"].removeprefix("sha256:")).read_bytes(), "contents.json")
        file = next(file for file in contents["files"] if file["kind"] == "model")
        digest, _ = max(file["chunks"], key=lambda chunk: int(chunk[1]))
        return blobs / digest, file["path"]

    def _take_new_stick(self) -> None:
        # A stick carries one bundle, and a demo of changed sources has another one. The folder is the demo's own.
        if (self.stick / "index.json").exists() and _manifest_of(self.stick) != self.manifest():
            shutil.rmtree(self.stick)
            self.terminal.message(f"  {self.stick} held another bundle: replaced by an empty one")

    def _fingerprints(self) -> list[str]:
        root = self.commands.query("trust", "show", "--workspace", self.workspace)["roles"]["root"]
        return list(root["fingerprints"])[: root["threshold"]]

    def _leave_network(self) -> None:
        refusal = enter_empty_network()
        self.isolation = "none" if refusal else "netns"
        if refusal:
            self.terminal.message(f"  this machine allows no network namespace ({refusal}): the host keeps its network")
        else:
            self.terminal.message(f"  from here on there is no network; the interfaces left: {' '.join(interfaces())}")
        if os.geteuid() == 0:
            self.terminal.message("  you are root, so the host half runs as root; an ordinary user can run it too")

    def _where(self) -> str:
        who = "as root" if os.geteuid() == 0 else "as an ordinary user"
        return f"{who}, {'without any network' if self.isolation == 'netns' else 'with the network of this machine'}"

    def _ask(self, question: str) -> ChatAnswer:
        log = self.folder / "serve.log"
        with self.commands.serving(log, "serve", "--prefix", self.host, "--port", "0") as server:
            answer = request_answer(server, question)
        self.answers.append(answer)
        self.terminal.message(f"  question: {question}")
        self.terminal.message(f"  answer: {answer.text}")
        for name in ("level", "isolation"):
            self.terminal.message(f"    {name}: {answer.appliance[name]}")
        self.traced = trace(answer, self.host, self.model())
        for one in self.traced:
            self.terminal.message(f"    {one.name}: {one}")
        return answer

    def _refused(self, file: Path, name: str, *arguments: str | Path) -> Finished:
        finished = self.commands.refused(*arguments, code=DAMAGED, naming=name)
        refusal = {"command": finished.line, "file": str(file), "exit_code": finished.code, "said": finished.messages}
        self.refusals.append(refusal)
        return finished


def _manifest_of(layout: Path) -> str:
    index = load((layout / "index.json").read_bytes(), "index.json")
    return str(index["manifests"][0]["digest"]).removeprefix("sha256:")
