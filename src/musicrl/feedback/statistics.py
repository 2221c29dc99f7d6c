"""What the votes and ratings of a store say about its raters."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from musicrl.feedback.records import Rating, Vote


def summarise(votes: Iterable[Vote], ratings: Iterable[Rating]) -> dict[str, Any]:
    """Return counts, agreement between raters and position bias, as JSON values.

    Args:
        votes: current votes.
        ratings: current ratings.

    Returns:
        `votes`: how many, in all and by choice, rater kind and model (a vote counts once for each model in its pair).
        `wins`: times each model's clip was chosen over another model's.
        `agreement`, by rater kind: share of equal choices among raters who both preferred a clip of the same pair.
        `position_bias`, by rater kind: share of preferences that went to the clip presented first; 0.5 is none.
        `ratings`: how many, and their mean, by axis.
        Shares are {"share", "ci95", "n"}; the interval is clustered (by pair, by rater) and None below two clusters.
    """
    by_choice: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    by_model: Counter[str] = Counter()
    wins: Counter[str] = Counter()
    preferences: defaultdict[str, defaultdict[str, list[tuple[str, bool]]]] = defaultdict(lambda: defaultdict(list))
    firsts: defaultdict[str, defaultdict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    raters: defaultdict[str, set[str]] = defaultdict(set)
    for vote in votes:
        kind = vote.rater.kind
        by_choice[vote.choice] += 1
        by_kind[kind] += 1
        by_model.update({vote.clip_a.model, vote.clip_b.model})
        raters[kind].add(vote.rater.id)
        if vote.choice in ("a", "b"):
            preferences[kind][vote.pair_id].append((vote.rater.id, vote.choice == "a"))
            firsts[kind][vote.rater.id].append(vote.choice == vote.presented_first)
            if vote.clip_a.model != vote.clip_b.model:
                wins[(vote.clip_a if vote.choice == "a" else vote.clip_b).model] += 1
    values: defaultdict[str, list[int]] = defaultdict(list)
    for rating in ratings:
        values[rating.axis].append(rating.value)
        raters[rating.rater.kind].add(rating.rater.id)
    return {
        "votes": {
            "n": sum(by_choice.values()),
            "by_choice": dict(sorted(by_choice.items())),
            "by_rater_kind": dict(sorted(by_kind.items())),
            "by_model": dict(sorted(by_model.items())),
        },
        "wins": dict(sorted(wins.items())),
        "raters": {kind: len(ids) for kind, ids in sorted(raters.items())},
        "agreement": {
            kind: clustered_share([_agreements(votes) for votes in by.values()])
            for kind, by in sorted(preferences.items())
        },
        "position_bias": {kind: clustered_share(list(by.values())) for kind, by in sorted(firsts.items())},
        "ratings": {axis: {"n": len(of), "mean": sum(of) / len(of)} for axis, of in sorted(values.items())},
    }


def _agreements(preferences: Sequence[tuple[str, bool]]) -> list[bool]:
    return [one == other for (_, one), (_, other) in combinations(preferences, 2)]


def clustered_share(clusters: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the mean of values from 0 to 1 with its 95 % interval; the variance is the sandwich over clusters.

    Args:
        clusters: values by cluster (a pair, a rater, a prompt), which are not independent of each other.

    Returns:
        {"share", "ci95", "n"}; the interval is None below two clusters.
    """
    clusters = [cluster for cluster in clusters if cluster]
    n = sum(map(len, clusters))
    if n == 0:
        return {"share": None, "ci95": None, "n": 0}
    share = sum(map(sum, clusters)) / n
    if len(clusters) < 2:
        return {"share": share, "ci95": None, "n": n}
    spread = sum((sum(cluster) - share * len(cluster)) ** 2 for cluster in clusters)
    half = 1.96 * math.sqrt(spread * len(clusters) / (len(clusters) - 1)) / n
    return {"share": share, "ci95": [max(0.0, share - half), min(1.0, share + half)], "n": n}
