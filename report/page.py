"""What every page is made of: one file, one style, nothing loaded, nothing run but our script."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from cqr.atomic import replacing

READING = (
    "R@k is the share of the queries, in percent, whose right picture is among the first k found."
)

MOST = 60
"""Rows of a table of kinds."""


def write_page(path: Path, title: str, body: Sequence[str]) -> None:
    """Write a page of HTML parts.

    Its policy lets a browser load nothing and run no script but `page.js`, whatever a
    caption or a file name holds.
    """
    style, script = (
        files("cqr.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>{script}</script>\n</body>\n</html>\n"
    )
    with replacing(path) as temporary:
        # a caption may hold half of a surrogate pair, which no file can
        temporary.write_text(page, encoding="utf-8", errors="replace")


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    kind: str = "numbers",
    bars: Sequence[int] = (),
    classes: Sequence[str] = (),
) -> str:
    """Cells are text: what is special in HTML is escaped here.

    Args:
        kind: "numbers", the cells after the first are numbers; or "words".
        bars: columns of percents, each drawn behind its number.
        classes: of the rows.
    """
    lines = ["".join(f'<th scope="col">{escape(name)}</th>' for name in head)]
    for row in rows:
        cells = [f'<th scope="row">{escape(row[0])}</th>']
        for place, text in enumerate(row[1:], start=1):
            share = f' class="bar" style="--share:{text}"' if place in bars and text else ""
            cells.append(f"<td{share}>{escape(text)}</td>")
        lines.append("".join(cells))
    named = ["", *(classes or [""] * len(rows))]
    body = "".join(
        f'<tr class="{name}">{line}</tr>' if name else f"<tr>{line}</tr>"
        for name, line in zip(named, lines, strict=True)
    )
    return f'<div class="scroll" tabindex="0"><table class="{kind}">{body}</table></div>'


def by_kind(
    title: str, names: Sequence[str], columns: Mapping[str, Sequence[tuple[str, int, list[str]]]]
) -> list[str]:
    """A table for each column by which recall is reported.

    Args:
        names: of the percents.
        columns: by name, rows of a value, its number of queries and the percents; of very
            many, those with the most queries are shown.
    """
    tables = []
    for column, rows in columns.items():
        kept = {value for value, _, _ in sorted(rows, key=lambda row: -row[1])[:MOST]}
        lines = [[v, f"{queries:,}", *found] for v, queries, found in rows if v in kept]
        drawn = table([column, "queries", *names], lines, bars=range(2, 2 + len(names)))
        left = len(rows) - len(kept)
        note = paragraph(
            f"{left:,} values with fewer queries are left out." if left else "", "rule"
        )
        tables.append(f"<section>{drawn}{note}</section>")
    if not tables:
        return []
    return [f"<h2>{escape(title)}</h2>", f'<div class="tables">{"".join(tables)}</div>']
