"""The token model and the fine stage that ship, on twelve held-out clips of 6 s and on held-out prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from musicrl import codec, mulan, musiclm, policies, semantic, tagger
from musicrl.audio import io
from musicrl.corpus import prompts
from musicrl.corpus.dataset import Corpus
from musicrl.evaluation.clips import draw, sample_clips
from musicrl.evaluation.study import matches
from musicrl.musiclm import fine, layout
from musicrl.musiclm.fine import latents
from musicrl.musiclm.train import nats

FOLDER = Path(__file__).parents[1] / "data" / "clips"


@pytest.fixture(scope="module")
def clips() -> tuple[Tensor, Tensor]:
    """Semantic codes [12, 2, 150] and codec codes [12, 12, 300]."""
    audio = torch.stack([io.read(FOLDER / clip.file_name) for clip in Corpus(FOLDER).rows()])
    return semantic.load().encode(audio), codec.load().encode(audio)


def test_a_clip_is_likelier_under_its_own_caption(clips: tuple[Tensor, Tensor]) -> None:
    model, joint = musiclm.load(), mulan.load()
    # The first second: later on, the frames before tell what is played as well as any caption.
    codes = layout.join(clips[0], clips[1][:, :1])[..., :25]
    said = joint.tokens(joint.embed_text([clip.text for clip in Corpus(FOLDER).rows()]))
    with torch.no_grad():
        own, *others = (nats(model, codes, said.roll(k, 0), 1.0, torch.Generator()) for k in range(12))
    assert float(own.mean()) < float(torch.stack(others).mean()) - 0.03
    # The first codes of a frame, which carry the music, are far from random (ln 1024 = 6.93).
    assert float(own[:2].mean()) < 4.0


def test_fine_stage_comes_closer_to_the_sound_than_the_levels_it_is_given(clips: tuple[Tensor, Tensor]) -> None:
    stage, codebooks = fine.load(), codec.load().quantizer.codebooks
    with torch.no_grad():
        target = latents(codebooks, clips[1])
        given = latents(codebooks, clips[1][:, :1])
        filled = stage.fill(clips[0], clips[1][:, :1])
    assert (filled - target).square().mean() < 0.8 * (given - target).square().mean()


@pytest.mark.slow
def test_what_it_makes_follows_its_prompt() -> None:
    chosen = draw(prompts.load("test"), 32, seed=0)
    made = sample_clips(
        policies.load("base"),
        [prompt.text for prompt in chosen],
        clips_per_prompt=1,
        seconds=5.0,
        temperature=0.99,
        seed=0,
    )
    attributes = [prompt.attributes for prompt in chosen]
    own = matches(made.audio, attributes, tagger.load())
    # Shuffled by more than one place, since neighbours may share a style.
    others = [matches(made.audio, attributes[k:] + attributes[:k], tagger.load()) for k in range(1, 9)]
    assert own.mean() > np.mean(others) + 0.04
