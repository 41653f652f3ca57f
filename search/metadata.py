"""What is known of the pictures beside their pixels, and conditions on it.

A condition compares columns with values and joins comparisons:

    colour == "red" and (price < 20 or not shop in ["a", "b"])

It is Milvus' language as far as it is Python's too, so that every index takes the same.
Nothing in it is ever run.
"""

import ast
import keyword
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cqr.errors import UserError, reason
from cqr.pipeline.imports.names import Names
from cqr.trainer.datasets import tabular

_COMPARE: dict[type[ast.cmpop], Any] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_INTEGER = r"-?(0|[1-9][0-9]*)"
_DECIMAL = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"
_DEEP = 50
"""Levels of and, or, not in a condition; each is a level of this interpreter's stack too."""

_HOW = 'write comparisons such as colour == "red" and price < 20, joined by and, or, not, ()'


class Metadata(NamedTuple):
    """What a table says of the pictures.

    Attributes:
        table: a row for each path, NA where the table has none; columns have pandas' nullable
            types.
        notes: how it was read, a sentence each.
    """

    table: pd.DataFrame
    notes: list[str]


def read_metadata(file: Path, paths: list[str]) -> Metadata:
    """What is known of each path.

    The cells of a CSV are text, and only an empty one is unknown.  A column all of whose cells
    are numbers as numbers are written (no leading zero, no exponent) is one of numbers, and one of
    True and False is that.

    Args:
        file: CSV (also with ";") or Parquet, with a column `path`, `file`, `image` or `id` that
            names each picture once: as the feature file does, by file name, or without suffix.

    Raises:
        UserError: it cannot be read, or has no such column, a path twice, or not one of the
            paths.
    """
    if not file.exists():
        raise UserError(f"there is no {file}; name the table of metadata with --metadata")
    table = tabular.load(file)
    column = tabular.path_column(list(table.columns))
    if column is None:
        raise UserError(
            f"{file} has no column `path` that names the pictures, nor one named file, image or id"
        )
    _check_columns(file, [name for name in table.columns if name != column])
    if not len(table):
        raise UserError(f"{file} has no row")
    names = tabular.strings(table[column])
    known = Names(paths)
    found = pd.Series([known.find(name) if name else None for name in names], names.index)
    there = found.notna()
    if not there.any():
        raise UserError(
            f"{file} names none of the pictures: its first path is {names.iloc[0]!r}, "
            f"the features' is {paths[0]!r}"
        )
    if (twice := found[there].duplicated()).any():
        raise UserError(f"{file} names {found[there][twice].iloc[0]} twice: a picture has one row")
    rest = table.drop(columns=column)
    if file.suffix.lower() == ".parquet":
        typed = rest.convert_dtypes()
    else:
        typed = pd.DataFrame({name: _typed(rest[name]) for name in rest}, rest.index)
    typed = typed[there].set_axis(found[there].tolist(), axis=0).reindex(paths)
    notes = list(_said(file, names, there, known.loose, len(paths), typed))
    return Metadata(typed.reset_index(drop=True), notes)


def _check_columns(file: Path, columns: list[str]) -> None:
    for name in columns:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UserError(
                f"the column {name!r} of {file} cannot be named in a --where: rename it"
            )
        if name == "vector":
            raise UserError(f"the column 'vector' of {file} is a name of cqr's: rename it")
        if name == "path":
            raise UserError(f"the column 'path' of {file} is there twice: rename one")


def _typed(column: "pd.Series[str]") -> "pd.Series[Any]":
    """A column of text as what all of its cells are."""
    cells = column[column != ""]
    if len(cells):
        if cells.str.fullmatch(_INTEGER).all() and cells.str.len().max() < 19:
            return column.where(column != "", None).map(int, na_action="ignore").astype("Int64")
        if cells.str.fullmatch(_DECIMAL).all():
            return column.where(column != "", None).map(float, na_action="ignore").astype("Float64")
        if cells.isin(("True", "False")).all():
            truth = {"True": True, "False": False}
            return column.map(truth.get).astype("boolean")
    return column.where(column != "", None).astype("string")


def _said(
    file: Path,
    names: "pd.Series[str]",
    there: "pd.Series[bool]",
    loose: list[str],
    pictures: int,
    table: pd.DataFrame,
) -> Iterator[str]:
    types = ", ".join(f"{name} {_kind(table[name])}" for name in table)
    described = int(there.sum())
    yield f"{file.name} describes {described:,} of {pictures:,} pictures: {types}"
    if lost := len(names) - described:
        first = names[~there].iloc[0]
        yield f"{lost:,} rows of {file.name} fit no picture, or more than one, first {first!r}"
    if loose:
        yield (
            f"{len(loose):,} rows of {file.name} are written in other letter case, Unicode form or "
            f"slashes than their pictures, first {loose[0]!r}"
        )


def _kind(column: "pd.Series[Any]") -> str:
    kind = column.dtype
    if pd.api.types.is_bool_dtype(kind):
        return "(True or False)"
    return "(number)" if pd.api.types.is_numeric_dtype(kind) else "(text)"


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
            _check_comparable(name, column, value if isinstance(value, list) else [value])
            if type(op) in _COMPARE:
                compared: pd.Series[bool] = _COMPARE[type(op)](column, value).astype("boolean")
                return compared
            within = column.isin(list(value)).astype("boolean").mask(column.isna())
            return within if isinstance(op, ast.In) else ~within
    raise AssertionError(ast.dump(node))


def _check_comparable(name: str, column: "pd.Series[Any]", values: list[Any]) -> None:
    """Raises TypeError for a number held against text, which no row can equal."""
    kind = _kind(column)
    wrong = [value for value in values if isinstance(value, str) != (kind == "(text)")]
    if wrong:
        what = "text: write it in quotes" if kind == "(text)" else f"no text but {kind}"
        raise TypeError(f"{wrong[0]!r}, and {name} holds {what}")
