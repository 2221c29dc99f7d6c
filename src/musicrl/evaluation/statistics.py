"""Statistics of side-by-side listening studies.

A study asks several raters about several prompts, so its judgements are not independent: they cluster by rater and by
prompt. Intervals here resample both (the pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1(2)), because
resampling single judgements covers far less than it claims.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """Model X against model Y.

    Attributes:
        win: judgements in which X was rated higher.
        tie: judgements with equal ratings.
        loss: judgements in which Y was rated higher.
        rate: win / (win + loss), as the paper reports it (MusicRL, section 5.2); None without a decisive judgement.
        ci95: 95 % interval of `rate`, clustered by rater and prompt; None where `rate` is.
        n: judgements.
        raters: distinct raters.
        prompts: distinct prompts.
        wilcoxon_p: two-sided p of the Wilcoxon signed-rank test on the per-prompt mean rating differences; None if all
            are zero.
    """

    win: int
    tie: int
    loss: int
    rate: float | None
    ci95: tuple[float, float] | None
    n: int
    raters: int
    prompts: int
    wilcoxon_p: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return asdict(self)


def wilson(successes: float, n: float, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    Args:
        successes: number of successes, 0 ≤ successes ≤ n.
        n: number of independent trials, > 0.
        z: normal quantile; the default gives 95 %.

    Returns:
        Lower and upper bound in [0, 1].

    Raises:
        ValueError: n is not positive.
    """
    if n <= 0:
        raise ValueError("a proportion needs at least one trial")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_interval(
    success: NDArray[np.float64],
    weight: NDArray[np.float64],
    rater: NDArray[np.int64],
    prompt: NDArray[np.int64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Return a 95 % percentile interval of Σ success / Σ weight, clustered by rater and prompt.

    Each resample draws raters and prompts with replacement, independently; a judgement counts as often as its rater
    times its prompt was drawn. Where every resample agrees (no variation to resample) the Wilson interval with one
    trial a prompt is returned, since a bootstrap would claim certainty there.

    Args:
        success: [n] numerator of each judgement.
        weight: [n] denominator of each judgement; 0 leaves it out.
        rater: [n] rater index from 0.
        prompt: [n] prompt index from 0.
        seed: of the resampling.
        resamples: number of resamples.

    Returns:
        Lower and upper bound.
    """
    rng = np.random.default_rng(seed)
    raters, prompts = int(rater.max()) + 1, int(prompt.max()) + 1
    draws: list[float] = []
    for _ in range(resamples):
        count = (
            np.bincount(rng.integers(raters, size=raters), minlength=raters)[rater]
            * np.bincount(rng.integers(prompts, size=prompts), minlength=prompts)[prompt]
        )
        total = float((count * weight).sum())
        if total > 0:
            draws.append(float((count * success).sum()) / total)
    low, high = (float(q) for q in np.percentile(draws, [2.5, 97.5])) if draws else (0.0, 1.0)
    if low == high:
        decisive = len(np.unique(prompt[weight > 0]))
        low, high = wilson(low * decisive, decisive)
    return low, high


def compare(
    rating_x: NDArray[np.float64],
    rating_y: NDArray[np.float64],
    rater: NDArray[np.int64],
    prompt: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two models from the ratings both got side by side.

    Args:
        rating_x: [n] ratings of model X's clips.
        rating_y: [n] ratings of model Y's clips in the same judgements.
        rater: [n] rater of each judgement (any integer labels).
        prompt: [n] prompt of each judgement (any integer labels).
        seed: of the bootstrap.
        resamples: bootstrap resamples.

    Returns:
        The comparison of X against Y.

    Raises:
        ValueError: the arrays differ in length or are empty.
    """
    n = len(rating_x)
    if n == 0 or not (n == len(rating_y) == len(rater) == len(prompt)):
        raise ValueError("a comparison needs at least one judgement and columns of equal length")
    _, rater_index = np.unique(rater, return_inverse=True)
    _, prompt_index = np.unique(prompt, return_inverse=True)
    difference = rating_x - rating_y
    win, loss = int((difference > 0).sum()), int((difference < 0).sum())
    rate = win / (win + loss) if win + loss else None
    interval = None
    if rate is not None:
        decisive = (difference != 0).astype(np.float64)
        wins = (difference > 0).astype(np.float64)
        interval = clustered_interval(wins, decisive, rater_index, prompt_index, seed=seed, resamples=resamples)
    sums = np.bincount(prompt_index, weights=difference)
    per_prompt = sums / np.bincount(prompt_index)
    # scipy's result has fields that its type stubs do not know.
    p = float(cast(Any, stats.wilcoxon(per_prompt)).pvalue) if np.any(per_prompt != 0) else None
    return Comparison(
        win=win,
        tie=n - win - loss,
        loss=loss,
        rate=rate,
        ci95=interval,
        n=n,
        raters=int(rater_index.max()) + 1,
        prompts=int(prompt_index.max()) + 1,
        wilcoxon_p=p,
    )


def mean_interval(
    values: NDArray[np.float64], cluster: NDArray[np.int64], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Return a mean and its 95 % bootstrap interval, resampling clusters.

    Args:
        values: [n] measurements.
        cluster: [n] cluster of each (a prompt, a clip).
        seed: of the bootstrap.
        resamples: bootstrap resamples.

    Returns:
        Mean, lower and upper bound.
    """
    _, index = np.unique(cluster, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    rng = np.random.default_rng(seed)
    pick = rng.integers(len(sums), size=(resamples, len(sums)))
    means = sums[pick].sum(1) / counts[pick].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
