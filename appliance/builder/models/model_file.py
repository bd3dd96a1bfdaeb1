"""The judgement of a model's file before a bundle is built of it: can an engine serve it, as the recipe asks?

Owns what `lock` and `build` check of a GGUF, from its header alone. It reads no weights: whether the engine loads the
model, `build` finds out by starting it.

Rules:
- the file is a model that the bundle's own runtime knows: it chats, embeds or ranks;
- the recipe asks for no other task, and for no more context than the model has;
- its chat templates follow the rules, or a person has accepted exactly that text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.chunking.known_headers import parse_header
from appliance.builder.models.chat_template import lint_templates
from appliance.builder.models.split_set import read_set
from appliance.builder.recipe.recipe import RecipeModel
from bundles.gguf.header import GgufHeader
from bundles.gguf.kind import CHAT, EMBED, judge_kind, most_context
from signing.errors import UsageError

UNPROMPTED = "it completes text, and its engine writes messages in the form of ChatML"
"""What a person should know of a model that chats and has no template."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model's file that passed: its header, and its task, one of `bundles.gguf.kind.TASKS`."""

    header: GgufHeader
    task: str

    @property
    def remark(self) -> str:
        """What a person should know of this model; empty for most."""
        return f"has no chat template: {UNPROMPTED}" if self.task == CHAT and not self.header.template else ""


def check_model_file(
    model: RecipeModel, path: Path, architectures: frozenset[str] | None, parts: Sequence[Path] = ()
) -> ModelFile:
    """Judge the GGUF of a model.

    Args:
        model: as the recipe asks for it.
        path: its GGUF, before it is quantised; untrusted.
        architectures: those that the runtime knows; None where there is no runtime, then any is taken.
        parts: all files of a split model that a build merges, `path` first; empty for a model that is one file.

    Raises:
        NotTrustedError: it is no GGUF that our parser accepts (`gguf.refused`), or `template.refused`.
        UsageError: no engine can serve it (`model.kind`), or not as the recipe asks (`recipe.task`, `recipe.golden`,
            `recipe.context`).
    """
    subject = f"model {model.name}"
    with path.open("rb") as stream:
        named = f"{subject}: {path.name}" if path.suffix else subject
        if parts:
            header = read_set(parts, named)
            head = stream.read(header.data_start)
        else:
            header, head = parse_header(stream, named)
        task = judge_kind(header, head, subject, architectures)
    _check_task(model, task, subject)
    _check_golden(model, task, subject)
    check_context(model, header, task)
    lint_templates(header, subject, model.accepted_template)
    return ModelFile(header, task)


def check_context(model: RecipeModel, header: GgufHeader, task: str) -> None:
    """Refuse a context that the model does not have.

    Raises:
        UsageError: code `recipe.context`.
    """
    limit = most_context(header, task)
    if limit and model.context > limit:
        is_cut = limit < header.context or not header.context
        verb = "embedded" if task == EMBED else "ranked"
        why = f"since a text is {verb} in one piece" if is_cut else "what the model was trained for"
        raise UsageError(
            "recipe.context",
            f"model {model.name}",
            expected=f"a context of at most {limit} tokens, {why}",
            found=str(model.context),
            hint="lower `context` in the recipe",
        )


def _check_task(model: RecipeModel, task: str, subject: str) -> None:
    if model.task not in (None, task):
        raise UsageError(
            "recipe.task",
            subject,
            expected=f"task: {task}, which its header states by its pooling",
            found=f"task: {model.task}",
            hint="take `task` out of the recipe, or name a model that is made for this task",
        )


def _check_golden(model: RecipeModel, task: str, subject: str) -> None:
    if model.golden and task != CHAT:
        raise UsageError(
            "recipe.golden",
            subject,
            expected="golden prompts for a model that chats",
            found=f"a model for the task {task}",
            hint="take `golden` out of the recipe: the numbers of this model are checked in any case",
        )
