"""Examples as elements of a page, after the figures of the LBF and TIRG papers.

A row of such a figure is a card: the reference with its regions, the text, the target, and
what was found, in order, the right ones framed.  A word's attention is drawn on the reference
when the word is pointed at, and below it for all words, which needs no script.
"""

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import numpy as np
from numpy.typing import NDArray

from cqr.pipeline.feature_file import FeatureFile
from cqr.report.examples import Answer, Example, Group
from cqr.report.page import paragraph
from cqr.report.pictures import Album, Picture, album, use

HEATS = {"attention": "What each word looks at", "change": "What the text changes"}

LONGEST = 400
"""Characters of a text that are shown."""

READING = {
    "attention": (
        "Point at a word, or tap it, to see the regions it attends to: the mean over the "
        "heads of the last word-to-region attention, the strongest region of a word full."
    ),
    "change": (
        "Point at the text, or tap it, to see the regions that it changes: the distance between a "
        "region's mapped state before and after the fusion, the most changed region full."
    ),
}
"""How a card is read, by the way of pointing that it shows."""

NAMED = 3
"""Regions of a result whose share is said, those that matter most."""

FULL = 0.55
"""Opacity of the region that a word attends to most, as in `page.js`."""


def section(groups: Sequence[Group], file: FeatureFile, remark: str = "") -> list[str]:
    """The parts of a page that show examples.

    Args:
        file: that knows the pictures.
        remark: what else is to be said of all of them.
    """
    examples = [example for group in groups for example in group.examples]
    if not examples:
        return []
    pictures = album(
        file,
        large=[one.reference for one in examples],
        small=[
            path for one in examples for path in (*([one.target] if one.target else []), *one.found)
        ],
    )
    parts = [
        "<h2>Examples</h2>",
        _reading(examples),
        paragraph(remark, "rule"),
        _gone(pictures, file),
        pictures.definitions(),
    ]
    for group in groups:
        cards = "\n".join(_card(example, pictures) for example in group.examples)
        rule = group.rule if group.examples else "There are none."
        parts += [f"<h3>{escape(group.title)}</h3>", paragraph(rule, "rule")]
        if cards:
            parts.append(
                f'<div class="examples" style="--shape:{pictures.shape:.3f}">{cards}</div>'
            )
    return parts


def _reading(examples: Sequence[Example]) -> str:
    said = "Green and ✓: right, as Recall counts it.  Thin lines: the regions of the reference."
    shown = examples[0].shown
    if any(one.looked for one in examples):
        said += f"  {READING[shown.way or 'attention']}  {shown.said}"
    elif shown.right is not None and shown.way is None:
        said += f"  What a text points at is not shown, being too near chance.  {shown.said}"
    return paragraph(said, "rule")


def _gone(pictures: Album, file: FeatureFile) -> str:
    missing, every = len(pictures.missing), len(pictures.pictures)
    if not missing:
        return ""
    return paragraph(
        f"{missing} of these {every} pictures cannot be read below {file.image_root} any more: "
        "their frames are empty.",
        "warning",
    )


def _card(example: Example, pictures: Album) -> str:
    reference = pictures[example.reference]
    drawn = _boxes(example.boxes, reference)
    if not drawn:  # words have nothing to light up
        example = replace(example, looked=None)
    target = ""
    if example.target is not None:
        more = len(example.right - {example.target})
        others = f" and {more:,} more that {'is' if more == 1 else 'are'} right" if more else ""
        target = (
            f'<figure class="target"><figcaption>Target{others}</figcaption>'
            f"{use(pictures[example.target])}</figure>"
        )
    answers = "".join(_answer(answer, example, pictures) for answer in example.answers)
    return (
        '<article class="example">'
        f'<header><h4><q dir="auto">{escape(_cut(example.text))}</q></h4>'
        f"<code>{escape(_cut(example.query_id))}</code></header>"
        f'<figure class="reference"><figcaption>{escape(_caption(example, drawn))}</figcaption>'
        f"{use(reference, f'<g>{drawn}</g>')}{_words(example)}</figure>"
        f'{target}<div class="answers">{answers}</div>'
        f"{_heat(example, reference)}</article>"
    )


def _caption(example: Example, drawn: str) -> str:
    if not len(example.boxes):
        return "Reference, of which there are no regions"
    if not drawn:
        return "Reference, whose regions have no boxes"
    return (
        f"Reference, as {example.looker} is given it" if len(example.answers) > 1 else "Reference"
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _answer(answer: Answer, example: Example, pictures: Album) -> str:
    ends = {0: "nothing right to find", 1: "right at once"}
    said = ends.get(answer.rank, f"first right one at {answer.rank:,}")
    if not answer.found:
        said = "nothing found"
    good = " good" if answer.rank == 1 else ""
    tiles = "".join(
        f'<li class="right">{tile}</li>' if path in example.right else f"<li>{tile}</li>"
        for place, (path, score) in enumerate(zip(answer.found, answer.scores, strict=True), 1)
        for tile in [use(pictures[path], more=f"\nplace {place}, score {score:.3f}")]
    )
    return (
        f'<section><h5>{escape(answer.label)} <span class="rank{good}">{said}</span></h5>'
        f'<ol class="found">{tiles}</ol>{_why(answer, pictures)}</section>'
    )


def _why(answer: Answer, pictures: Album) -> str:
    """The pictures that were found, with the shares of their regions where these say something."""
    figures = []
    for place, (path, shares) in enumerate(zip(answer.found, answer.shares, strict=False), 1):
        if shares is None or not len(parts := shares.parts()):
            continue
        drawn = "".join(
            f'<path class="heat" fill-opacity="{FULL * part / parts.max():.2g}" d="{outline}"/>'
            for part, box in zip(parts, shares.boxes, strict=True)
            if part >= 0.005 and (outline := _path(box, pictures[path]))
        )
        first = np.argsort(-abs(parts), kind="stable")[:NAMED]
        said = ", ".join(f"{spot(shares.boxes[at])} {_percent(parts[at])}" for at in first)
        figures.append(
            f"<figure>{use(pictures[path], drawn)}<figcaption>{place}: {said}</figcaption></figure>"
        )
    if not figures:
        return ""
    return (
        "<details><summary>Why they were found: what their regions add to the score</summary>"
        f'<div class="heats whys">{"".join(figures)}</div></details>'
    )


def spot(box: NDArray[np.float32]) -> str:
    """Where a box lies, in words, as "top left"."""
    x1, y1, x2, y2 = np.nan_to_num(box, nan=0).clip(0, 1).tolist()
    row, column = (min(2, int(1.5 * (a + b))) for a, b in ((y1, y2), (x1, x2)))
    return f"{('top', 'middle', 'bottom')[row]} {('left', 'center', 'right')[column]}"


def _percent(part: float) -> str:
    return f"{'−' if part < 0 else ''}{abs(100 * part):.0f}\u00a0%"


def _path(box: NDArray[np.float32], picture: Picture) -> str:
    """The outline of a box in the picture's coordinates; "" of a box that has no area."""
    size = np.array([picture.width, picture.height] * 2)
    x1, y1, x2, y2 = (np.nan_to_num(box, nan=0).clip(0, 1) * size).round().astype(int)
    return f"M{x1} {y1}H{x2}V{y2}H{x1}z" if x2 > x1 and y2 > y1 else ""


def _boxes(boxes: NDArray[np.float32], picture: Picture) -> str:
    """Every region; one without an area is there too, since words count regions.  "" if all are."""
    outlines = [_path(box, picture) for box in boxes]
    if not any(outlines):
        return ""
    return "".join(f'<path class="region" d="{outline}"/>' for outline in outlines)


def _words(example: Example) -> str:
    """The words as buttons; each says its weights in percent of its largest."""
    if example.looked is None:
        return ""
    buttons = [
        f'<button type="button" class="word" aria-pressed="false" data-weights="'
        f'{" ".join(str(round(100 * v)) for v in relative)}">{escape(word)}</button>'
        for word, relative in zip(example.looked.words, _relative(example), strict=True)
    ]
    return f'<p class="words">{"".join(buttons)}</p>'


def _relative(example: Example) -> NDArray[np.float32]:
    """N x K weights, each word's divided by its largest."""
    assert example.looked is not None
    weights = example.looked.weights
    relative: NDArray[np.float32] = weights / weights.max(1, keepdims=True).clip(min=1e-9)
    return relative


def _heat(example: Example, reference: Picture) -> str:
    """A small picture a word, with its weights in tenths of its largest."""
    if example.looked is None:
        return ""
    figures = []
    for word, relative in zip(example.looked.words, _relative(example), strict=True):
        tenths = (10 * relative).round()
        drawn = "".join(
            f'<path class="heat" fill-opacity="{FULL * tenth / 10:.2g}" d="{outlines}"/>'
            for tenth in range(1, 11)
            if (outlines := "".join(_path(b, reference) for b in example.boxes[tenths == tenth]))
        )
        figures.append(
            f"<figure>{use(reference, drawn)}<figcaption>{escape(word)}</figcaption></figure>"
        )
    return (
        f"<details><summary>{HEATS[example.shown.way or 'attention']}</summary>"
        f'<div class="heats">{"".join(figures)}</div></details>'
    )
