from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from musicrl.feedback import listeners
from musicrl.feedback.records import NewClip, NewRating, NewVote, Pair
from musicrl.feedback.store import PreferenceStore

MakePair = Callable[..., Pair]
MakeVote = Callable[..., NewVote]


def test_statistics_of_no_votes(store: PreferenceStore) -> None:
    assert store.stats() == {
        "votes": {"n": 0, "by_choice": {}, "by_rater_kind": {}, "by_model": {}},
        "wins": {},
        "raters": {},
        "agreement": {},
        "position_bias": {},
        "ratings": {},
    }


def test_statistics(store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote) -> None:
    same, versus = make_pair(), make_pair(models=("base", "r"))
    store.vote_many(
        [
            make_vote(same, "ann", "tie"),
            make_vote(same, "ann", "a", first="a"),
            make_vote(same, "bob", "b", first="a"),
            make_vote(versus, "ann", "b", first="b"),
            make_vote(versus, "bob", "b", first="a"),
            make_vote(versus, "sim", "both_bad"),
        ]
    )
    store.rate_many([NewRating(same.clip_a, who, "quality", value, who) for who, value in (("ann", 2), ("sim", 5))])
    found = store.stats()
    assert found["votes"] == {
        "n": 5,
        "by_choice": {"a": 1, "b": 3, "both_bad": 1},
        "by_rater_kind": {"person": 4, "simulated": 1},
        "by_model": {"base": 5, "r": 3},
    }
    assert found["wins"] == {"r": 2}
    assert found["raters"] == {"person": 2, "simulated": 1}
    assert found["ratings"] == {"quality": {"n": 2, "mean": 3.5}}
    # They disagree on one pair and agree on the other.
    assert found["agreement"]["person"]["share"] == 0.5 and found["agreement"]["person"]["n"] == 2
    # ann took the first clip twice, bob never: deviations from a half are +1 and -1.
    bias = found["position_bias"]["person"]
    assert (bias["share"], bias["n"]) == (0.5, 4)
    half = 1.96 * math.sqrt((1**2 + 1**2) * 2 / 1) / 4
    assert bias["ci95"] == pytest.approx([max(0, 0.5 - half), min(1, 0.5 + half)])
    assert "simulated" not in found["agreement"]


def test_one_cluster_has_no_interval(store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote) -> None:
    store.vote_many([make_vote(make_pair(), "ann", "a"), make_vote(make_pair(), "ann", "a")])
    found = store.stats()
    assert found["position_bias"]["person"] == {"share": 1.0, "ci95": None, "n": 2}
    assert found["agreement"]["person"] == {"share": None, "ci95": None, "n": 0}


def test_planted_position_bias_is_found(store: PreferenceStore, make_clip: Callable[..., NewClip]) -> None:
    population = replace(listeners.users(20, 0), first_bias=np.full(20, 0.4))
    store.add_raters(population.raters())
    clips = store.add_clips([make_clip(seed) for seed in range(20)])
    pairs = store.add_pairs([(clips[i].id, clips[i + 1].id) for i in range(0, 20, 2)])
    rng = np.random.default_rng(0)
    votes: list[NewVote] = []
    for index, rater in enumerate(population.raters()):
        for pair in pairs:
            first = "a" if rng.random() < 0.5 else "b"
            choice = str(population.prefer(index, rng.normal(), rng.normal(), rng, first))
            votes.append(NewVote(pair.id, rater.id, choice, first, 1.0, 1.0, f"{rater.id}/{pair.id}"))  # type: ignore[arg-type]
    store.vote_many(votes)
    bias = store.stats()["position_bias"]["simulated"]
    # Half the answers are guesses, of which 0.9 go to the first clip: 0.5 + 2p * 0.4 in all.
    assert bias["ci95"][0] > 0.55 and bias["share"] == pytest.approx(0.5 + 0.553 * 0.4, abs=0.09)
