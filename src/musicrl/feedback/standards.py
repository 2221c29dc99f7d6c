"""What is usual in real music: the scale on which simulated listeners judge what they hear."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicrl.audio.facts import NUMBERS, as_array, measure_many
from musicrl.errors import UserError

_FILE = Path(__file__).with_name("standards.json")
CLIP_SECONDS = 5.0

# Scales below these would make a listener hear differences nobody does.
_SMALLEST_SCALE = {
    "key_clarity": 0.05,
    "steadiness": 0.05,
    "roughness": 0.1,
    "noise_floor": 3.0,
    "high_noise": 0.2,
    "bandwidth": 0.2,
    "tempo": 0.2,
    "density": 0.2,
    "brightness": 0.2,
}
MEASURES = tuple(_SMALLEST_SCALE)
"""Names of the columns of `measures`."""


@dataclass(frozen=True)
class Standards:
    """Median and robust standard deviation (1.4826 × median absolute deviation) of every measure in real clips.

    `source`, `clips` and `seed` say where they come from.
    """

    source: str
    clips: int
    seed: int
    centre: Mapping[str, float]
    scale: Mapping[str, float]

    def standardise(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `measures` [clips, len(MEASURES)] in standard deviations from the median."""
        centre = np.array([self.centre[name] for name in MEASURES])
        scale = np.array([self.scale[name] for name in MEASURES])
        return (values - centre) / scale


def measures(facts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return facts [clips, len(NUMBERS)] as the quantities listeners judge, [clips, len(MEASURES)].

    Tempo, density, brightness and bandwidth are in octaves, shares and roughness in logarithms, where equal steps sound
    equal.
    """
    fact = dict(zip(NUMBERS, facts.T, strict=True))
    columns = {
        "key_clarity": fact["key_clarity"],
        "steadiness": fact["steadiness"],
        "roughness": np.log(fact["roughness"] + 0.01),
        "noise_floor": fact["noise_floor_db"],
        "high_noise": np.log10(fact["high_noise_share"] + 1e-4),
        "bandwidth": np.log2(np.maximum(fact["rolloff_hz"], 50)),
        "tempo": np.log2(np.maximum(fact["tempo"], 30)),
        "density": np.log2(fact["onset_rate"] + 0.25),
        "brightness": np.log2(np.maximum(fact["centroid_hz"], 50)),
    }
    return np.stack([columns[name] for name in MEASURES], axis=1)


@lru_cache(maxsize=1)
def load() -> Standards:
    """Return the standards that come with the package."""
    return Standards(**json.loads(_FILE.read_text(encoding="utf-8")))


def compute(clips: Sequence[NDArray[np.floating[Any]]], sample_rate: int, source: str, seed: int) -> Standards:
    """Return the standards of real clips.

    Args:
        clips: mono clips [N] of `CLIP_SECONDS`.
        sample_rate: Hz.
        source: what the clips are, for the record.
        seed: seed they were drawn with, for the record.

    Raises:
        UserError: there are fewer than 20 clips, or one cannot be measured.
    """
    if len(clips) < 20:
        raise UserError(f"cannot tell what is usual from {len(clips)} clips; give at least 20")
    values = measures(as_array(measure_many(clips, sample_rate)))
    centre = np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(values - centre), axis=0)
    scale = np.maximum(spread, list(_SMALLEST_SCALE.values()))
    return Standards(
        source=source,
        clips=len(clips),
        seed=seed,
        centre={name: round(float(value), 4) for name, value in zip(MEASURES, centre, strict=True)},
        scale={name: round(float(value), 4) for name, value in zip(MEASURES, scale, strict=True)},
    )


def from_corpus(corpus: Path | str, clips: int = 500, seed: int = 0) -> Standards:
    """Return the standards of random validation clips of a corpus, which no model has been trained on.

    Args:
        corpus: folder that `musicrl corpus build` made.
        clips: how many crops of `CLIP_SECONDS` to draw.
        seed: which ones.

    Raises:
        UserError: the folder is not a corpus, or has no validation clips.
    """
    from musicrl.corpus.dataset import SAMPLE_RATE, Corpus

    audio, _ = Corpus(Path(corpus)).crops("validation", CLIP_SECONDS, clips, np.random.default_rng(seed))
    drawn = [np.asarray(clip, dtype=np.float32) for clip in audio]
    return compute(drawn, SAMPLE_RATE, "validation clips of the rendered tune corpus", seed)


def write(standards: Standards, path: Path = _FILE) -> None:
    """Write standards as JSON; the default is the file inside the package that `load` reads."""
    path.write_text(json.dumps(asdict(standards), indent=2) + "\n", encoding="utf-8")
