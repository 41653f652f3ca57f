"""What a run learned beside what it started from, in cells: for the terminal and the page alike."""

from collections.abc import Mapping
from typing import Any


def beside_start(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The head, and a row for each k, of metrics that have a `start`."""
    start = metrics["start"]
    head = ["", start["model"], "learned", "difference", "95 % interval", "not better in"]
    rows = [
        [
            f"R@{k}",
            f"{start['recall'][k]:.2f}",
            f"{metrics['recall'][k]:.2f}",
            f"{d['mean']:+.2f}",
            f"{d['low']:+.2f} to {d['high']:+.2f}",
            f"{100 * d['not_better']:.1f} %",
        ]
        for k, d in start["difference"].items()
    ]
    return head, rows
