"""A tiny random policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from musicrl.musiclm.model import MusicLM, Shape
from musicrl.policies.musiclm import MusicLMPolicy

MakePolicy = Callable[..., MusicLMPolicy]


def tiny_model() -> MusicLM:
    torch.manual_seed(0)
    shape = Shape(
        num_codebooks=4,
        codebook_size=16,
        width=32,
        layers=2,
        heads=2,
        depth_width=24,
        depth_layers=2,
        depth_heads=2,
        condition_levels=3,
        condition_size=8,
        condition_width=10,
        max_frames=20,
    )
    model = MusicLM(shape).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    # What is saved is bf16; a model that is bf16 already comes back as it was.
    return model.bfloat16().float()


def tokens(prompts: Sequence[str]) -> Tensor:
    return torch.tensor([[len(p) % 8, sum(map(ord, p)) % 8, ord(p[0]) % 8] for p in prompts])


def sound(codes: Tensor) -> Tensor:
    tone = torch.sin(torch.arange(960) * 0.1)
    return ((codes.sum(1)[..., None] + 1) * tone / 64).flatten(1)


@pytest.fixture
def make_policy() -> MakePolicy:
    def make(model: MusicLM | None = None, **options: object) -> MusicLMPolicy:
        given: dict[str, object] = {"trained_on": {"mulan": "m" * 64}, "base": "b" * 64, "rank": 4, **options}
        return MusicLMPolicy(model or tiny_model(), tokens, sound, **given)  # type: ignore[arg-type]

    return make


@pytest.fixture
def policy(make_policy: MakePolicy) -> MusicLMPolicy:
    return make_policy()


@pytest.fixture
def disturb() -> Callable[[MusicLMPolicy], None]:
    """Change what finetuning changes."""

    def change(policy: MusicLMPolicy) -> None:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in policy.trainable_parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)

    return change
