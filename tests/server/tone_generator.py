"""A test double of a model: plucked tones whose pitch depends on the seed. It says nothing about real generation.

Words in the prompt steer it: "silent" and "broken" make clips nobody may hear, "crash" raises, and "wait" hangs until
the file named by TONES_GATE exists.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musicrl.server.clips import GeneratedClip, Generator

MODELS = ("secret-model-one", "secret-model-two")
CHECKPOINT = "c0ffee" * 10 + "abcd"
SAMPLE_RATE = 24_000


def generator(*models: str) -> Generator:
    names = models or MODELS

    def generate(prompt: str, seconds: float, seeds: Sequence[int]) -> list[GeneratedClip]:
        if "crash" in prompt:
            raise RuntimeError(f"{names[0]} has no idea")
        while "wait" in prompt and not Path(os.environ["TONES_GATE"]).exists():
            time.sleep(0.02)
        return [_clip(names[i % len(names)], prompt, seconds, seed, i) for i, seed in enumerate(seeds)]

    return generate


def _clip(model: str, prompt: str, seconds: float, seed: int, index: int) -> GeneratedClip:
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    audio = np.zeros_like(time_s)
    for onset in np.arange(0.0, seconds, 0.25):
        pitch = 220.0 * 2 ** (rng.integers(0, 24) / 12)
        local = np.maximum(time_s - onset, 0.0)
        audio += np.sin(2 * np.pi * pitch * local) * np.exp(-6 * local) * (time_s >= onset)
    # The second clip is 20 dB quieter, to be matched.
    audio *= (0.2, 0.02)[index % 2]
    if "silent" in prompt and index == 1:
        audio[:] = 0.0
    if "broken" in prompt and index == 0:
        audio[100] = np.nan
    codes = rng.integers(0, 1024, size=(4, round(25 * seconds)))
    return GeneratedClip(audio, SAMPLE_RATE, codes, model, CHECKPOINT, seed, {"temperature": 0.99})
