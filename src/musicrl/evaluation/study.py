"""Side-by-side listening studies with simulated raters (MusicRL, section 4.3).

Every rater hears two clips of one prompt, rates both from 1 to 5, and the clip with the higher rating wins.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from musicrl.audio.facts import as_array, measure_many
from musicrl.evaluation.statistics import Comparison, compare
from musicrl.feedback.listeners import Listeners
from musicrl.progress import progress

_AT_ONCE = 16


class Judge(Protocol):
    """Tells how well clips match what their prompts name; `musicrl.tagger.Tagger` is one."""

    def match(self, audio: Tensor, attributes: Sequence[Mapping[str, Any]]) -> Tensor:
        """Return [B] from 0 to 1 for audio [B, N] and the attributes each prompt names."""
        ...


@dataclass(frozen=True)
class Heard:
    """What simulated listeners perceive of P clips.

    Attributes:
        facts: [P, F] measured facts, columns as in `musicrl.audio.facts.NUMBERS`.
        match: [P] prompt match by a judge that is no reward, 0 to 1.
    """

    facts: NDArray[np.float64]
    match: NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """Judgements of all pairs of models.

    Attributes:
        pairs: comparison by name, such as "R vs base"; the later model is named first.
        mean_ratings: mean rating of each model over all its judgements.
        judgements: one row a judgement: pair, prompt, rater, presented_first, rating_x, rating_y.
    """

    pairs: dict[str, Comparison]
    mean_ratings: dict[str, float]
    judgements: list[dict[str, Any]]


def hear(audio: Tensor, attributes: Sequence[Mapping[str, Any]], judge: Judge, sample_rate: int) -> Heard:
    """Measure clips as simulated listeners perceive them.

    Args:
        audio: [P, N] loudness-matched clips.
        attributes: what each clip's prompt names.
        judge: of the prompt match.
        sample_rate: Hz.
    """
    facts: list[NDArray[np.float64]] = []
    with progress("hear clips", len(audio)) as bar:
        for start in range(0, len(audio), _AT_ONCE):
            part = list(audio[start : start + _AT_ONCE].cpu().numpy())
            facts.append(as_array(measure_many(part, sample_rate)))
            bar.advance(len(part))
    return Heard(np.concatenate(facts), matches(audio, attributes, judge))


def matches(audio: Tensor, attributes: Sequence[Mapping[str, Any]], judge: Judge) -> NDArray[np.float64]:
    """Return how well clips [P, N] match what their prompts name, [P] from 0 to 1."""
    starts = range(0, len(audio), _AT_ONCE)
    parts = [judge.match(audio[start : start + _AT_ONCE], attributes[start : start + _AT_ONCE]) for start in starts]
    return np.concatenate([part.double().cpu().numpy() for part in parts])


def side_by_side(
    heard: Mapping[str, Heard], prompts: Sequence[str], raters: Listeners, *, raters_per_prompt: int, seed: int
) -> Study:
    """Let simulated raters compare every two models on every prompt.

    Args:
        heard: perception of the P clips of each model, in the order of `prompts`; the order of models names the pairs.
        prompts: P texts.
        raters: population that is drawn from, anew for each pair of models and prompt.
        raters_per_prompt: raters of each pair of clips.
        seed: of who rates what, in which order, and of the raters' errors.

    Returns:
        The study.
    """
    utility = {name: raters.utility(clips.facts, clips.match) for name, clips in heard.items()}
    pairs: dict[str, Comparison] = {}
    judgements: list[dict[str, Any]] = []
    ratings: dict[str, list[NDArray[np.int64]]] = {name: [] for name in heard}
    prompt = np.repeat(np.arange(len(prompts)), raters_per_prompt)
    for number, (y, x) in enumerate(itertools.combinations(heard, 2)):
        rng = np.random.default_rng([seed, number])
        who = np.concatenate([rng.permutation(len(raters))[:raters_per_prompt] for _ in prompts])
        first = np.where(rng.random(len(who)) < 0.5, "a", "b")
        rating_x, rating_y = raters.rate_side_by_side(who, utility[x][who, prompt], utility[y][who, prompt], rng, first)
        name = f"{x} vs {y}"
        pairs[name] = compare(rating_x.astype(float), rating_y.astype(float), who, prompt, seed=seed)
        ratings[x].append(rating_x)
        ratings[y].append(rating_y)
        judgements += [
            {
                "pair": name,
                "prompt": prompts[int(p)],
                "rater": int(w),
                "rater_kind": "simulated",
                "presented_first": x if f == "a" else y,
                "rating_x": int(rx),
                "rating_y": int(ry),
            }
            for p, w, f, rx, ry in zip(prompt, who, first, rating_x, rating_y, strict=True)
        ]
    means = {name: float(np.concatenate(given).mean()) for name, given in ratings.items() if given}
    return Study(pairs, means, judgements)
