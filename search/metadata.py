"""What is known of the pictures beside their pixels, and conditions on it.

A condition compares columns with values and joins comparisons:

    colour == "red" and (price < 20 or not shop in ["a", "b"])

It is Milvus' language as far as it is Python's too, so that every index takes the same.
Nothing in it is ever run.
"""

import ast
import keyword
import operator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cqr.errors import UserError, reason

_COMPARE: dict[type[ast.cmpop], Any] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_DEEP = 50
"""Levels of and, or, not in a condition; each is a level of this interpreter's stack too."""

_HOW = 'write comparisons such as colour == "red" and price < 20, joined by and, or, not, ()'


def read_metadata(file: Path, paths: list[str]) -> pd.DataFrame:
    """A row for each path, NA where the table has none; columns have pandas' nullable types.

    Args:
        file: CSV or Parquet, with a column `path` that names each picture once, as the
            feature file does.

    Raises:
        UserError: it cannot be read, or has no such column, a path twice, or not one of the
            paths.
    """
    try:
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except FileNotFoundError:
        raise UserError(f"there is no {file}; name the table of metadata with --metadata") from None
    except Exception as error:  # the readers of damaged bytes raise what they like
        raise UserError(
            f"cannot read {file} ({reason(error)}): give a CSV or Parquet table"
        ) from error
    if "path" not in table:
        raise UserError(f"{file} has no column `path` that names the pictures")
    table = table.set_index("path")
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()][0]
        raise UserError(f"{file} names {twice} twice: a picture has one row")
    if not table.index.isin(paths).any():
        raise UserError(
            f"{file} names none of the pictures: its first path is {table.index[0]!r}, "
            f"the features' is {paths[0]!r}"
            if len(table)
            else f"{file} has no row"
        )
    for name in table.columns:
        if not str(name).isidentifier() or keyword.iskeyword(str(name)):
            raise UserError(
                f"the column {name!r} of {file} cannot be named in a --where: rename it"
            )
        if name == "vector":
            raise UserError(f"the column 'vector' of {file} is a name of cqr's: rename it")
    return table.convert_dtypes().reindex(paths).reset_index(drop=True)


def matching(where: str, metadata: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows meet a condition; a comparison with a value that is not known is unknown.

    Raises:
        UserError: it is no condition, or none on these columns.
    """
    condition = parsed(where, list(metadata.columns))
    try:
        met = _value(condition, metadata)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"--where {where[:200]!r} compares what cannot be compared ({reason(error)})"
        ) from error
    return met.fillna(False).to_numpy(bool)


def expression(where: str, columns: list[str]) -> str:
    """A condition as Milvus reads it.

    Raises:
        UserError: it is no condition, or none on these columns.
    """
    return ast.unparse(_Spelt().visit(parsed(where, columns)))


class _Spelt(ast.NodeTransformer):
    """`in` as comparisons: Milvus' own takes a value that is not known for one that differs."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        (within,), (listed,) = node.ops, node.comparators
        if not isinstance(listed, ast.List):
            return node
        positive = isinstance(within, ast.In)
        each: list[ast.expr] = [
            ast.Compare(node.left, [ast.Eq() if positive else ast.NotEq()], [value])
            for value in listed.elts
        ]
        return ast.BoolOp(ast.Or() if positive else ast.And(), each) if len(each) > 1 else each[0]


def parsed(where: str, columns: list[str]) -> ast.expr:
    """A condition as a tree of what `matching` knows, and no more.

    Raises:
        UserError: it is no condition, or none on these columns.
    """
    try:
        tree = ast.parse(where.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"--where {where[:200]!r} cannot be read: {_HOW}") from None
    _check(tree, where[:200], columns)
    return tree


def _check(node: ast.expr, where: str, columns: list[str], depth: int = 0) -> None:
    if depth > _DEEP:
        raise UserError(f"--where {where!r} nests more than {_DEEP} deep: write it flatter")
    match node:
        case ast.BoolOp(values=values):
            for value in values:
                _check(value, where, columns, depth + 1)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check(operand, where, columns, depth + 1)
        case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[right]):
            if name not in columns:
                known = ", ".join(columns) or "none: give `cqr index` a table with --metadata"
                raise UserError(f"--where: there is no column {name!r}; there are {known}")
            large = [part for part in ast.walk(right) if _is_too_large(part)]
            if large:
                raise UserError(
                    f"--where {where!r} has a number beyond 64 bits: no column holds such"
                )
            if type(op) in _COMPARE and _is_value(right):
                return
            listed = right.elts if isinstance(right, ast.List) else []
            if not (isinstance(op, ast.In | ast.NotIn) and listed and all(map(_is_value, listed))):
                raise UserError(f"--where {where!r} cannot be read: {_HOW}")
        case _:
            raise UserError(f"--where {where!r} cannot be read: {_HOW}")


def _is_too_large(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Constant) else 0
    if isinstance(value, float):
        return not np.isfinite(value)
    return isinstance(value, int) and abs(value) >= 2**63


def _is_value(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool)


def _value(node: ast.expr, metadata: pd.DataFrame) -> "pd.Series[bool]":
    match node:
        case ast.BoolOp(op=op, values=values):
            join = operator.and_ if isinstance(op, ast.And) else operator.or_
            met = _value(values[0], metadata)
            for value in values[1:]:
                met = join(met, _value(value, metadata))
            return met
        case ast.UnaryOp(operand=operand):
            return ~_value(operand, metadata)
        case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[right]):
            column, value = metadata[name], ast.literal_eval(right)
            if type(op) in _COMPARE:
                compared: pd.Series[bool] = _COMPARE[type(op)](column, value).astype("boolean")
                return compared
            within = column.isin(list(value)).astype("boolean").mask(column.isna())
            return within if isinstance(op, ast.In) else ~within
    raise AssertionError(ast.dump(node))
