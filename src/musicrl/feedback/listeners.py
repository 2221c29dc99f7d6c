"""Simulated listeners: they stand in for people in rehearsals and tests, and are labelled as simulated everywhere.

A listener has a hidden utility over measured facts (`musicrl.feedback.taste`) and answers with known unreliability.
Nothing that trains may read a utility; models learn from answers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from musicrl.audio.facts import Facts, as_array
from musicrl.errors import UserError
from musicrl.feedback import standards as usual
from musicrl.feedback import taste
from musicrl.feedback.records import Rater

Floats = NDArray[np.float64]

JUST_NOTICEABLE = 0.1
"""Two clips whose utilities differ by less are a tie."""

_ROUNDING = 1e-3  # a probability added up in single precision may miss 1 by a little
_UNIT = 1.5  # weights of length 1 times this make utilities vary by about 1 between real clips
_TASTE_SPREAD = 0.35  # standard deviation of a listener's weight, relative to the population's mean weight
_IDEAL_SPREAD = 0.7  # standard deviation of ideals, in standard deviations between real clips
_LAPSES = (0.0, 0.05)  # range of the share of answers given without attention
_GUESS_SPREAD = 0.3  # half range of a listener's guess rate, relative to the population's
_FIRST_BIAS, _FIRST_BIAS_SPREAD = 0.08, 0.05  # how far above one half a guess goes to the clip heard first
_OFFSET_SPREAD = 0.4  # standard deviation of how generous listeners are on the scale
_SESSION_SPREAD = 0.5  # standard deviation of where on the scale a side-by-side comparison is put
_CUTS = np.array([-2.5, -1.5, -0.5, 0.5])  # a usual real clip (utility 0) is rated 4


def flip_rate(agreement: float) -> float:
    """Return how often each of two listeners must err for them to agree as often as given.

    If both know the better clip and each names the other one with probability p, independently, they agree with
    probability p² + (1 - p)². 60 % (MusicRL, section 3.3) needs p = 0.276; 75 % (CMI-Pref) needs p = 0.146.

    Raises:
        UserError: the agreement is not above one half and at most 1.
    """
    if not 0.5 < agreement <= 1:
        raise UserError(f"agreement {agreement} is out of range: two listeners agree on more than 0.5 and at most 1")
    return (1 - math.sqrt(2 * agreement - 1)) / 2


@dataclass(frozen=True)
class Listeners:
    """A population of n simulated listeners.

    Attributes:
        name: of the population; part of every listener's id.
        seed: what made it.
        agreement: the dial: how often two listeners of one taste agree where both have a preference.
        weights: [n, len(CRITERIA)], each row of Euclidean length 1.
        ideals: [n, len(FITS)] ideals of tempo, density and brightness, in standard deviations from the usual.
        guesses: [n] share of answers that are guesses where there is a preference; twice the flip rate.
        lapses: [n] share of guesses given without attention, even where there is no difference; part of `guesses`.
        first_bias: [n] how far above one half a guess goes to the clip that came first.
        offsets: [n] generosity on the scale from 1 to 5, in units of utility.
    """

    name: str
    seed: int
    agreement: float
    weights: Floats
    ideals: Floats
    guesses: Floats
    lapses: Floats
    first_bias: Floats
    offsets: Floats

    def __len__(self) -> int:
        return len(self.weights)

    def raters(self) -> list[Rater]:
        """Return the listeners as the preference store knows them; the index in the list is the listener's."""
        return [Rater(f"simulated/{self.name}/{self.seed}/{index}", "simulated") for index in range(len(self))]

    def utility(self, facts: Sequence[Facts] | Floats, match: ArrayLike) -> Floats:
        """Return how much each listener likes each clip; 0 is about a usual real clip that half matches its prompt.

        Args:
            facts: of the clips, or as `musicrl.audio.facts.as_array` gives them.
            match: [clips] how well each clip matches its prompt, 0 to 1, by a judge that is no reward.

        Returns:
            [listeners, clips].

        Raises:
            UserError: there is not one match from 0 to 1 for every clip.
        """
        table, matches = _table(facts), np.asarray(match, dtype=np.float64)
        if matches.shape != (len(table),) or not (np.abs(matches - 0.5) <= 0.5 + _ROUNDING).all():
            raise UserError(
                f"{list(matches.shape)} prompt matches for {len(table)} clips: give each clip one from 0 to 1"
            )
        return self._weigh(table, matches, taste.CRITERIA)

    def quality(self, facts: Sequence[Facts] | Floats) -> Floats:
        """Return how each listener judges the acoustic quality of each clip alone, [listeners, clips]."""
        table = _table(facts)
        return self._weigh(table, np.full(len(table), 0.5), taste.TECHNICAL)

    def prefer(
        self,
        listener: ArrayLike,
        utility_a: ArrayLike,
        utility_b: ArrayLike,
        rng: np.random.Generator,
        presented_first: ArrayLike,
    ) -> NDArray[np.str_]:
        """Return the choices "a", "b" or "tie" of listeners who heard two clips each. The arguments broadcast.

        Args:
            listener: indices.
            utility_a: the listener's utility of clip a.
            utility_b: of clip b.
            rng: draws the errors.
            presented_first: "a" or "b".
        """
        difference = self._perceived(listener, utility_a, utility_b, rng, presented_first)
        return np.where(difference == 0, "tie", np.where(difference > 0, "a", "b"))

    def rate(self, listener: ArrayLike, utility: ArrayLike, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return ratings from 1 to 5 of clips heard one at a time. The arguments broadcast.

        The noise has standard deviation tan(πp): for normal utilities of unit variance, the order of two ratings before
        rounding is then wrong with the flip rate p.

        Args:
            listener: indices.
            utility: the listener's `utility` or `quality` of the clip.
            rng: draws the noise.
        """
        chosen = np.asarray(listener)
        heard = np.asarray(utility, dtype=np.float64) + self.offsets[chosen]
        noise = np.tan(np.pi * self.guesses[chosen] / 2)
        return _on_scale(heard + noise * rng.standard_normal(heard.shape))

    def rate_side_by_side(
        self,
        listener: ArrayLike,
        utility_a: ArrayLike,
        utility_b: ArrayLike,
        rng: np.random.Generator,
        presented_first: ArrayLike,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ratings from 1 to 5 of clips a and b by listeners who heard them next to each other.

        They err as in `prefer`, so ratings that differ point the wrong way with the flip rate. Arguments as `prefer`.
        """
        difference = self._perceived(listener, utility_a, utility_b, rng, presented_first)
        middle = (np.asarray(utility_a) + np.asarray(utility_b)) / 2 + self.offsets[np.asarray(listener)]
        # Where on the scale a comparison is put varies; otherwise small differences would always, or never, be seen.
        middle = middle + _SESSION_SPREAD * rng.standard_normal(difference.shape)
        return _on_scale(middle + difference / 2), _on_scale(middle - difference / 2)

    def _weigh(self, facts: Floats, match: Floats, names: Sequence[str]) -> Floats:
        common = taste.criteria(facts, match, usual.load())
        personal = taste.fits(facts, self.ideals, usual.load())
        weights = self.weights[:, [taste.CRITERIA.index(name) for name in names]]
        weights = _UNIT * weights / np.linalg.norm(weights, axis=1, keepdims=True)
        columns = [personal[name] if name in personal else common[name][None, :] for name in names]
        return sum((weights[:, [i]] * column for i, column in enumerate(columns)), np.zeros((len(self), len(facts))))

    def _perceived(
        self,
        listener: ArrayLike,
        utility_a: ArrayLike,
        utility_b: ArrayLike,
        rng: np.random.Generator,
        presented_first: ArrayLike,
    ) -> Floats:
        """Return the difference a - b a listener acts on: the true one, with its sign turned by a guess, or 0."""
        chosen, a, b, a_first = np.broadcast_arrays(
            np.asarray(listener),
            np.asarray(utility_a, dtype=np.float64),
            np.asarray(utility_b, dtype=np.float64),
            np.asarray(presented_first) == "a",
        )
        difference = a - b
        attentive = rng.random(difference.shape) >= self.lapses[chosen]
        # Lapses are guesses too: the rest is what brings all guesses to their share.
        confused = rng.random(difference.shape) < (self.guesses - self.lapses)[chosen] / (1 - self.lapses[chosen])
        noticed = np.abs(difference) >= JUST_NOTICEABLE
        to_first = rng.random(difference.shape) < 0.5 + self.first_bias[chosen]
        size = np.maximum(np.abs(difference), JUST_NOTICEABLE)
        guess = np.where(to_first == a_first, size, -size)
        honest = np.where(noticed, np.where(confused, guess, difference), 0.0)
        return np.where(attentive, honest, guess)


def users(n: int, seed: int, agreement: float = 0.60) -> Listeners:
    """Return simulated users: those whose votes models are trained on.

    Args:
        n: how many.
        seed: of the draw.
        agreement: the dial; the default is what MusicRL reports for its users (section 3.3).

    Raises:
        UserError: `n` is not positive or the agreement out of range.
    """
    return _population("users", taste.USERS, n, seed, agreement)


def raters(n: int, seed: int, agreement: float = 0.75) -> Listeners:
    """Return simulated raters: those who judge the models at the end. Other tastes, other draws than `users`.

    Args:
        n: how many.
        seed: of the draw.
        agreement: the dial; the default is what CMI-Pref reports for its experts.

    Raises:
        UserError: `n` is not positive or the agreement out of range.
    """
    return _population("raters", taste.RATERS, n, seed, agreement)


def realised_agreement(
    listeners: Listeners, utility: Floats, rng: np.random.Generator, comparisons: int = 20_000
) -> dict[str, Any]:
    """Measure how often two different listeners agree on the same two clips, each in an order of their own.

    Args:
        listeners: at least two.
        utility: [listeners, clips] of at least two clips.
        rng: draws listeners, clips, orders and answers.
        comparisons: how many.

    Returns:
        `agreement`: share of equal answers where both listeners have a preference; `n` of those;
        `same_taste`: share of these comparisons in which both truly like the same clip better;
        `agreement_given_same_taste`: what the dial sets; `dial`: its value;
        `ties`: share of answers without preference;
        `first`: share of preferences that went to the clip presented first.
    """
    one, other = _two_of(len(listeners), comparisons, rng)
    a, b = _two_of(utility.shape[1], comparisons, rng)
    answers: list[NDArray[np.str_]] = []
    firsts: list[NDArray[np.str_]] = []
    for who in (one, other):
        first = np.where(rng.random(comparisons) < 0.5, "a", "b")
        answers.append(listeners.prefer(who, utility[who, a], utility[who, b], rng, first))
        firsts.append(first)
    decided = (answers[0] != "tie") & (answers[1] != "tie")
    equal = (answers[0] == answers[1])[decided]
    same = (np.sign(utility[one, a] - utility[one, b]) == np.sign(utility[other, a] - utility[other, b]))[decided]
    answer, first = np.concatenate(answers), np.concatenate(firsts)
    return {
        "dial": listeners.agreement,
        "agreement": float(equal.mean()),
        "agreement_given_same_taste": float(equal[same].mean()),
        "same_taste": float(same.mean()),
        "n": int(decided.sum()),
        "ties": float((answer == "tie").mean()),
        "first": float((answer == first)[answer != "tie"].mean()),
        "kind": "simulated",
    }


def _population(name: str, mean: Mapping[str, float], n: int, seed: int, agreement: float) -> Listeners:
    if n < 1:
        raise UserError(f"cannot make {n} simulated {name}: give at least 1")
    rng = np.random.default_rng([seed, *name.encode()])
    centre = np.array([mean[criterion] for criterion in taste.CRITERIA])
    weights = centre * (1 + _TASTE_SPREAD * rng.standard_normal((n, centre.size)))
    # Evenly spread, so that the mean over the population is the dial's flip rate whatever the seed.
    spread = rng.permutation((np.arange(n) + 0.5) / n * 2 - 1)
    guesses = 2 * flip_rate(agreement) * (1 + _GUESS_SPREAD * spread)
    return Listeners(
        name=name,
        seed=seed,
        agreement=agreement,
        weights=weights / np.linalg.norm(weights, axis=1, keepdims=True),
        ideals=_IDEAL_SPREAD * rng.standard_normal((n, len(taste.FITS))),
        guesses=guesses,
        lapses=np.minimum(rng.uniform(*_LAPSES, n), guesses),
        first_bias=np.clip(_FIRST_BIAS + _FIRST_BIAS_SPREAD * rng.standard_normal(n), -0.5, 0.5),
        offsets=_OFFSET_SPREAD * rng.standard_normal(n),
    )


def _two_of(n: int, size: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = rng.integers(0, n, size)
    return first, (first + rng.integers(1, n, size)) % n


def _on_scale(latent: Floats) -> NDArray[np.int64]:
    return 1 + (latent[..., None] > _CUTS).sum(axis=-1)


def _table(facts: Sequence[Facts] | Floats) -> Floats:
    return facts if isinstance(facts, np.ndarray) else as_array(facts)
