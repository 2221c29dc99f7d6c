"""What simulated listeners like. Fixed before anything was trained; docs/listeners.md gives the reasons."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from musicrl.audio.facts import NUMBERS
from musicrl.feedback.standards import MEASURES, Standards, measures

CRITERIA = (
    "key_clarity",
    "steadiness",
    "smoothness",
    "clean_floor",
    "clean_treble",
    "full_band",
    "no_silence",
    "no_clipping",
    "tempo_fit",
    "density_fit",
    "brightness_fit",
    "prompt_match",
)
"""What a listener weighs; each criterion is larger for a better clip and about 0 for a usual one."""

TECHNICAL = ("clean_floor", "clean_treble", "full_band", "no_silence", "no_clipping")
"""The criteria of acoustic quality alone."""

FITS = {"tempo_fit": "tempo", "density_fit": "density", "brightness_fit": "brightness"}
"""Criteria for which every listener has an ideal of their own, and the measure it lies on."""

USERS: Mapping[str, float] = {
    "key_clarity": 1.0,
    "steadiness": 1.0,
    "smoothness": 0.6,
    "clean_floor": 0.8,
    "clean_treble": 0.6,
    "full_band": 0.5,
    "no_silence": 1.0,
    "no_clipping": 0.5,
    "tempo_fit": 0.5,
    "density_fit": 0.6,
    "brightness_fit": 0.4,
    "prompt_match": 1.0,
}
"""Mean weights of users: appeal first."""

RATERS: Mapping[str, float] = {
    "key_clarity": 0.9,
    "steadiness": 0.8,
    "smoothness": 0.6,
    "clean_floor": 1.0,
    "clean_treble": 0.8,
    "full_band": 0.8,
    "no_silence": 1.0,
    "no_clipping": 0.8,
    "tempo_fit": 0.3,
    "density_fit": 0.4,
    "brightness_fit": 0.3,
    "prompt_match": 1.5,
}
"""Mean weights of raters, who were asked about the prompt and the quality too."""

_BETTER = 0.5
_MATCH_CENTRE, _MATCH_SCALE = 0.5, 0.25
_SILENCE_SCALE = 0.1
_CLIPPING_SCALE = 0.005


def criteria(
    facts: NDArray[np.float64], match: NDArray[np.float64], standards: Standards
) -> dict[str, NDArray[np.float64]]:
    """Return the criteria that are the same for every listener, each [clips].

    Args:
        facts: [clips, len(NUMBERS)], from `musicrl.audio.facts.as_array`.
        match: [clips] how well each clip matches its prompt, 0 to 1, by a judge that is no reward.
        standards: what is usual.
    """
    fact = dict(zip(NUMBERS, facts.T, strict=True))
    z = dict(zip(MEASURES, standards.standardise(measures(facts)).T, strict=True))
    raw = {
        "key_clarity": z["key_clarity"],
        "steadiness": z["steadiness"],
        "smoothness": -z["roughness"],
        # A clip can be worse than the usual without limit but only a little better: else dull clips, which have no
        # noise in the treble, would pass for clean.
        "clean_floor": np.minimum(-z["noise_floor"], _BETTER),
        "clean_treble": np.minimum(-z["high_noise"], _BETTER),
        "full_band": np.minimum(z["bandwidth"], _BETTER),
        # Real clips hardly have these defects, so their scale is set and not measured.
        "no_silence": -fact["silence_share"] / _SILENCE_SCALE,
        "no_clipping": -fact["clipped_share"] / _CLIPPING_SCALE,
        "prompt_match": (match - _MATCH_CENTRE) / _MATCH_SCALE,
    }
    # Linear near the usual, logarithmic far from it: twice the noise is not twice as bad once it is loud.
    return {name: np.arcsinh(value) for name, value in raw.items()}


def fits(
    facts: NDArray[np.float64], ideals: NDArray[np.float64], standards: Standards
) -> dict[str, NDArray[np.float64]]:
    """Return how near each clip comes to each listener's ideals, -1 (far) to 1 (on it), each [listeners, clips].

    Args:
        facts: [clips, len(NUMBERS)].
        ideals: [listeners, len(FITS)] in standard deviations from the usual.
        standards: what is usual.
    """
    z = dict(zip(MEASURES, standards.standardise(measures(facts)).T, strict=True))
    return {
        criterion: 2 * np.exp(-0.5 * (z[measure][None, :] - ideals[:, index, None]) ** 2) - 1
        for index, (criterion, measure) in enumerate(FITS.items())
    }
