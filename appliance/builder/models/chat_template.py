"""The lint of chat templates: what a small program inside a model may do (threat T29).

Owns the rules that a template must follow to be packed, and the remarks for people. It never renders a template, and
it cannot know what an author means: an accepted template may still put words into a conversation. For this reason
`inspect` shows the remarks, and whether the template is a known one.

Rules:
- only the syntax, filters, tests, functions and methods that chat templates need;
- no include, import, inheritance, `attr` or power, and no internal name of Python, however it is written;
- no invisible character: control, bidirectional, zero-width and other blank ones, neither in the text nor in the value
  of a constant;
- a selector after an emoji that it changes is a part of that emoji, and visible;
- all faults of a template are reported at once, with their lines;
- a fault is a judgement, which a person may overrule for one exact text, unless that text is no Jinja or too big.

Source: jinja2, "Sandbox"; the templates that llama.cpp ships; Unicode, emoji-variation-sequences.txt.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.builder.models.emoji import is_seen
from bundles.gguf.header import GgufHeader
from signing.digest import Digest, sha256
from signing.errors import NotTrustedError, UsageError

TEMPLATE_KEY = "tokenizer.chat_template"
KNOWN_FILE = "known_templates.txt"
MAX_TEMPLATE_BYTES = 256 << 10
MAX_DEPTH = 64
MAX_FAULTS = 20


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NODES = _words(
    """Add And Assign AssignBlock Break Call Compare Concat CondExpr Const Continue Dict Div Filter FilterBlock FloorDiv
    For Getattr Getitem If Keyword List Macro Mod Mul NSRef Name Neg Not Operand Or Output Pair Pos Slice Sub Template
    TemplateData Test Tuple"""
)
_FILTERS = _words(
    """capitalize count d default dictsort e escape first float from_json indent int items join last length list lower
    map max min reject rejectattr replace reverse round safe select selectattr sort string sum title tojson trim unique
    upper"""
)
_TESTS = _words(
    """boolean defined divisibleby eq equalto even false float ge gt in integer iterable le lower lt mapping ne none
    number odd sequence string true undefined upper"""
)
_FUNCTIONS = _words("dict namespace raise_exception range strftime_now")
_METHODS = _words(
    """append capitalize count endswith find format get index items keys lower lstrip pop replace rfind rsplit rstrip
    split splitlines startswith strip title update upper values"""
)
_OUT_OF_REACH = _words("caller cycler joiner lipsum self")
_INSIDES = re.compile(r"__\w+__")
_FIELD = re.compile(r"\{[^{}]*[.\[][^{}]*\}")
_ADDRESS = re.compile(r"\b(?:https?|ftp)://[^\s'\"<>|{}%]{1,80}")
# Letters and marks without width or glyph, beside those with an invisible category.
_BLANK = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    ]
)
_HIDDEN_CATEGORIES = frozenset(["Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"])


class _Generation(Extension):
    """`{% generation %}` marks a model's answers, for training; here it is only its body."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True, slots=True)
class TemplateFault:
    """A fault of a template, or a remark about it: the line, what it is, and whether a person may overrule it."""

    line: int
    what: str
    is_judgement: bool = True

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}"


def templates_of(header: GgufHeader) -> dict[str, str]:
    """Every chat template of a model by its key: the default one, and those for special uses."""
    found = {key: value for key, value in header.values.items() if key.startswith(TEMPLATE_KEY)}
    return {key: value for key, value in sorted(found.items()) if isinstance(value, str)}


def lint_templates(header: GgufHeader, subject: str, accepted: str | None = None) -> None:
    """Refuse a model with a template that breaks a rule of this module.

    Args:
        header: of a model that others made.
        subject: the model, or its path in the bundle.
        accepted: the sha256 of the one text that a person read and accepted in spite of the rules; None for none.

    Raises:
        NotTrustedError: code `template.refused`, naming the key and the lines.
        UsageError: code `recipe.template`: no template of the model has the accepted text.
    """
    templates = {key: (text, sha256(text.encode())) for key, text in templates_of(header).items()}
    for key, (text, digest) in templates.items():
        faults = find_faults(text)
        if faults and not is_accepted(faults, digest, accepted):
            raise _refused(f"{subject} {key}", faults, digest)
    if accepted is not None and accepted not in {digest for _, digest in templates.values()}:
        found = ", ".join(f"{key} {digest}" for key, (_, digest) in templates.items())
        raise UsageError(
            "recipe.template",
            subject,
            expected=f"an acceptance of a template of this model, sha256 {accepted}",
            found=found or "a model without a template",
            hint="read the template as it is, then write its digest into `template` of the recipe, or leave that out",
        )


def is_accepted(faults: Sequence[TemplateFault], digest: Digest, accepted: str | None) -> bool:
    """Whether a person may overrule these faults, and has done so for exactly this text."""
    return digest == accepted and all(fault.is_judgement for fault in faults)


def _refused(subject: str, faults: Sequence[TemplateFault], digest: Digest) -> NotTrustedError:
    hint = "do not use this model before somebody has read its template; take it from its author"
    if is_accepted(faults, digest, digest):
        fields = f'by: YOUR NAME, date: "YYYY-MM-DD", sha256: {digest}'
        hint += f"; who has read it and accepts it, adds to this model: template: {{accepted: {{{fields}}}}}"
    return NotTrustedError(
        "template.refused",
        subject,
        expected="a chat template of plain syntax that hides nothing",
        found="; ".join(map(str, faults[:MAX_FAULTS])),
        hint=hint,
    )


def find_faults(text: str) -> list[TemplateFault]:
    """The faults of a template by line; empty for a good one. Cost: one parse for each text."""
    return list(_faults_of_template(text))


@lru_cache(maxsize=8)
def _faults_of_template(text: str) -> tuple[TemplateFault, ...]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEMPLATE_BYTES:
        return (TemplateFault(1, f"longer than {MAX_TEMPLATE_BYTES} bytes", is_judgement=False),)
    faults = list(_hidden_in_text(text))
    try:
        tree = _environment().parse(text)
        faults += _walk(tree, _functions_in(tree), 0)
    except TemplateSyntaxError as error:
        faults.append(TemplateFault(error.lineno, f"no Jinja: {error.message}", is_judgement=False))
    except ValueError:
        faults.append(TemplateFault(1, "no Jinja: a number of too many digits", is_judgement=False))
    except RecursionError:
        faults.append(TemplateFault(1, "nested too deeply", is_judgement=False))
    return tuple(sorted(set(faults), key=lambda fault: (fault.line, fault.what)))


def remarks(text: str) -> list[TemplateFault]:
    """Remarks about an accepted template, for people: addresses, and the words that it searches messages for."""
    found = [TemplateFault(_line(text, match.start()), f"names {match.group()}") for match in _ADDRESS.finditer(text)]
    for test in _environment().parse(text).find_all(nodes.Compare):
        operand = test.ops[0]
        if operand.op in ("in", "eq") and (word := _looked_for(test.expr, operand.expr)):
            found.append(TemplateFault(test.lineno, f"looks for {word!r} in a message"))
    return sorted(set(found), key=lambda fault: (fault.line, fault.what))


def known_as(digest: str) -> str | None:
    """The name of a template that llama.cpp ships, by the sha256 of its text; None for any other."""
    return _known().get(digest)


def digests_of(text: str) -> tuple[str, str]:
    """The digests under which a shipped template is known: as it is, and without the newline at its end."""
    return sha256(text.encode()), sha256(text.removesuffix("\n").encode())


@cache
def _known() -> dict[str, str]:
    lines = resources.files("appliance.builder.models").joinpath(KNOWN_FILE).read_text("utf-8").splitlines()
    return {digest: name for digest, _, name in (line.partition("  ") for line in lines)}


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", _Generation])


def _hidden_in_text(text: str) -> Iterator[TemplateFault]:
    for at, letter in hidden_in(text):
        yield TemplateFault(_line(text, at), f"an invisible character, U+{ord(letter):04X}")


def hidden_in(text: str) -> Iterator[tuple[int, str]]:
    """The invisible characters of a text, each with its place in it."""
    for at, letter in enumerate(text):
        if is_hidden(letter) and not is_seen(text, at):
            yield at, letter


def is_hidden(letter: str) -> bool:
    """Whether a character alone is invisible; tabs and ends of lines are not, since they move what follows."""
    if letter in "\n\r\t" or (letter.isascii() and letter.isprintable()):
        return False
    return ord(letter) in _BLANK or unicodedata.category(letter) in _HIDDEN_CATEGORIES


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _functions_in(tree: nodes.Template) -> frozenset[str]:
    return _FUNCTIONS | {macro.name for macro in tree.find_all(nodes.Macro)}


def _walk(node: nodes.Node, functions: frozenset[str], depth: int) -> Iterator[TemplateFault]:
    if depth > MAX_DEPTH:
        yield TemplateFault(node.lineno, "nested too deeply", is_judgement=False)
        return
    for what in _faults_of(node, functions):
        yield TemplateFault(node.lineno, what)
    # `a ~ b` and `a + b + c` are nested in the tree, but templates are long sums of texts: these do not count.
    flat = isinstance(node, (nodes.Add, nodes.Concat, nodes.If, nodes.And, nodes.Or))
    for child in node.iter_child_nodes():
        yield from _walk(child, functions, depth if flat else depth + 1)


def _faults_of(node: nodes.Node, functions: frozenset[str]) -> Iterator[str]:
    kind = type(node).__name__
    if kind not in _NODES:
        yield f"the syntax {kind}"
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        yield f"the filter {node.name}"
    elif isinstance(node, nodes.Test) and node.name not in _TESTS:
        yield f"the test {node.name}"
    elif isinstance(node, nodes.Call):
        yield from _faults_of_call(node, functions)
    elif isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield from _faults_of_text(node.value)
    for name in _names(node):
        if name.startswith("__") or (isinstance(node, nodes.Name) and name in _OUT_OF_REACH):
            yield f"the name {name}"


def _faults_of_text(value: str) -> Iterator[str]:
    if hidden := sorted({f"U+{ord(letter):04X}" for _, letter in hidden_in(value)}):
        yield f"a constant with invisible characters, {', '.join(hidden)}"
    if inside := _INSIDES.search(value):
        yield f"the name {inside.group()} in a constant"


def _faults_of_call(node: nodes.Call, functions: frozenset[str]) -> Iterator[str]:
    called = node.node
    if isinstance(called, nodes.Name):
        if called.name not in functions:
            yield f"the function {called.name}"
    elif isinstance(called, nodes.Getattr) and called.attr in _METHODS:
        if called.attr == "format" and not _is_plain_format(called.node):
            yield "the method format of something that is no plain constant"
    else:
        yield f"a call of {getattr(called, 'attr', type(called).__name__)}"
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        yield "a call with unpacked arguments"


def _is_plain_format(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, str) and not _FIELD.search(node.value)


def _names(node: nodes.Node) -> Iterator[str]:
    for field in ("name", "attr"):
        value = getattr(node, field, None)
        if isinstance(value, str):
            yield value


def _looked_for(left: nodes.Expr, right: nodes.Expr) -> str | None:
    for word, place in ((left, right), (right, left)):
        if isinstance(word, nodes.Const) and isinstance(word.value, str) and word.value and _is_content(place):
            return word.value[:40]
    return None


def _is_content(node: nodes.Expr) -> bool:
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return isinstance(node, nodes.Filter) and node.node is not None and _is_content(node.node)
