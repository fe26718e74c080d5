"""Two records side by side: what became faster, and what only looks so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_KEY = ("test", "tokens", "depth", "batch", "dtype", "threads")
_ENOUGH = 3  # repeats: three of equal machines fall apart by chance once in ten times, five hardly
_NOTHING = 0.01


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare the measurements that two records share.

    Returns:
        For each: what it is, both medians, `ratio` (old by new, so above 1 is better: faster or
        smaller), and `verdict`: "better", "worse", "same" when the spreads overlap or the medians
        are within 1 %, "unclear" when one of them ran less than three times.
    """
    # One engine may be held against another, unless a record has both.
    several = max(len({kind(row) for row in record["results"]}) for record in (old, new)) > 1
    before = {_key(row, several): row for row in old["results"]}
    found = []
    for row in new["results"]:
        if (was := before.get(_key(row, several))) is not None:
            same = {name: row[name] for name in (*_KEY, "engine", "unit")}
            figures = {"old": was["median"], "new": row["median"]}
            ratio = was["median"] / row["median"]
            found.append(same | figures | {"ratio": ratio, "verdict": _verdict(was, row)})
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say in what the circumstances of two records differ, since ratios then mean something
    else.
    """
    places: Sequence[tuple[str, str, str]] = (
        ("machine", "cpu", "processor"),
        ("machine", "system", "system"),
        ("model", "name", "model"),
        ("model", "shape", "shape"),
    )
    return [
        f"another {what}: {old[part][key]} then, {new[part][key]} now"
        for part, key, what in places
        if old[part][key] != new[part][key]
    ]


def kind(row: Mapping[str, Any]) -> str:
    """Give the first word of what an engine calls itself: "native" or "torch"."""
    return str(row["engine"]).partition(" ")[0]


def _key(row: Mapping[str, Any], several: bool) -> tuple[Any, ...]:
    return (*(row[name] for name in _KEY), kind(row) if several else "")


def _verdict(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if min(old["repeats"], new["repeats"]) < _ENOUGH:
        return "unclear"
    if abs(old["median"] / new["median"] - 1) > _NOTHING:
        if new["max"] < old["min"]:
            return "better"
        if new["min"] > old["max"]:
            return "worse"
    return "same"
