from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from musicrl.feedback.records import Choice, NewClip, NewVote, Pair, Rater, Side
from musicrl.feedback.store import PreferenceStore

RATE = 8_000


def new_clip(seed: int, prompt: str = "a slow waltz", model: str = "base") -> NewClip:
    noise = np.random.default_rng(seed)
    return NewClip(
        prompt=prompt,
        model=model,
        checkpoint_sha256="0" * 64,
        seed=seed,
        audio=0.1 * noise.standard_normal(400),
        sample_rate=RATE,
        codes=noise.integers(0, 1024, (2, 3)),
        sampler={"temperature": 1.0, "top_k": None},
        lufs=-18.0,
        gain_db=1.5,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PreferenceStore]:
    with PreferenceStore(tmp_path / "store") as opened:
        opened.add_raters([Rater("ann", "person"), Rater("bob", "person"), Rater("sim", "simulated")])
        yield opened


@pytest.fixture
def make_pair(store: PreferenceStore) -> Callable[..., Pair]:
    seeds = itertools.count(step=2)

    def make(prompt: str = "a slow waltz", models: tuple[str, str] = ("base", "base")) -> Pair:
        seed = next(seeds)
        clips = store.add_clips([new_clip(seed + i, prompt, model) for i, model in enumerate(models)])
        return store.add_pair(clips[0].id, clips[1].id)

    return make


@pytest.fixture
def make_clip() -> Callable[..., NewClip]:
    return new_clip


@pytest.fixture
def make_vote() -> Callable[..., NewVote]:
    keys = itertools.count()

    def make(
        pair: Pair,
        rater: str = "ann",
        choice: Choice = "a",
        first: Side = "a",
        heard: float = 5.0,
    ) -> NewVote:
        return NewVote(pair.id, rater, choice, first, heard, heard, f"key-{next(keys)}")

    return make
