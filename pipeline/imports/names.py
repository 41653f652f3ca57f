"""Which picture an id means: features are named by ids, regions by the paths of pictures."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

_COCO = re.compile(r"(?:^|_)(\d{12})$")
"""The end of COCO_train2014_000000132417, or all of 000000132417: the picture of id 132417."""


class Names:
    """The pictures of a folder, by every name that a source may have for them.

    The whole path goes before the path without its suffix, before the file's
    name, before that without its suffix, before the number in a name of COCO's.
    """

    def __init__(self, paths: Sequence[str]):
        self.known: list[defaultdict[str, list[str]]] = [defaultdict(list) for _ in range(5)]
        for path in paths:
            for names, name in zip(self.known, _names(path), strict=False):
                names[name].append(path)

    def find(self, id: str) -> str | None:
        """The one picture of that name; None if there is none, or more than one."""
        for names in self.known:
            if id in names:
                return names[id][0] if len(names[id]) == 1 else None
        return None


def _names(path: str) -> Iterator[str]:
    name = posixpath.basename(path)
    stem = posixpath.splitext(name)[0]
    yield path
    yield posixpath.splitext(path)[0]
    yield name
    yield stem
    if number := _COCO.search(stem):
        yield str(int(number[1]))
