from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor

from musicrl.musiclm import MusicLM, Shape
from musicrl.rewards.backbone import MusicLMBackbone, Tune
from musicrl.rewards.preference import pooled

SHAPE = Shape(
    num_codebooks=2,
    codebook_size=8,
    width=16,
    layers=2,
    heads=2,
    depth_width=16,
    depth_layers=1,
    depth_heads=2,
    condition_levels=2,
    condition_size=4,
    condition_width=8,
    max_frames=6,
)


def condition(prompts: Sequence[str]) -> Tensor:
    return torch.tensor([[len(prompt) % 4, 1] for prompt in prompts])


def backbone(tune: Tune) -> MusicLMBackbone:
    torch.manual_seed(0)
    return MusicLMBackbone(MusicLM(SHAPE).trunk, condition, tune=tune, rank=3, base_sha256="b", autocast=False)


def codes(frames: int = 6) -> Tensor:
    return torch.randint(8, (2, 2, frames), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tune", get_args(Tune))
def test_states_are_those_of_the_trunk(tune: Tune):
    torch.manual_seed(0)
    trunk = MusicLM(SHAPE).trunk
    with torch.no_grad():
        found = backbone(tune).hidden(("a", "bc"), codes())
        torch.testing.assert_close(found, trunk.hidden(codes(), condition(("a", "bc"))))
    assert found.shape == (2, 6, 16)


def test_states_depend_on_the_prompt_and_not_on_later_codes():
    found = backbone("head").hidden(("a", "a"), codes())
    assert not torch.allclose(found, backbone("head").hidden(("bc", "bc"), codes()), atol=1e-5)
    changed = codes()
    changed[:, :, 4:] = 0
    torch.testing.assert_close(found[:, :4], backbone("head").hidden(("a", "a"), changed)[:, :4])


@pytest.mark.parametrize(("tune", "trained"), [("head", 0), ("lora", 2 * 2 * 4), ("full", 7 + 2 * 6 + 1)])
def test_what_is_trained_gets_a_gradient_and_comes_back(tune: Tune, trained: int):
    first = backbone(tune)
    names = first.trainable_state().keys()
    assert len(names) == len(first.trainable_parameters()) == trained
    if not trained:
        return
    pooled(first, ("a", "b"), list(codes())).square().sum().backward()
    with torch.no_grad():
        for parameter in first.trainable_parameters():
            assert parameter.grad is not None
            parameter += 0.1
    second = backbone(tune)
    before = second.hidden(("a", "b"), codes())
    second.load_trainable_state(first.trainable_state())
    after = second.hidden(("a", "b"), codes())
    torch.testing.assert_close(after, first.hidden(("a", "b"), codes()))
    assert not torch.allclose(after, before, atol=1e-3)
