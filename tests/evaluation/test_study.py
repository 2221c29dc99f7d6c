"""A study finds a planted difference, finds none where there is none, and is the same for a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musicrl.audio.facts import NUMBERS, as_array, measure
from musicrl.evaluation.study import Heard, hear, side_by_side
from musicrl.feedback.listeners import raters

PROMPTS = [f"prompt {i}" for i in range(40)]


def chords() -> np.ndarray:
    """Four seconds of struck chords, near enough to music to stand in the middle of the scale."""
    time = np.arange(96_000) / 24_000
    partials = sum(np.sin(2 * np.pi * f * time) for f in (261.6, 329.6, 392.0, 1046.5, 2093.0, 4186.0))
    return (0.1 * np.exp(-4 * (time % 0.5)) * partials).astype(np.float32)


FACTS = as_array([measure(chords(), 24_000)])


def clips(match: float, seed: int) -> Heard:
    """Equal clips but for noise in their match."""
    facts = np.repeat(FACTS, len(PROMPTS), axis=0)
    spread = np.random.default_rng(seed).normal(0, 0.1, len(PROMPTS))
    return Heard(facts, np.clip(match + spread, 0, 1))


def test_planted_difference_is_found() -> None:
    study = side_by_side(
        {"base": clips(0.1, 1), "R": clips(0.9, 2)}, PROMPTS, raters(20, 0), raters_per_prompt=3, seed=0
    )
    result = study.pairs["R vs base"]
    assert result.n == 120
    assert result.ci95 is not None
    assert result.ci95[0] > 0.5
    assert study.mean_ratings["R"] > study.mean_ratings["base"]


def test_no_difference_is_not_found() -> None:
    study = side_by_side(
        {"base": clips(0.5, 3), "R": clips(0.5, 4)}, PROMPTS, raters(20, 0), raters_per_prompt=3, seed=0
    )
    interval = study.pairs["R vs base"].ci95
    assert interval is not None
    assert interval[0] < 0.5 < interval[1]


def test_every_pair_is_judged_by_different_raters_of_each_prompt() -> None:
    heard = {name: clips(0.5, i) for i, name in enumerate(("base", "R", "U", "RU"))}
    study = side_by_side(heard, PROMPTS, raters(5, 0), raters_per_prompt=3, seed=1)
    assert list(study.pairs) == ["R vs base", "U vs base", "RU vs base", "U vs R", "RU vs R", "RU vs U"]
    for name in study.pairs:
        for prompt in PROMPTS:
            who = [row["rater"] for row in study.judgements if row["pair"] == name and row["prompt"] == prompt]
            assert len(set(who)) == 3
    again = side_by_side(heard, PROMPTS, raters(5, 0), raters_per_prompt=3, seed=1)
    assert again.judgements == study.judgements


def test_hear_gives_each_clip_its_own_attributes() -> None:
    class Echo:
        def match(self, audio: Tensor, attributes: Sequence[Mapping[str, Any]]) -> Tensor:
            assert len(audio) == len(attributes)
            return torch.tensor([float(a["wanted"]) for a in attributes])

    audio = 0.1 * torch.randn(20, 24_000, generator=torch.Generator().manual_seed(0))
    heard = hear(audio, [{"wanted": i / 20} for i in range(20)], Echo(), 24_000)
    assert heard.facts.shape == (20, len(NUMBERS))
    assert np.allclose(heard.match, np.arange(20) / 20)
