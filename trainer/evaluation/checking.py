"""Check files for a data set's server that any program may have made."""

from collections.abc import Sequence
from pathlib import Path

from cqr.errors import UserError
from cqr.listing import SUFFIXES, files, is_utf8
from cqr.trainer.datasets import recognise
from cqr.trainer.datasets.forms import Form, check_text, content_of
from cqr.trainer.datasets.layout import Pictures, text_of
from cqr.trainer.datasets.queries import Dataset
from cqr.trainer.evaluation.submission import forms_of


def check_files(
    paths: Sequence[Path], data: Path | None, name: str | None = None, chosen: Sequence[str] = ()
) -> dict[Path, Form]:
    """Which form of the data set's each file has.

    Args:
        data: the folder of the data set.
        name: of the data set; None recognises it.
        chosen: among its options: NAME=VALUE each.

    Raises:
        UserError: there is no such data set, or its server would refuse one of the files.
    """
    if data is None:
        raise UserError(
            "--check needs the data set that the file is for: name its folder by --data"
        )
    if not data.is_dir():
        raise UserError(f"--data {data} is no folder: name that of the data set")
    pictures = Pictures(data, [path for path in files(data, SUFFIXES)[0] if is_utf8(path)])
    dataset = recognise.read(recognise.find(pictures, None, name), pictures, given=tuple(chosen))
    forms = forms_of(dataset)
    return {path: check_file(path, forms, dataset) for path in paths}


def check_file(path: Path, forms: Sequence[Form], dataset: Dataset) -> Form:
    """Which of the forms a file has, that any program may have made; see `forms.check_text`.

    Raises:
        UserError: it is not there, or has none of them, or its server would refuse it.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: name the one to be checked")
    text = text_of(path)
    try:
        form = _form(path, text, forms, dataset)
        check_text(form, text, dataset)
    except ValueError as error:
        raise UserError(f"{path} would be refused: it {error}") from error
    return form


def _form(path: Path, text: str, forms: Sequence[Form], dataset: Dataset) -> Form:
    """What a file is meant to be: by its name, else by what it holds.

    Raises:
        ValueError: it is nothing that the server takes.
    """
    named = [form for form in forms if form.file == path.name]
    if named or len(forms) == 1:
        return (named or forms)[0]
    content, split, why = content_of(text), dataset.split(str(dataset.protocol.submitted)), ""
    for form in forms:
        try:
            queries = form.of(dataset, split)
            if not set(form.layout.read(queries, content)) & set(queries["query_id"]):
                raise ValueError("answers no query of it")
        except ValueError as error:
            why = why or f"{form.file}: it {error}"
            continue
        return form
    names = ", ".join(form.file for form in forms)
    raise ValueError(f"is none of {names} ({why})")
