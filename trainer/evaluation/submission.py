"""Rank the split whose truth a server keeps, and write the files that the server takes."""

import json
from pathlib import Path

import torch

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.trainer.datasets.forms import Answers, Form, check_text, names_of
from cqr.trainer.datasets.queries import Dataset, Task, tasks
from cqr.trainer.datasets.recognise import READERS
from cqr.trainer.ranking.encode import Vectors, encode
from cqr.trainer.training.fitting import check_fits
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run


def forms_of(dataset: Dataset) -> list[Form]:
    """The files that the data set's server takes, those of parts that it lacks left out.

    Raises:
        UserError: there is no such server, or nothing to submit.
    """
    known = {reader.NAME: getattr(reader, "SUBMISSION", ()) for reader in READERS}
    split = dataset.protocol.submitted
    if not known[dataset.name] or split is None:
        names = ", ".join(name for name, forms in known.items() if forms)
        raise UserError(
            f"{dataset.name} keeps no truth on a server: score it with `cqr evaluate`; "
            f"what can be submitted is {names}"
        )
    forms = [form for form in known[dataset.name] if len(form.of(dataset, dataset.split(split)))]
    if not forms:
        raise UserError(
            f"{dataset.root} has no queries of its {split} split to submit: complete the data set"
        )
    return forms


def submit(run: Run, material: Material, device: torch.device) -> dict[Path, Form]:
    """Write the files of a submission to the run's folder submission/.

    Every file is checked before the first is written.

    Args:
        material: of the submitted split.

    Returns:
        What was written, with its form.

    Raises:
        UserError: there is nothing to submit, the run does not fit, or a query
            cannot be answered in full.
    """
    dataset, reader = material.dataset, material.seen_by(run.settings).reader
    forms = forms_of(dataset)
    check_fits(run, reader)
    model = run.trained_model().to(device)
    words = run.words(device)
    answers: dict[str, Answers] = {form.file: {} for form in forms}
    for work in tasks(dataset, str(dataset.protocol.submitted)):
        if not work.gallery:
            continue  # every answer is found to be short below
        vectors = encode(model, reader, words, work, device)
        for form in forms:
            if form.part in (None, _part(dataset, work)):
                answers[form.file] |= _answers(form, dataset, work, vectors)
    features = str(reader.file.path)
    texts = [_text(form, dataset, answers[form.file], features) for form in forms]
    paths = [run.path / "submission" / form.file for form in forms]
    for path, text in zip(paths, texts, strict=True):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return dict(zip(paths, forms, strict=True))


def _part(dataset: Dataset, work: Task) -> str | None:
    column = dataset.protocol.part
    return None if column is None else str(work.queries[column].iloc[0])


def _answers(form: Form, dataset: Dataset, work: Task, vectors: Vectors) -> Answers:
    """The best images of each query by name, as many as there are up to the form's depth."""
    places = vectors.rank_among(work)[1] if form.among_members else vectors.rank(work).top
    name = names_of(dataset.images)
    gallery = [name[path] for path in work.gallery]
    return {
        key: [gallery[place] for place in row if place >= 0]
        for key, row in zip(work.queries["query_id"], places[:, : form.depth], strict=True)
    }


def _text(form: Form, dataset: Dataset, answers: Answers, features: str) -> str:
    """The content of a file, checked."""
    queries = form.of(dataset, dataset.split(str(dataset.protocol.submitted)))
    short = [key for key in queries["query_id"] if len(answers.get(key, ())) < form.depth]
    if short:
        raise UserError(
            f"{form.file} names {form.depth} images a query, and {len(short):,} of {len(queries):,}"
            f" queries have fewer, first {short[0]} with {len(answers.get(short[0], ()))}, for lack"
            f" of regions in {features}: extract every image of the"
            f" {dataset.protocol.submitted} split"
        )
    text = json.dumps(form.layout.write(queries, answers), separators=(",", ":"))
    try:
        check_text(form, text, dataset)
    except ValueError as error:
        raise UserError(f"{form.file} would be refused, it {error}: nothing is written") from error
    return text
