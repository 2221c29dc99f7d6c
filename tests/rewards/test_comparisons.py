from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrl.errors import UserError
from musicrl.rewards import kinds
from musicrl.rewards.comparisons import Comparison, agreement, ceiling, gather

A, B = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)


def test_records_become_comparisons():
    found = gather([{"prompt": "p", "codes_a": A.numpy(), "codes_b": [[1, 2], [3, 4]], "label": 0.5, "rater": "x"}])
    assert found[0].kind == "unknown"
    assert found[0].prompt == "p" and found[0].label == 0.5
    assert torch.equal(found[0].codes_a, A) and found[0].codes_b.tolist() == [[1, 2], [3, 4]]


def test_votes_keep_who_gave_them():
    vote = {"prompt": "p", "codes_a": A, "codes_b": B, "label": 1}
    found = gather([vote | {"rater_kind": kind} for kind in ("person", "simulated", "simulated", "cat")])
    counts = kinds.count(one.kind for one in found)
    assert counts == {"person": 1, "simulated": 2, "unknown": 1}
    assert kinds.sentence(counts, "votes") == "1 votes of people and 2 simulated votes and 1 votes of unknown raters"
    assert kinds.sentence({"person": 0, "simulated": 3}, "ratings") == "3 simulated ratings"


@pytest.mark.parametrize(
    "change", [{"label": 0.7}, {"label": "?"}, {"codes_a": [1, 2]}, {"codes_b": [[1, 2]]}, {"codes_a": None}]
)
def test_record_that_is_not_usable(change: dict[str, Any]):
    good = {"prompt": "p", "codes_a": A, "codes_b": B, "label": 1}
    with pytest.raises(UserError, match="preference 2"):
        gather([good, good | change])
    with pytest.raises(UserError, match="'prompt'"):
        gather([{key: value for key, value in good.items() if key != "prompt"}])


def test_agreement_counts_votes_on_the_same_clips_either_way_round():
    votes = [
        Comparison("p", A, B, 1.0),
        Comparison("p", B, A, 0.0),
        Comparison("p", A, B, 0.0),
        Comparison("p", A, B, 0.5),
        Comparison("q", A, B, 1.0),
    ]
    # Three decided votes on p make three pairs, of which one agrees.
    assert agreement(votes) == (pytest.approx(1 / 3), 3)
    assert agreement(votes[-2:]) is None


def test_ceiling_by_hand():
    assert ceiling(0.6) == pytest.approx(0.7236, abs=1e-4)
    assert ceiling(0.75) == pytest.approx(0.8536, abs=1e-4)
    assert ceiling(1.0) == 1.0
    assert ceiling(0.3) == 0.5


@given(st.floats(0.0, 0.5))
def test_ceiling_inverts_the_flip_rate(flip: float):
    assert ceiling(flip**2 + (1 - flip) ** 2) == pytest.approx(1 - flip, abs=1e-6)


def test_ceiling_is_what_the_consensus_reaches_on_simulated_votes():
    rng = np.random.default_rng(0)
    votes: list[Comparison] = []
    right = 0
    for i in range(1500):
        for _ in range(2):
            kept = rng.random() < 0.724
            right += kept
            votes.append(Comparison(str(i), A, B, 1.0 if kept else 0.0))
    agreed = agreement(votes)
    assert agreed is not None and agreed[1] == 1500
    assert ceiling(agreed[0]) == pytest.approx(right / 3000, abs=0.05)
