"""Ask a gallery: everything that a question needs, opened once."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import ImageOps

from cqr.errors import UserError
from cqr.machine import find_device
from cqr.pipeline.detectors import Picture
from cqr.search.answer import Answer, Hit
from cqr.search.gallery import Gallery, folder_of, open_gallery
from cqr.search.indexes import Index, open_index
from cqr.search.pictures import NewPictures, parts_of
from cqr.search.question import Question, Reference, WeightedText
from cqr.search.source import difference, source
from cqr.search.understood import Understood, understood
from cqr.search.vector import vector_of
from cqr.trainer.evaluation.attended import Attended
from cqr.trainer.evaluation.explained import Shares, Shown, explained, has, shares_of, shown_of
from cqr.trainer.features import RegionBatch, RegionReader
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.text.vocabulary import TextReader
from cqr.trainer.training import runs
from cqr.trainer.training.fitting import seen
from cqr.trainer.training.runs import Run


@dataclass(frozen=True, eq=False)
class Engine:
    """A run, the features of the gallery's pictures, and an index; may be used by several threads.

    Attributes:
        run: whose model reads the question.
        reader: the regions of the feature file's pictures, as the model is given them.
        gallery: what can be found.
        index: what finds it.
        model: in evaluation mode, on `device`.
    """

    run: Run
    reader: RegionReader
    gallery: Gallery
    index: Index
    model: RetrievalModel
    words: TextReader
    device: torch.device
    new_pictures: NewPictures

    @classmethod
    def open(
        cls,
        run: Run | Path | None = None,
        features: Path | None = None,
        index: str | None = None,
        device: str = "auto",
        *,
        text_encoder: str | None = None,
        weights: Path | None = None,
    ) -> Self:
        """Open what `cqr index` built.

        Args:
            run: None for the newest.
            features: None for the file that the run was trained on.
            index: see `open_index`.
            text_encoder: where the run's text encoder lies now, if it was moved.
            weights: where the detector's weights lie now, if they were moved.

        Raises:
            UserError: one of them is missing, damaged, or not of the others.
        """
        used = runs.chosen(run, text_encoder)
        on = find_device(device)
        reader = read_regions(used, features)
        folder = folder_of(used, reader.file.path)
        gallery = open_gallery(folder)
        if why := difference(gallery.source, source(used, reader)):
            raise UserError(f"the index in {folder} is out of date ({why}): run `cqr index` again")
        return cls(
            run=used,
            reader=reader,
            gallery=gallery,
            index=open_index(index, gallery),
            model=used.trained_model().to(on),
            words=used.words(on),
            device=on,
            new_pictures=NewPictures(reader, weights, device),
        )

    @property
    def attends(self) -> bool:
        """Whether `attended` has something to say."""
        return has(self.model, self.shown.way)

    @cached_property
    def shown(self) -> Shown:
        """In which way a text is shown to point at regions, and how well that scored."""
        return shown_of(self.run)

    def file(self, row: int) -> Path:
        """The picture of a row of the gallery."""
        return Path(self.reader.file.image_root, self.gallery.paths[row])

    def size(self, row: int) -> tuple[int, int]:
        """Width and height of the upright picture of a row of the gallery."""
        (place,) = self.reader.rows([self.gallery.paths[row]])
        width, height = self.reader.file.sizes[place].tolist()
        return width, height

    def reference(self, name: str) -> Reference:
        """A picture of the gallery, by its path there, its path on this machine, or its file name.

        Raises:
            UserError: the gallery has no such picture, or several of that file name.
        """
        row = self._row(name)
        if row is None:
            raise UserError(
                f"{name} is no picture of {self.gallery.folder}: "
                f"name one as {self.gallery.paths[0]}"
            )
        return self.row(row)

    def row(self, row: int) -> Reference:
        """The picture of a row of the gallery."""
        path = self.gallery.paths[row]
        return Reference(path, self.reader.gather(self.reader.rows([path])), row)

    def parts(self, row: int) -> RegionBatch:
        """All regions of a row of the gallery, also where the model is given the whole image."""
        reader = parts_of(self.reader)
        return reader.gather(reader.rows([self.gallery.paths[row]]))

    def picture(
        self,
        picture: Picture | bytes | Path,
        name: str | None = None,
        source: bytes | None = None,
    ) -> Reference:
        """A new picture, by the detector that made the features; see `NewPictures.reference`."""
        named = str(picture) if isinstance(picture, Path) else "the picture"
        return self.new_pictures.reference(picture, name or named, source)

    def named(self, name: str) -> Reference:
        """A picture of the gallery if it has one of that name, else that file.

        Raises:
            UserError: there is neither, or the file cannot be used.
        """
        row = self._row(name)
        if row is None and not os.path.lexists(name):
            raise UserError(
                f"{name} is neither a picture of {self.gallery.folder} (as "
                f"{self.gallery.paths[0]} is) nor a file"
            )
        return self.picture(Path(name)) if row is None else self.row(row)

    def ask(self, question: Question) -> Answer:
        """The pictures nearest to the question's vector; see `vector.vector_of`.

        Raises:
            UserError: it has no picture and the model needs one, its condition cannot be read,
                or the index cannot be reached.
        """
        if not question.references and not self.model.answers_text:
            raise UserError(
                f"a model of the kind {self.run.settings.model} answers no text alone: name a "
                "picture to start from with --image"
            )
        began = time.perf_counter()
        vector = vector_of(self.model, self.words, question, self.device).numpy()[None]
        encoded = time.perf_counter()
        given = question.references + question.less
        own = [r.row for r in given if r.row is not None]
        exclude = np.array([] if question.keep_references else own, np.int64)
        rows, scores = self.index.search(vector, question.k, [exclude], question.where)
        hits = [
            Hit(row, self.gallery.paths[row], score, self.file(row))
            for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True)
            if row >= 0
        ]
        seconds: dict[str, float] = {}
        for reference in question.references:
            for part, spent in reference.seconds.items():
                seconds[part] = seconds.get(part, 0) + spent
        seconds |= {"encode": encoded - began, "search": time.perf_counter() - encoded}
        return Answer(hits, seconds, understood=self.understood(question))

    def understood(self, question: Question) -> Understood:
        """What the model understands of a question, and what to say of it."""
        return understood(question, self.words, self.run.vocabulary, self.run.dataset == "css")

    def search(
        self,
        image: Any = (),
        text: str | Sequence[str | WeightedText] = (),
        k: int = 10,
        *,
        nots: Sequence[str] = (),
        where: str | None = None,
        keep_references: bool = False,
    ) -> Answer:
        """Find pictures: like these, but changed as the text says.

        Args:
            image: a picture of the gallery (its path there, on disk, or its file name), any other
                file, a PIL image, H x W x 3 uint8, or a sequence of those.  None, of a model that
                answers texts alone.
            text: what is to change; several may have weights.  None: what looks like the image.
            k: how many results at most.
            nots: changes that are not wanted.
            where: a condition on the metadata, such as 'colour == "red" and price < 20'.
            keep_references: whether the image may be a result.

        Returns:
            The hits, best first; with one image and one text of a model that attends, which
            regions each word looks at too.

        Raises:
            UserError: a picture cannot be used, a text has no word, k is out of range, or the
                condition cannot be read.
        """
        images = image if isinstance(image, list | tuple) else [] if image is None else [image]
        texts = [text] if isinstance(text, str) and text else text
        question = Question(
            references=tuple(map(self._reference_of, images)),
            texts=tuple(WeightedText(t) if isinstance(t, str) else t for t in texts),
            nots=tuple(nots),
            k=k,
            keep_references=keep_references,
            where=where,
        )
        answer = self.ask(question)
        if not self.attends or len(question.references) != 1 or len(question.texts) != 1:
            return answer
        looked = self.attended(question.references[0], question.texts[0].text)
        return replace(answer, attended=looked)

    def _reference_of(self, image: Any) -> Reference:
        if isinstance(image, str | Path):
            return self.named(str(image))
        if not isinstance(image, np.ndarray):
            image = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(
                f"a picture is H x W x 3 uint8, this is {image.shape} {image.dtype}: convert it"
            )
        return self.picture(image)

    def attended(self, reference: Reference, text: str) -> Attended:
        """Which regions each word looks at, or the text changes, by the way that scored best; see
        `cqr.trainer.evaluation.explained`.

        Raises:
            UserError: the model has no such way.
        """
        way = self.shown.way
        if way is None:
            raise UserError(
                f"what a text points at is not shown, being near chance: {self.shown.said}"
            )
        regions = reference.regions
        return explained(self.model, self.words, regions, [text], self.device, way)[0]

    def shares(self, question: Question, row: int) -> Shares:
        """What each region of a picture of the gallery adds to its score with a question.

        Raises:
            UserError: the model's vector of a picture is not pooled from its regions.
        """
        if not self.model.divides:
            raise UserError(
                f"the score of a model of the kind {self.run.settings.model} does not divide over "
                "the regions of a picture"
            )
        query = vector_of(self.model, self.words, question, self.device)
        return shares_of(self.model, query, self.row(row).regions, self.device)[0]

    def _row(self, name: str) -> int | None:
        """The row of the gallery that a name stands for."""
        rows = self.gallery.rows
        if name in rows or "\0" in name:
            return rows.get(name)
        root = os.path.realpath(self.reader.file.image_root)
        below = os.path.relpath(os.path.realpath(name), root).replace(os.sep, "/")
        if below in rows or "/" in name or os.path.lexists(name):
            return rows.get(below)
        same = [path for path in rows if path.rsplit("/", 1)[-1] == name]
        if len(same) > 1:
            raise UserError(
                f"{len(same)} pictures are called {name}, among them {same[0]} and {same[1]}"
            )
        return rows[same[0]] if same else None


def read_regions(run: Run, features: Path | None) -> RegionReader:
    """The regions that a run's model is given, of its own feature file or another.

    Raises:
        UserError: the file is not whole, or holds fewer regions than the run was trained on.
    """
    return seen(RegionReader(features or run.features), run.settings)
