"""Tiny random models."""

from __future__ import annotations

import pytest
import torch

from musicrl.musiclm.fine import FineShape, FineStage
from musicrl.musiclm.model import MusicLM, Shape

TINY = Shape(
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
    max_frames=24,
)


def tiny_model(seed: int = 0) -> MusicLM:
    torch.manual_seed(seed)
    model = MusicLM(TINY).eval()
    with torch.no_grad():
        # Weights of the usual size would give a nearly uniform distribution, on which every test passes.
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return model


@pytest.fixture
def model() -> MusicLM:
    return tiny_model()


@pytest.fixture
def condition() -> torch.Tensor:
    return torch.tensor([[0, 3, 7], [5, 1, -1], [-1, -1, -1]])


@pytest.fixture
def codes() -> torch.Tensor:
    return torch.randint(0, TINY.codebook_size, (3, 4, 11), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def fine_stage() -> FineStage:
    torch.manual_seed(0)
    shape = FineShape(width=32, layers=2, heads=2, max_frames=20, codebook_size=16, latent_width=6)
    stage = FineStage(shape).eval()
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return stage
