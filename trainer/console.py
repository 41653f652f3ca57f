"""What `cqr train` and `cqr evaluate` print: results on stdout, the rest on stderr."""

import contextlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from cqr.progress import bar
from cqr.trainer.datasets.queries import Dataset
from cqr.trainer.datasets.survey import Survey
from cqr.trainer.evaluation.beside_start import beside_start
from cqr.trainer.evaluation.published import cells, columns
from cqr.trainer.training.epoch import OnStep
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings
from cqr.trainer.training.train import OnEpoch

MOST_KINDS = 12
"""Values of a column for which recall is printed; a page has room for more."""

RARE = 20
"""Words; of fewer nothing is said."""

results = Console(highlight=False)
notes = Console(stderr=True, highlight=False, markup=False)


def announce(
    run: Run,
    material: Material,
    split: str | None = None,
    *,
    verbose: bool = False,
    again: bool = False,
) -> None:
    """Say what is about to be trained or ranked, on what, and what is odd about it.

    Args:
        split: that is ranked; None is the one that the protocol scores.
        verbose: all that was settled; else two lines, and what is odd.
        again: the training said what is odd about the data: only that something is.
    """
    ranked = split or material.dataset.protocol.scored
    if verbose:
        _settled(run, material, ranked)
    else:
        _in_short(run, material, ranked)
    dataset, settings = material.dataset, run.settings
    words = run.words()
    said = material.notes
    if again and not verbose and len(said) > 1:
        said = [f"{len(said)} notes on the data, as its training had them (-v says them again)"]
    remark(said)
    if cut := words.cut(dataset.queries["text"]):
        kind = "word pieces" if run.text_encoder else "words"
        more = "" if settings.joint else " (`cqr train --max-words`)"
        limit = f"{words.spec.max_words} {kind} that the model reads{more}"
        _say(f"Note      {cut:,} texts are cut, being longer than the {limit}", style="yellow")
    if run.vocabulary and not settings.untrained:
        texts = dataset.queries["text"][dataset.queries["split"] == "train"]
        once, known = run.vocabulary.once(texts), len(run.vocabulary.words)
        if 2 * once > known >= RARE:
            advice = "a pretrained encoder knows more of them (`cqr train --text-encoder`)"
            line = f"{once:,} of the {known:,} words occur once, and little can be learned of such"
            _say(f"Note      {line}: {advice}", style="yellow")
    if settings.select == "test":
        flatters = "which flatters the result"
        _say(f"Note      the epoch is chosen on the test queries, {flatters}", style="yellow")


def remark(lines: list[str]) -> None:
    """Say what a user should know before a run is trained or ranked."""
    for line in lines:
        _say(f"Note      {line}", style="yellow")


def _in_short(run: Run, material: Material, ranked: str) -> None:
    """What, and by what: a line each."""
    dataset, settings = material.dataset, run.settings
    counts = dataset.queries["split"].value_counts(sort=False)
    queries = ", ".join(f"{number:,} {split}" for split, number in counts.items())
    gallery = len(dataset.gallery(ranked))
    _say(f"Data set  {dataset.name}: {queries} queries; {gallery:,} images to find them in")
    how = "not trained" if settings.untrained else f"{_number(settings.epochs, 'epoch')}"
    _say(f"Run       {run.path}: {settings.model}, {how}, seed {settings.seed}  (-v says all)")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _settled(run: Run, material: Material, ranked: str) -> None:
    """Everything that decides the result."""
    dataset, settings = material.dataset, run.settings
    reader = material.seen_by(settings).reader
    words = run.words()
    counts = dataset.queries["split"].value_counts(sort=False)
    queries = ", ".join(f"{number:,} {split}" for split, number in counts.items())
    detector = reader.file.detector.get("name", "?")
    choices = ", ".join(f"{name} {value}" for name, value in settings.options.items())
    _say(f"Data set  {dataset.name} ({dataset.root}): {queries} queries")
    if dataset.options:
        _say(f"Options   {_options(dataset)}")
    _say(f"Gallery   {len(dataset.gallery(ranked)):,} images of the {ranked} split")
    seen = f"{reader.k} regions" if reader.kind == "regions" else "the whole image as one region"
    _say(f"Features  {reader.file.path}: {seen} of {reader.dim} ({detector})")
    if run.text_encoder:
        tower = "the text tower of the features, " if settings.joint else ""
        read = f"{tower}frozen: {words.spec.dim} features a word piece"
        _say(f"Text      {run.text_encoder.name}, {read}")
    _say(f"Protocol  {dataset.protocol.sentence()}")
    if not settings.untrained:
        _say(f"Training  {dataset.protocol.pairs}")
    _say(f"Model     {settings.model}: {choices}")
    if settings.learners > 1:
        _say(
            f"Learners  {settings.learners}, divergence {settings.divergence}, margin "
            f"{settings.divergence_margin}"
        )
    if settings.snr:
        _say(f"SNR       causality {settings.causality}, {settings.causality_distance}")
    if settings.reference_weight:
        _say(f"Query     with {settings.reference_weight} of its reference's own vector")
    if settings.untrained:
        _say(f"Run       {run.path}, not trained")
        return
    if settings.reorder:
        _say(f"Texts     {settings.reorder:.0%} of an epoch's with two runs of words exchanged")
    muon = f", of linear maps {settings.muon_lr} by Muon" if settings.muon_lr else ""
    _say(f"Rates     {settings.lr} by AdamW{muon}; weight decay {settings.weight_decay}")
    told = ", told from wrong targets alone" if settings.negatives == "wrong" else ""
    start = ", from zero-shot" if settings.start == "joint" else ""
    together = f" ({settings.together} of a reference together)" if settings.together > 1 else ""
    epochs = _number(settings.epochs, "epoch")
    _say(
        f"Run       {run.path}: {epochs} in batches of {settings.batch}{together}, "
        f"loss {settings.loss}{told}, seed {settings.seed}{start}"
    )


def _options(dataset: Dataset) -> str:
    """As one would type them."""
    return ", ".join(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in dataset.options.items()
    )


def _say(line: str, style: str | None = None) -> None:
    notes.print(line, style=style, soft_wrap=True)


@contextlib.contextmanager
def training(settings: Settings) -> Iterator[tuple[OnStep, OnEpoch]]:
    """A bar within the epoch, and a line after it."""
    parts = (
        SpinnerColumn(),
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with bar(*parts, console=notes, transient=True) as shown:
        line = shown.add_task("", total=None, epoch=1, epochs=settings.epochs, loss=float("nan"))

        def on_step(epoch: int, step: int, steps: int, loss: float) -> None:
            shown.update(line, epoch=epoch + 1, total=steps, completed=step + 1, loss=loss)

        def on_epoch(log: dict[str, Any]) -> None:
            recall = "".join(f"  R@{k} {v:.1f}" for k, v in log.get("recall", {}).items())
            where = "" if not recall else ("  test" if settings.select == "test" else "  held out")
            if "loss" not in log:
                _say(f"epoch {log['epoch']}, the start{where}{recall}")
                return
            _say(
                f"epoch {log['epoch']}/{settings.epochs}  loss {log['loss']:.3f}"
                f"{where}{recall}  {log['queries_per_second']:,.0f} queries/s"
            )

        yield on_step, on_epoch


def recall_table(
    metrics: dict[str, Any], published: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> None:
    """Recall@K of all queries with its 95 % interval, of each kind, and what chance would give.

    Args:
        published: see `published.read`; in columns of their own.
    """
    ks = list(metrics["recall"])
    known = columns(published.values(), [f"R@{k}" for k in ks])
    results.print(f"{metrics['run']} on {metrics['dataset']}, {metrics['split']} split")
    table = Table()
    table.add_column("")
    for name in ("queries", *(f"R@{k}" for k in ks), *(f"{name} published" for name in known)):
        table.add_column(name, justify="right")

    def row(name: str, part: dict[str, Any], *more: str, style: str = "") -> None:
        found = [f"{part['recall'][k]:.2f}" for k in ks]
        table.add_row(escape(name), f"{part['queries']:,}", *found, *more, style=style)

    own = cells(published.get(metrics["model"], {}), known)
    row(metrics["model"], metrics, *own, style="bold")
    spans = (f"{low:.1f} to {high:.1f}" for low, high in metrics["interval"].values())
    table.add_row("95 % interval", "", *spans, style="dim")
    table.add_row("chance", "", *(f"{metrics['chance'][k]:.2f}" for k in ks), style="dim")
    for label, numbers in published.items():
        if label != metrics["model"]:
            table.add_row(escape(label), *([""] * (len(ks) + 1)), *cells(numbers, known))
    for column, parts in metrics["breakdown"].items():
        for value, part in parts.items() if len(parts) <= MOST_KINDS else ():
            row(f"{column} {value}", part)
    print_table(table)
    if metrics.get("start"):
        print_table(_beside_start(metrics))
    for column, parts in metrics["breakdown"].items():
        if len(parts) > MOST_KINDS:
            results.print(f"By {column}: {len(parts)} values, in metrics.json and report.html")
    for name, value in metrics["measures"].items():
        results.print(f"{name:20} {value:6.2f}")
    if metrics["average"]:
        average = metrics["average"]
        results.print(f"Average of {' and '.join(average['of'])}: {average['value']:.2f}")
    if metrics.get("pointing"):
        said = {"attention": "words attend", "change": "the text changes most"}
        found = metrics["pointing"]
        ways = ", ".join(f"where {said[w]} {found[w]:.1f}" for w in said if w in found)
        results.print(
            f"Points at the object meant, % of {found['queries']:,}: {ways}; "
            f"chance {found['chance']:.1f}"
        )
    without = metrics["without_correct_image"]
    if without:
        _say(f"{without:,} queries have no correct image in the gallery and count as missed")
    if metrics["unknown_words"]:
        words = ", ".join(f"{w} ({n})" for w, n in list(metrics["unknown_words"].items())[:5])
        _say(f"Words that training never saw: {words}")


def _beside_start(metrics: dict[str, Any]) -> Table:
    """What a run started from, what it learned, and a paired bootstrap of the difference."""
    head, rows = beside_start(metrics)
    table = Table()
    for name in head:
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        table.add_row(*row)
    return table


def print_table(table: Table) -> None:
    """As wide as the table is, where nobody's window says otherwise."""
    if results.is_terminal:
        results.print(table)
        return
    wanted = Measurement.get(results, results.options.update(max_width=1000), table).maximum
    Console(highlight=False, width=max(wanted, results.width)).print(table)


def survey(found: Survey) -> None:
    """What a data set's folder holds, beside what the whole release does."""
    dataset = found.dataset
    results.print(f"Data set   {dataset.name} ({dataset.root})", soft_wrap=True)
    if dataset.options:
        results.print(f"Options    {_options(dataset)}", soft_wrap=True)
    results.print(f"Protocol   {dataset.protocol.sentence()}", soft_wrap=True)
    results.print(f"Training   {dataset.protocol.pairs}", soft_wrap=True)
    for note in dataset.notes:
        results.print(f"Note       {note}", style="yellow", soft_wrap=True)
    results.print(_splits(found))
    if found.counts:
        results.print(_counts(found))
    results.print(
        f"Pictures   {found.named:,} images are needed, {len(found.there):,} are in "
        f"{found.pictures}; {found.unused:,} other pictures there are not",
        soft_wrap=True,
    )
    remarks = [
        ("images have no picture", found.missing),
        ("pictures are empty files", found.empty),
        ("queries have no word", found.blank),
        ("queries repeat another", found.repeated),
        ("images are listed twice in a split", found.twice),
        (
            f"queries of {dataset.protocol.scored} have no correct image in the gallery",
            found.astray,
        ),
        (
            "pictures are equal to another, byte by byte",
            [p for g in found.alike or [] for p in g[1:]],
        ),
    ]
    for what, some in remarks:
        if some:
            first = ", ".join(some[:3]) + (", ..." if len(some) > 3 else "")
            results.print(f"{len(some):>9,}  {what}: {first}", style="yellow", soft_wrap=True)


def _splits(found: Survey) -> Table:
    table = Table()
    table.add_column("split")
    for name in ("queries", "images", "gallery"):
        table.add_column(name, justify="right")
    for split, queries, images, gallery in found.splits:
        table.add_row(
            split, f"{queries:,}", f"{images:,}", "" if gallery is None else f"{gallery:,}"
        )
    return table


def _counts(found: Survey) -> Table:
    table = Table()
    table.add_column("count")
    for name in ("here", "published", ""):
        table.add_column(name, justify="right")
    for what, here, published in found.counts:
        same = "" if published is None else "equal" if here == published else "differs"
        told = "" if published is None else f"{published:,}"
        table.add_row(what, f"{here:,}", told, same, style="yellow" if same == "differs" else "")
    return table
