"""Which picture an id means: features are named by ids, regions by the paths of pictures."""

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

_COCO = re.compile(r"(?:^|_)(\d{12})$")
"""The end of COCO_train2014_000000132417, or all of 000000132417: the picture of id 132417."""


class Names:
    """The pictures of a folder, by every name that a source may have for them.

    The whole path goes before the path without its suffix, before the file's
    name, before that without its suffix, before the number in a name of COCO's.  Where nothing
    fits so, names are held together in one Unicode form and with "/" for a backslash, and then
    without regard to case.

    Attributes:
        loose: the ids that were found in that way only.
    """

    def __init__(self, paths: Sequence[str]):
        self.loose: list[str] = []
        self._paths = paths
        self._forms: list[list[dict[str, list[str]]]] = [_known(paths, str)]

    def find(self, id: str) -> str | None:
        """The one picture of that name; None if there is none, or more than one."""
        for number, form in enumerate(_FORMS):
            if number == len(self._forms):
                self._forms.append(_known(self._paths, form))
            for names in self._forms[number]:
                if fitting := names.get(form(id)):
                    if len(fitting) > 1:
                        return None
                    if number:
                        self.loose.append(id)
                    return fitting[0]
        return None


def plain(name: str) -> str:
    """A name in the one form that systems differ in: composed letters, "/", no "./" in front."""
    return unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")


def folded(name: str) -> str:
    return plain(name).casefold()


_FORMS: tuple[Callable[[str], str], ...] = (str, plain, folded)


def _known(paths: Sequence[str], form: Callable[[str], str]) -> list[dict[str, list[str]]]:
    known: list[dict[str, list[str]]] = [{} for _ in range(5)]
    for path in paths:
        for names, name in zip(known, _names(form(path)), strict=False):
            names.setdefault(name, []).append(path)
    return known


def _names(path: str) -> Iterator[str]:
    name = posixpath.basename(path)
    stem = posixpath.splitext(name)[0]
    yield path
    yield posixpath.splitext(path)[0]
    yield name
    yield stem
    if number := _COCO.search(stem):
        yield str(int(number[1]))
