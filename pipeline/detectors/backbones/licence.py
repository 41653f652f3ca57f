"""What a model may be used for, as its makers state it, and whether the user accepted that."""

import re
from pathlib import Path

from cqr.errors import UserError

FREE = frozenset(
    {
        "mit",
        "apache-2.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
    }
)
"""As the hub spells them.  Models under these are used without asking."""

KNOWN = {
    "laion/clip-vit-b-32-laion2b-s34b-b79k": "mit",
    "baai/bge-vl-base": "mit",
    "baai/bge-vl-large": "mit",
    "google/siglip-base-patch16-224": "apache-2.0",
    "google/siglip2-base-patch16-224": "apache-2.0",
    "facebook/dinov2-base": "apache-2.0",
}
"""What model cards state, for copies that came without the card."""

RESTRICTED = {
    "dinov3": "dinov3-license",
    "mobileclip": "apple-amlr",
    "metaclip": "cc-by-nc-4.0",
}
"""Families, by a part of the name, under terms that forbid some uses, where no card says more."""


def stated(card: Path | None, *names: str) -> str | None:
    """The licence that a model card states, else what is known of a model of these names.

    In lower case, as the hub spells it; of an "other" licence its own name.  None: nowhere said.
    """
    found = _of_card(card) if card is not None and card.is_file() else None
    if found not in (None, "unknown"):
        return found
    lowered = [name.lower() for name in names]
    for name in lowered:
        if name in KNOWN:
            return KNOWN[name]
    for family, licence in RESTRICTED.items():
        if any(family in name for name in lowered):
            return licence
    return None


def check(licence: str | None, model: str, accepted: bool, url: str | None = None) -> None:
    """Raises UserError for a stated licence that is not free, unless the user accepted it."""
    if licence is None or licence in FREE or accepted:
        return
    where = f", see {url}" if url else ""
    raise UserError(
        f"{model} is under the licence {licence}{where}, which is not MIT, Apache or BSD: "
        "read it, then say --accept-licence to use the model, or choose another --config"
    )


def _of_card(card: Path) -> str | None:
    """`license` in the block of YAML that a card begins with; nothing else of YAML is read."""
    text = card.read_text(encoding="utf-8", errors="replace")
    block = re.match(r"---\r?\n(.*?)^---", text, re.DOTALL | re.MULTILINE)
    if block is None:
        return None
    values: dict[str, str] = {
        key: value.strip("'\" ").lower()
        for key, value in re.findall(
            r"^(license|license_name):[ \t]*(?:\r?\n[ \t]*-[ \t]*)?(.*?)[ \t]*\r?$",
            block[1],
            re.MULTILINE,
        )
    }
    if values.get("license") == "other" and values.get("license_name"):
        return values["license_name"]
    return values.get("license") or None
