"""Who gave votes and ratings, people or simulated listeners: what a model learnt from them must always say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

UNKNOWN = "unknown"
_WORDS = {"person": "{} of people", "simulated": "simulated {}", UNKNOWN: "{} of unknown raters"}


def kind(record: Mapping[str, Any]) -> str:
    """Return "person" or "simulated" from a record's `rater_kind`; "unknown" where it says neither."""
    found = record.get("rater_kind")
    return found if found in ("person", "simulated") else UNKNOWN


def count(kinds: Iterable[str]) -> dict[str, int]:
    """Return how many there are of each kind; people and simulated are always named."""
    return {"person": 0, "simulated": 0, **Counter(kinds)}


def sentence(counts: Mapping[str, int], noun: str) -> str:
    """Return counts in words: "480 simulated votes", "20 votes of people and 480 simulated votes".

    Args:
        counts: of each kind (`count`).
        noun: "votes" or "ratings".
    """
    parts = [f"{number} {_WORDS[name].format(noun)}" for name, number in counts.items() if number]
    return " and ".join(parts) or f"no {noun}"
