"""Texts to words: as runs have read them from the first, and by Unicode's rules where that fails.

`spaced` takes what stands between spaces and signs.  It makes one word of a sentence in Chinese,
Japanese, Thai, Lao, Khmer or Burmese, which put no spaces between words, and tears words at
combining marks, which Hindi has in nearly each.  `segmented` does neither.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from typing import Any, Literal

from cqr.errors import UserError

Splitter = Literal["spaced", "segmented"]

_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # Han
)


def spaced(text: str) -> list[str]:
    """Lower-cased words; "top-left" and "isn't" are one word each."""
    return _WORD.findall(text.lower())


def segmented(text: str) -> list[str]:
    """The same, in NFC, with combining marks kept, and without spaces by ICU's dictionaries.

    Raises:
        UserError: a text without spaces needs ICU, and it is not installed.
    """
    words = []
    for part in _parts(text):
        words += _broken(part) if _UNSPACED.search(part) else [part]
    return words


def places_of(text: str, splitter: Splitter) -> list[tuple[int, int]]:
    """Where the words of a text begin and end; one that NFC writes otherwise is passed over."""
    if splitter == "spaced":
        return [match.span() for match in _WORD.finditer(text)]
    places, at, lowered = [], 0, text.lower()
    for word in segmented(text):
        first = lowered.find(word, at)
        if first >= 0:
            at = first + len(word)
            places.append((first, at))
    return places


SPLIT: dict[str, Callable[[str], list[str]]] = {"spaced": spaced, "segmented": segmented}


def splitter_for(texts: Iterable[str]) -> Splitter:
    """What reads these texts: "spaced", unless it tears or joins words in one of 100 or more."""
    different = set(texts)
    return "segmented" if 100 * sum(map(_needs_more, different)) > len(different) else "spaced"


def _needs_more(text: str) -> bool:
    return bool(_UNSPACED.search(text)) or spaced(text) != _parts(text)


def _parts(text: str) -> list[str]:
    return _marked().findall(unicodedata.normalize("NFC", text).lower())


@cache
def _marked() -> re.Pattern[str]:
    """`_WORD`, with combining marks and joiners as parts of words."""
    marks = "".join(
        re.escape(chr(code))
        for code in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
        if unicodedata.category(chr(code))[0] == "M"
    )
    of_word = f"[\\w{marks}\u200c\u200d]"
    return re.compile(f"\\w{of_word}*(?:[-'’]{of_word}+)*")


def _broken(part: str) -> list[str]:
    """The words of a part without spaces; Unicode UAX 29, with the dictionaries of ICU."""
    return [word for word in _icu().WordBreaker(part, "en") if re.search(r"\w", word)]


@cache
def _icu() -> Any:
    try:
        return import_module("icu4py.breakers")
    except ImportError:
        raise UserError(
            "the texts are of a language that puts no spaces between words, and to find these "
            "takes ICU: pip install 'cqr[words]', or read them by a model that knows the language: "
            "--text-encoder NAME"
        ) from None
