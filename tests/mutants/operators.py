"""Small faults in a program's syntax tree, one for each mutant.

Owns what is changed and how a mutant is named. It must never run anything.

Rules:
- comparisons, `and`/`or`/`not`, conditions, numbers, texts, arithmetic, slices, `raise`, `return`, `break`, caught
  types, damaged for not trusted, what is looped over and whole statements are changed, each to what a tired person
  might write;
- not changed: annotations, decorators, imports, docstrings, names of type variables, and words for people (`expected`,
  `found`, `hint`, the texts of ValueError and TypeError), which no decision is made by;
- a mutant's name holds what it was and what it became, and no line number: the list of survivors outlives edits.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Path = tuple[tuple[str, int | None], ...]
"""How to reach a node: the field of each node on the way, with the place in it where it is a list."""

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
OPPOSITES |= {"NotTrustedError": "DamagedError", "DamagedError": "NotTrustedError"}
WORDS = {"expected", "found", "hint"}
NAMES_AND_WORDS = {"NewType", "TypeError", "TypeVar", "ValueError"}
MAX_NAME = 100
STATEMENTS = (ast.Assign, ast.AugAssign, ast.Assert, ast.Expr, ast.Raise)


@dataclass(frozen=True)
class Mutant:
    """One fault in one module.

    Args:
        module: the module's name without its package.
        name: what it was and what it became, unique in the module.
        line: where it stands today.
        whole: the module as it is.
        path: where in it the fault goes.
        new: what stands there then.
    """

    module: str
    name: str
    line: int
    whole: ast.Module = field(repr=False, compare=False)
    path: Path = field(repr=False, compare=False)
    new: ast.AST = field(repr=False, compare=False)

    @property
    def tree(self) -> ast.Module:
        """The changed module."""
        return _with(self.whole, self.path, self.new)


def mutants(source: str, module: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its text."""
    tree = ast.parse(source)
    seen: Counter[str] = Counter()
    for place in _places(Place((), tree, (), False)):
        for new in _alternatives(place.node, place.is_in_function):
            name = f"{'.'.join(place.names) or module}: {_spelled(place.node)} → {_spelled(new)}"
            seen[name] += 1
            if seen[name] > 1:
                name += f" ({seen[name]})"
            yield Mutant(module, name, place.line, tree, place.path, new)


@dataclass(frozen=True)
class Place:
    """A node that may be changed: how to reach it, and what it stands in."""

    path: Path
    node: ast.AST
    names: tuple[str, ...]
    is_in_function: bool
    line: int = 0


def _places(place: Place) -> Iterator[Place]:
    """Every node below a place that may be changed."""
    names, is_in_function = place.names, place.is_in_function
    if isinstance(place.node, (ast.FunctionDef, ast.ClassDef)):
        names = (*names, place.node.name)
        is_in_function = isinstance(place.node, ast.FunctionDef)
    for name, value in ast.iter_fields(place.node):
        for at, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST) and not _is_left_alone(place.node, name, at, child):
                path = (*place.path, (name, at if isinstance(value, list) else None))
                found = Place(path, child, names, is_in_function, getattr(child, "lineno", place.line))
                yield found
                yield from _places(found)


def _is_left_alone(parent: ast.AST, name: str, at: int, child: ast.AST) -> bool:
    if name in ("annotation", "returns", "decorator_list", "bases", "ctx", "ops", "op"):
        return True
    if isinstance(child, (ast.Import, ast.ImportFrom)):
        return True
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True
    if isinstance(child, ast.keyword):
        return child.arg in WORDS
    if not isinstance(parent, ast.Call):
        return False
    called = ast.unparse(parent.func)
    return called in NAMES_AND_WORDS or (called.endswith("_refuse") and name == "args" and at > 0)


def _alternatives(node: ast.AST, is_in_function: bool) -> Iterator[ast.AST]:
    """What a node is changed to."""
    for kind, change in CHANGES.items():
        if isinstance(node, kind):
            yield from change(node)
    if is_in_function and isinstance(node, STATEMENTS):
        yield ast.Pass()


def _compare(node: ast.Compare) -> Iterator[ast.AST]:
    for at, op in enumerate(node.ops):
        for other in COMPARISONS[type(op)]:
            yield ast.Compare(node.left, [*node.ops[:at], other(), *node.ops[at + 1 :]], node.comparators)


def _bool_op(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for at in range(len(node.values)):
        left = node.values[:at] + node.values[at + 1 :]
        yield left[0] if len(left) == 1 else ast.BoolOp(node.op, left)


def _unary(node: ast.UnaryOp) -> Iterator[ast.AST]:
    yield node.operand


def _constant(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, (str, bytes)):
        yield ast.Constant(value + ("x" if isinstance(value, str) else b"x"))  # type: ignore[operator]


def _arithmetic(node: ast.BinOp) -> Iterator[ast.AST]:
    yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)


def _condition(node: ast.If | ast.While | ast.IfExp) -> Iterator[ast.AST]:
    for value in (True, False):
        changed = copy.copy(node)
        changed.test = ast.Constant(value)
        yield changed


def _comprehension(node: ast.comprehension) -> Iterator[ast.AST]:
    for at in range(len(node.ifs)):
        yield ast.comprehension(node.target, node.iter, node.ifs[:at] + node.ifs[at + 1 :], node.is_async)


def _return(node: ast.Return) -> Iterator[ast.AST]:
    if node.value is not None and ast.unparse(node.value) != "None":
        yield ast.Return(ast.Constant(None))


def _except(node: ast.ExceptHandler) -> Iterator[ast.AST]:
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    for at in range(len(caught)):
        left = [one for one in caught[:at] + caught[at + 1 :] if one is not None]
        yield ast.ExceptHandler(ast.Tuple(left, ast.Load()), node.name, node.body)


def _loop(node: ast.For) -> Iterator[ast.AST]:
    changed = copy.copy(node)
    changed.iter = ast.Tuple([], ast.Load())
    yield changed


def _slice(node: ast.Slice) -> Iterator[ast.AST]:
    if node.lower is not None:
        yield ast.Slice(None, node.upper, node.step)
    if node.upper is not None:
        yield ast.Slice(node.lower, None, node.step)


def _name(node: ast.Name) -> Iterator[ast.AST]:
    if node.id in OPPOSITES:
        yield ast.Name(OPPOSITES[node.id], ast.Load())


CHANGES: dict[type[ast.AST], Callable[..., Iterator[ast.AST]]] = {
    ast.Compare: _compare,
    ast.BoolOp: _bool_op,
    ast.UnaryOp: _unary,
    ast.Constant: _constant,
    ast.BinOp: _arithmetic,
    ast.If: _condition,
    ast.While: _condition,
    ast.IfExp: _condition,
    ast.comprehension: _comprehension,
    ast.Return: _return,
    ast.ExceptHandler: _except,
    ast.For: _loop,
    ast.Slice: _slice,
    ast.Name: _name,
    ast.Break: lambda _: iter([ast.Continue()]),
    ast.Continue: lambda _: iter([ast.Break()]),
}


def _with(tree: ast.Module, path: Path, new: ast.AST) -> ast.Module:
    """A copy of the tree with another node at a place; what lies beside the way is shared."""

    def put(node: ast.AST, left: Path) -> ast.AST:
        if not left:
            return ast.copy_location(new, node)
        (name, at), *rest = left
        changed, value = copy.copy(node), getattr(node, name)
        inner = put(value if at is None else value[at], tuple(rest))
        setattr(changed, name, inner if at is None else [*value[:at], inner, *value[at + 1 :]])
        return changed

    changed = put(tree, path)
    assert isinstance(changed, ast.Module)
    return ast.fix_missing_locations(changed)


def _spelled(node: ast.AST) -> str:
    """The first line of a node, shortened."""
    if hasattr(node, "body") and isinstance(node.body, list):
        node = copy.copy(node)
        node.body, node.orelse = [ast.Pass()], []  # type: ignore[attr-defined]
    text = ast.unparse(node).strip().partition("\n")[0]
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}…"
