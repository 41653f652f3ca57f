"""What a comparison came to, in words and cells: for the terminal and the page alike."""

from typing import Any

from cqr.trainer.evaluation.published import cells, columns


def budget(content: dict[str, Any]) -> str:
    """What every row has alike, and what not."""
    equal, seeds = content["equal"], content["seeds"]
    which = "seed 0" if seeds == 1 else f"seeds 0 to {seeds - 1}"
    chosen = {
        "validation": "the best on held-out queries",
        "test": "the best on the test queries, which flatters",
        "last": "the last",
    }[equal["select"]]
    epochs = "1 epoch" if equal["epochs"] == 1 else f"{equal['epochs']} epochs"
    said = (
        f"Equal for every row: {epochs} over {content['training_queries']:,} "
        f"training queries in batches of {equal['batch']}, epoch kept: {chosen}; {which}; "
        "nothing is tuned here."
    )
    differing = [name for name in content["differing"] if name != "model"]
    return f"{said}  Rows differ in: {', '.join(differing)}." if differing else said


def verdict(content: dict[str, Any]) -> str:
    """Which row finds most by R@k of the least k, and whether that is sure; "" without rows."""
    done = [row for row in content["rows"] if "recall" in row]
    if not done:
        return ""
    k = next(iter(done[0]["recall"]))
    best = max(done, key=lambda row: row["recall"][k]["mean"])
    said = f"{best['row']} finds most: R@{k} {plus_minus(best['recall'][k])}"
    found = best.get("against", {}).get(k)
    if not found or found["difference"] < 0:
        return f"{said}."
    by = f"{found['difference']:.2f} points above {found['row']}"
    span = f"95 % interval {found['low']:+.2f} to {found['high']:+.2f}"
    sure = "these queries leave no doubt" if found["low"] > 0 else "these queries cannot tell"
    return f"{said}, {by} ({span}): {sure} which of the two is better."


def plus_minus(spread: dict[str, float | None], digits: int = 2) -> str:
    mean, std = spread["mean"], spread["std"]
    return f"{mean:,.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def headings(content: dict[str, Any]) -> list[str]:
    """The names of the measures of the rows."""
    first = next((row for row in content["rows"] if "recall" in row), None)
    return [] if first is None else [*(f"R@{k}" for k in first["recall"]), *first["measures"]]


def published_columns(content: dict[str, Any]) -> list[str]:
    """The names of the measures of which a row has a published number."""
    return columns((row.get("published") or {} for row in content["rows"]), headings(content))


def published(row: dict[str, Any], names: list[str]) -> list[str]:
    """A row's published numbers as they are printed, with blanks."""
    return cells(row.get("published") or {}, names)


def seeds_of(row: dict[str, Any], content: dict[str, Any]) -> str:
    done = len(row["seeds"])
    return str(done) if done == content["seeds"] else f"{done} of {content['seeds']}"


def difference(found: dict[str, Any]) -> list[str]:
    """Difference, interval, share of resamples and deviations, as they are printed."""
    deviations = found["in_deviations"]
    return [
        f"{found['difference']:+.2f}",
        f"{found['low']:+.2f} to {found['high']:+.2f}",
        f"{100 * found['not_better']:.2f} %",
        "" if deviations is None else f"{deviations:+.1f}",
    ]
