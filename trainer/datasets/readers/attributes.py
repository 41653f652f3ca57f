"""The user's own pictures, by what is known of each: attributes in columns, or a caption.

Pairs are pictures that are equal in all columns but one, or whose captions differ in the fewest
words (`attributes_pairs`); their texts are templates, filled in (`attributes_texts`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets import tabular
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.locate import locate
from cqr.trainer.datasets.queries import QUERY_COLUMNS, Dataset, Protocol
from cqr.trainer.datasets.readers import attributes_texts as texts
from cqr.trainer.datasets.readers.attributes_pairs import (
    MOST_WORDS,
    Described,
    FewestWords,
    OneColumn,
    Pairs,
    Rule,
)
from cqr.trainer.datasets.recommended import for_table
from cqr.trainer.datasets.tabular import strings

NAME = "attributes"
LAYOUT = (
    f"a .csv or .parquet with a column {', '.join(tabular.PATHS[:-1])} or {tabular.PATHS[-1]} and "
    f"either caption or columns of 2 to N/3 different values {tabular.PLACES}"
)
PUBLISHED: dict[str, int] = {}
PUNCTUATION = ".,;:!?()[]\"'`"


@dataclass(frozen=True)
class Options:
    """What a table of pictures leaves to choose.

    Attributes:
        columns: the attributes, names with commas between; "auto" takes the captions if there is
            a column `caption`, else every column of 2 to N/3 different values.
        templates: a file of texts with {new}, {old} and {column}, one a line, the first for the
            test; "default" takes ours.
        test: where there is no column `split`, the share of the pictures that is the test's,
            chosen by a hash of their names: it stays the same when pictures are added.
        paraphrases: whether every test question is asked in every template, and recall is over
            all of them; else in the first alone.
    """

    columns: str = "auto"
    templates: str = "default"
    test: float = 0.2
    paraphrases: bool = False


@dataclass(frozen=True)
class _Kind:
    """How pictures are told apart.

    Attributes:
        columns: the attributes; none for captions.
        templates: the texts.
        rule: which pairs there are.
        said: what two pictures that are alike have in common, in words.
    """

    columns: tuple[str, ...]
    templates: texts.Templates
    rule: Rule
    said: str


def find(pictures: Pictures, data: Path | None) -> Path | None:
    """Raises UserError when two tables fit equally well."""
    fits = tabular.names_pictures
    return tabular.find(pictures, data, "pictures", fits, fits)


def read(path: Path, pictures: Pictures, options: Options) -> Dataset:
    """Raises UserError where a column or a template cannot be used, or no pair can be drawn."""
    frame = tabular.load(path)
    kind, notes = _kind(path, frame, options)
    images, said = _images(path, frame, kind, pictures, options)
    there = images[images.pop("there").astype(bool)]
    pairs = partial(Pairs, rule=kind.rule, templates=kind.templates)
    sources = {}
    for split, rows in there.groupby("split"):
        sources[split] = pairs(frame[:0], rows)
        if split != "val" and not len(sources[split]):
            raise UserError(_no_pair(path, rows, str(split), kind))
    asked = [_asked(sources[split], kind, str(split), options) for split in sources]
    columns = [*QUERY_COLUMNS, "column", "template"]
    queries = pd.DataFrame([row for rows in asked for row in rows], columns=columns, dtype=object)
    breakdown = [("column", bool(kind.columns)), ("template", options.paraphrases)]
    return Dataset(
        name=NAME,
        root=path,
        queries=queries,
        images=images,
        protocol=_protocol(kind, options),
        pairs=pairs,
        recommended=for_table(len(sources["train"]) if "train" in sources else 0),
        copies=False,
        breakdown=tuple(name for name, wanted in breakdown if wanted),
        notes=(*notes, *said),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    images = dataset.images
    train = dataset.images_of("train")
    return {
        "pictures": len(images),
        "training pictures": len(train),
        "training pictures that have a pair": len(dataset.pairs(dataset.queries[:0], train)),
        "different descriptions": images["caption"].nunique(),
    }


def _kind(path: Path, frame: pd.DataFrame, options: Options) -> tuple[_Kind, list[str]]:
    """What the pictures are told apart by, and what is to be said of the choice.

    Raises:
        UserError: a column cannot be used, or there is none; the templates cannot.
    """
    by_caption = options.columns == "auto" and "caption" in frame.columns
    columns, notes = ((), []) if by_caption else _columns(path, frame, options.columns)
    if options.templates == "default":
        templates = texts.Templates(texts.OF_WORDS if by_caption else texts.OF_COLUMNS)
    else:
        beside = path.parent / options.templates
        file = beside if beside.is_file() else Path(options.templates)
        templates = texts.read(file, columns)
    if by_caption:
        captions = {_words(caption) for caption in strings(frame["caption"])} - {()}
        if len(captions) < 2:
            raise UserError(
                f"{path}: the captions of all {len(frame)} rows are equal or empty, so nothing "
                "tells the pictures apart: name columns of attributes with --protocol columns=A,B"
            )
        return _Kind((), templates, FewestWords(), "caption"), notes
    *most, last = columns
    said = f"{', '.join(most)} and {last}" if most else last
    return _Kind(columns, templates, OneColumn(columns), said), notes


def _columns(path: Path, frame: pd.DataFrame, chosen: str) -> tuple[tuple[str, ...], list[str]]:
    """The columns of attributes, and what is to be said of those that are none.

    Raises:
        UserError: one that was chosen is not there, or has too few or too many values; or none
            was chosen, and no column is fit.
    """
    name = tabular.path_column(list(frame.columns))
    others = [column for column in frame.columns if column not in (name, "split")]
    values = {column: len(set(strings(frame[column])) - {""}) for column in others}
    fits = {column for column, number in values.items() if 2 <= number <= len(frame) / 3}
    rule = f"an attribute has 2 to {len(frame) // 3} different values, a third of the rows"
    if chosen != "auto":
        columns = [column.strip() for column in chosen.split(",")]
        for place, column in enumerate(columns):
            if column not in others or column in columns[:place]:
                twice = "is there twice" if column in others else "is no column of attributes"
                raise UserError(
                    f"--protocol columns={chosen}: {column!r} {twice}; {path} has "
                    f"{', '.join(others)}"
                )
            if column not in fits:
                raise UserError(
                    f"{path}: the column {column} has {_valued(values[column])} in {len(frame)} "
                    f"rows, and {rule}: choose others with --protocol columns=A,B"
                )
        return tuple(columns), []
    left_out = [f"{column} ({_valued(values[column])})" for column in others if column not in fits]
    if not fits:
        raise UserError(
            f"{path} has no column that can be used: {', '.join(left_out)}, and {rule}; add "
            "such a column, or one named caption"
        )
    used = tuple(column for column in others if column in fits)
    said = (
        f"the attributes are {', '.join(used)}, every column of {path.name} that can be: choose "
        "some with --protocol columns=A,B"
    )
    return used, [said, *([f"{', '.join(left_out)} cannot: {rule}"] if left_out else [])]


def _valued(number: int) -> str:
    return "one value" if number == 1 else f"{number:,} values"


def _words(caption: str) -> Described:
    words = (word.strip(PUNCTUATION) for word in caption.lower().split())
    return tuple(word for word in words if word)


def _images(
    path: Path, frame: pd.DataFrame, kind: _Kind, pictures: Pictures, options: Options
) -> tuple[pd.DataFrame, list[str]]:
    """A row a picture: path, caption, split, group, described, and whether it is there.

    Raises:
        UserError: no row names a picture, or the splits cannot be used.
    """
    column = str(tabular.path_column(list(frame.columns)))
    names = strings(frame[column])
    found, _ = locate(list(dict.fromkeys(names[names != ""])), pictures.paths)
    if not found:
        raise UserError(
            f"none of the {len(frame)} rows of {path} names a picture of {pictures.root} in the "
            f"column {column} (first {names.iloc[0] if len(names) else ''!r}): name them by their "
            "path or file name"
        )
    if kind.columns:
        columns = [strings(frame[name]) for name in kind.columns]
        described: list[Described | None] = list(zip(*columns, strict=True))
        captions: list[str | None] = [
            json.dumps(values, ensure_ascii=False) for values in described
        ]
    else:
        described = [_words(caption) or None for caption in strings(frame["caption"])]
        captions = [None if words is None else " ".join(words) for words in described]
    images = pd.DataFrame(
        {
            "path": names,
            "caption": pd.Series(captions, frame.index, dtype=object),
            "split": strings(frame["split"]).str.lower() if "split" in frame else None,
            "group": names,
            "described": pd.Series(described, frame.index, dtype=object),
            "there": names.isin(found.keys()),
        },
        dtype=object,
    )
    first = pd.Series([found.get(name, [name])[0] for name in names], frame.index)
    again = first.duplicated() & (names != "")
    kept = images[(names != "") & ~again].reset_index(drop=True)
    notes = list(_odd(path, kept, kind, int((names == "").sum()), names[again].tolist()))
    if "split" in frame:
        tabular.check_splits(path, kept["split"])
    else:
        kept["split"] = _cut(path, kept["path"].tolist(), options.test)
        tests = (kept["split"] == "test").sum()
        notes.append(
            f"{path.name} has no split column: {tests} of {len(kept)} pictures, chosen by a hash "
            "of their names, are the test split"
        )
    return kept, notes


def _odd(
    path: Path, images: pd.DataFrame, kind: _Kind, nameless: int, again: list[str]
) -> Iterator[str]:
    if nameless:
        yield f"{nameless} rows of {path.name} name no picture and are left out"
    if again:
        yield (
            f"{len(again)} rows of {path.name} name a picture that an earlier one has, first "
            f"{again[0]}: the earlier one counts"
        )
    for place, column in enumerate(kind.columns):
        unknown = sum(not values[place] for values in images["described"])
        if unknown:
            yield f"{column} is unknown of {unknown} pictures: they are in no pair that changes it"
    if not kind.columns and (wordless := int(images["described"].isna().sum())):
        yield f"{wordless} pictures have no caption: they are in no pair"


def _cut(path: Path, names: list[str], share: float) -> list[str]:
    """The split of each name, by its hash.

    Raises:
        UserError: a split is empty.
    """
    digests = (hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() for name in names)
    parts = (int.from_bytes(digest[:8], "big") / 2**64 for digest in digests)
    splits = ["test" if part < share else "train" for part in parts]
    if len(set(splits)) < 2:
        raise UserError(
            f"all {len(names)} pictures of {path} are the {splits[0]} split, of which "
            f"--protocol test={share:g} is the test's share: choose another, or add a column split"
        )
    return splits


def _asked(source: Pairs, kind: _Kind, split: str, options: Options) -> Iterator[tuple[str, ...]]:
    """The rows of the questions of a split: query_id to template."""
    if split == "train":
        return
    asked = source.questions(np.random.default_rng(0))
    for number, (reference, change, target) in enumerate(asked):
        templates = kind.templates.of(change)
        several = split == "test" and options.paraphrases
        for nth, template in enumerate(templates if several else templates[:1]):
            name = f"{split}-{number}" + (f"-{nth}" if several else "")
            text = texts.filled(template, change)
            yield name, reference, text, target, split, change.column, template


def _protocol(kind: _Kind, options: Options) -> Protocol:
    what = "one of these columns" if kind.columns else f"1 to {MOST_WORDS} words, as few as any"
    templates = kind.templates
    first = "the first template of each column" if templates.own else f'"{templates.common[0]}"'
    number = len(templates.common) + sum(map(len, templates.own.values()))
    return Protocol(
        name=NAME,
        source=f"Own table of pictures, told apart by {kind.said}",
        gallery="the pictures of the test split",
        remove_reference=True,
        correct="caption",
        described=kind.said,
        recall_at=(1, 5, 10, 50),
        text=f"{'each template in turn' if options.paraphrases else first}, filled in",
        pairs=(
            "every training picture once an epoch that has another which differs from it in "
            f"{what}: what changes, to which value, and to which picture is drawn, and one of "
            f"the {number} templates"
        ),
    )


def _no_pair(path: Path, images: pd.DataFrame, split: str, kind: _Kind) -> str:
    """Why there is no pair, in a sentence."""
    start = f"no pair can be drawn from the {len(images)} {split} pictures of {path}: "
    if not kind.columns:
        number = images["caption"].nunique()
        return (
            f"{start}no two of their {number} different captions differ in {MOST_WORDS} words or "
            "fewer, the rest being equal; name columns of attributes with --protocol columns=A,B"
        )
    rest = [
        {(place, *values[:place], "", *values[place + 1 :]) for place in range(len(values))}
        for values in images["described"]
    ]
    pictures = Counter(one for some in rest for one in some)
    shared = sum(any(pictures[one] > 1 for one in some) for some in rest)
    less = "and these differ in nothing that is known" if shared else "so no change can be asked"
    return (
        f"{start}{shared} of them share all but one of {kind.said} with another, {less}; choose "
        "other columns with --protocol columns=A,B, or add pictures"
    )
