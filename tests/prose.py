"""The rules of names and sentences: which words, how long a sentence, how long a file and a function.

Command line: `python -m tests.prose [PATH…]` lists every fault below the paths, by default in all code.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
CODE = ("appliance", "bundles", "signing")
MAX_SENTENCE_WORDS = 25
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
# The dialect of the project's first months, and what to write instead.
INSTEAD = {
    r"believ(e|es|ed|ing)": "verify, verified",
    r"spell(s|ed|ing|ings)?|spelt": "serialize, format, write",
    r"tells?|told|telling": "report, show, say which",
    r"says": "shows, states",
    r"hears?|heard|hearing": "on_event, receive",
    r"news": "event",
    r"bears?|bearing": "workload, accept",
    r"door": "entry point",
    r"wish|wishes": "request",
    r"desk": "context",
    r"patience": "timeout",
    r"whoever": "client, caller, user",
    r"at hand": "unpacked, local",
}
WORDS = re.compile(r"\b(" + "|".join(INSTEAD) + r")\b", re.IGNORECASE)
NAME_PARTS = re.compile(
    r"(?:^|_)(believ\w*|spell(?:ed)?|tell|told|says?|hear|heard|news|bear|wish|desk|patience|whoever|MOST|LEAST)(?=_|$)"
)
_SECTION = re.compile(r"^\s*(Args|Returns|Raises|Yields|Rules|Source|Cost|Example|Note|Attributes)[^:\n]*:\s*$")


def python_files(paths: list[Path]) -> Iterator[Path]:
    """Every Python file below the paths."""
    for path in paths:
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function of a file, with its length in lines."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def faults(path: Path, top: Path = TOP) -> Iterator[str]:
    """The faults of one file, each as `path:line: what`, with the path below `top`."""
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    where = path.resolve().relative_to(top)
    lines = text.count("\n")
    if lines > MAX_FILE_LINES:
        yield f"{where}:1: {lines} lines, where {MAX_FILE_LINES} are allowed"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{where}:{node.lineno}: {node.name} has {length} lines, where {MAX_FUNCTION_LINES} are allowed"
        yield from (f"{where}:{line}: the name {name}" for line, name in _names(node) if NAME_PARTS.search(name))
    for line, prose in _prose(text, tree):
        for found in WORDS.finditer(re.sub(r"`[^`]*`", "", prose)):
            yield f"{where}:{line}: {found[0]!r}: write {_instead(found[0])}"
        for sentence in sentences(prose):
            if len(sentence.split()) > MAX_SENTENCE_WORDS:
                yield f"{where}:{line}: {len(sentence.split())} words: {sentence[:60]}…"


def sentences(prose: str) -> Iterator[str]:
    """The sentences of a docstring or comment. A list item, an entry of `Args` and a heading end one, too."""
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:- |\d+\. |\||    |[\w, *`]+: ))", prose):
        if block.lstrip().startswith(("|", "```")) or (re.match(r"\n?    ", block) and "::" in prose):
            continue
        one = " ".join(part for part in block.splitlines() if not _SECTION.match(part))
        one = re.sub(r"`[^`]*`", "x", re.sub(r"\s+", " ", one)).strip(" -")
        # An entry of a list of names, "name: what it is", begins after its colon.
        one = re.sub(r"^[\w*, ]{1,40}: ", "", one)
        yield from (part for part in re.split(r"(?<=[.!?;])[)\"']?\s+", one) if part)


def _names(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.lineno, node.name
    elif isinstance(node, ast.arg):
        yield node.lineno, node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.lineno, node.id


def _prose(text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings, the strings that stand below a constant, and comments; runs of comment lines as one."""
    for node in ast.walk(tree):
        for statement in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value
    run: list[str] = []
    start = last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if run and token.start[0] != last + 1:
            yield start, " ".join(run)
            run = []
        if not run:
            start = token.start[0]
        last = token.start[0]
        words = token.string.lstrip("#: ")
        if not words.startswith(("type:", "noqa", "!", "pragma")):
            run.append(words)
    if run:
        yield start, " ".join(run)


def _instead(word: str) -> str:
    return next(better for pattern, better in INSTEAD.items() if re.fullmatch(pattern, word, re.IGNORECASE))


def main(arguments: list[str]) -> int:
    """List every fault."""
    found = [
        fault
        for path in python_files([Path(one) for one in arguments] or [TOP / one for one in CODE])
        for fault in faults(path.resolve())
    ]
    sys.stdout.write("".join(f"{fault}\n" for fault in found))
    sys.stdout.write(f"{len(found)} faults\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
