"""Small errors put into a module, one at a time: its mutants.

What is changed: comparisons (the boundary, the direction, the opposite), arithmetic and
set operators, `and` and `or`, signs and `not`, numbers, True and False, strings, conditions,
what is returned; and statements are left out: calls, raises, assignments to what has a value.
What is not: docstrings, annotations, decorators, imports, and the wording of errors.
"""

import ast
import copy
import itertools
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

COMPARED: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
COMBINED: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip

TESTS = ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant
"""Conditions that are changed in other ways than by a `not`."""


@dataclass(frozen=True)
class Mutant:
    """A module with one small error.

    Attributes:
        name: the function or class it is in, the line as it was, and as it is; unique.
        source: of the whole module.
    """

    name: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its text; the same ones every time."""
    tree = ast.parse(source)
    whole = ast.unparse(tree)
    sources, names = {whole}, Counter[str]()
    found = []
    for where, change, undo in _changes(tree, "module", set()):
        change()
        changed = ast.unparse(tree)
        undo()
        if changed not in sources:
            sources.add(changed)
            name = f"{where}: {_difference(whole, changed)}"
            names[name] += 1
            found.append(Mutant(f"{name} ({names[name]})" if names[name] > 1 else name, changed))
    return found


def _difference(before: str, after: str, around: int = 40) -> str:
    """The first line in which two texts differ, and what it became; `around` characters of it."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    old, new = next((a.strip(), b.strip()) for a, b in pairs if a != b)
    if new in ("pass", "return None"):
        return f"`{old if len(old) <= 2 * around else old[: 2 * around] + '…'}` → `{new}`"
    first = max(0, _alike(old, new) - around)
    after_it = _alike(old[first:][::-1], new[first:][::-1]) - around
    shown = []
    for line in (old, new):
        last = min(len(line), len(line) - after_it)
        shown.append("…" * (first > 0) + line[first:last] + "…" * (last < len(line)))
    return f"`{shown[0]}` → `{shown[1]}`"


def _alike(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    )


def _changes(
    node: ast.AST, where: str, bound: set[str]
) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """What can be changed below a node: the name of what it is in, its change, and the way back.

    `bound` are the names of its function that have a value by then.
    """
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        where = node.name if where == "module" else f"{where}.{node.name}"
        bound = {a.arg for a in ast.walk(node) if isinstance(a, ast.arg)}
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        # a field is a node or a list of them; a change puts another there
        holder: Any = value if isinstance(value, list) else vars(node)
        for key in range(len(value)) if isinstance(value, list) else [field]:
            child = holder[key]
            if not isinstance(child, ast.AST) or _kept(node, child):
                continue
            for new in _instead(child, field, bound):
                put = partial(operator.setitem, holder, key)
                yield where, partial(put, new), partial(put, child)
            if not isinstance(child, ast.Raise):
                yield from _changes(child, where, bound)
            bound |= {n.id for n in ast.walk(child) if _stored(n)}


def _stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _kept(parent: ast.AST, child: ast.AST) -> bool:
    """Docstrings, imports, the words of an f-string, and what types are made of."""
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True
    if isinstance(parent, ast.JoinedStr) and isinstance(child, ast.Constant):
        return True
    if isinstance(child, ast.Subscript) and ast.unparse(child.value) == "Literal":
        return True
    return isinstance(child, ast.Import | ast.ImportFrom)


def _instead(node: ast.AST, field: str, bound: set[str]) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                for other in COMPARED[type(op)]:
                    new = copy.deepcopy(node)
                    new.ops[i] = other()
                    yield new
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign() if type(node.op) in COMBINED:
            new = copy.deepcopy(node)
            new.op = COMBINED[type(node.op)]()
            yield new
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield ast.Constant(node.value + 1)
        case ast.Constant(value=str()):
            yield ast.Constant(node.value + "X")
        case ast.Constant(value=bytes()):
            yield ast.Constant(node.value + b"X")
        case ast.Return(value=ast.expr()) if ast.unparse(node) != "return None":
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise():
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
    if isinstance(node, ast.AugAssign) or (
        isinstance(node, ast.Assign) and _has_value(node, bound)
    ):
        yield ast.Pass()
    if field in ("test", "ifs") and not isinstance(node, TESTS):
        yield ast.UnaryOp(ast.Not(), node)


def _has_value(node: ast.Assign, bound: set[str]) -> bool:
    """Whether what is assigned to can be read without the assignment."""
    parts = [part for target in node.targets for part in ast.walk(target)]
    if any(isinstance(part, ast.Attribute | ast.Subscript) for part in parts):
        return True
    return any(_stored(part) and part.id in bound for part in parts)  # type: ignore[attr-defined]
