"""Figures logged at each step beside the rewards.

Shapes: **B** clips, **G** samples per prompt, **K** codebooks, **T** frames.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from musicrl.rewards.protocol import Generations

Distance = Callable[[Generations, int], Tensor]
"""`(clips, group_size) -> [P, G, G]` distances between the samples of each of P prompts."""


def hamming(batch: Generations, group_size: int) -> Tensor:
    """Return the share of codes in which two samples of a prompt differ.

    Args:
        batch: clips with codes [B, K, T].
        group_size: G.

    Returns:
        [P, G, G] in [0, 1], P = B / G.
    """
    if batch.codes is None:
        raise ValueError("clips without codes have no code distance")
    groups = batch.codes.reshape(-1, group_size, batch.codes[0].numel())
    rows = [(groups != groups[:, i : i + 1]).float().mean(dim=2) for i in range(group_size)]
    return torch.stack(rows, dim=1)


def diversity(distances: Tensor) -> float:
    """Return the mean distance between different samples of one prompt; 0 where a prompt has a single sample.

    Finetuning on a reward narrows what a prompt gives; MusicRL reports no such figure.

    Args:
        distances: [P, G, G], symmetric with a zero diagonal.
    """
    prompts, group_size, _ = distances.shape
    pairs = prompts * group_size * (group_size - 1)
    return float(distances.sum()) / pairs if pairs else 0.0


def explained_variance(predicted: Tensor, actual: Tensor) -> float:
    """Return 1 − Var(actual − predicted) / Var(actual): 1 is perfect, 0 no better than a constant.

    Args:
        predicted: [B] predicted returns.
        actual: [B] returns.

    Returns:
        The share, 0 where the returns do not vary.
    """
    spread = actual.var(unbiased=False)
    if float(spread) == 0.0:
        return 0.0
    return float(1.0 - (actual - predicted).var(unbiased=False) / spread)


class Phases:
    """Seconds spent in each phase of a step.

    Args:
        device: device whose queued work belongs to the phase that queued it.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device = device

    @contextmanager
    def __call__(self, name: str) -> Generator[None]:
        """Count the time inside the context under `name`."""
        started = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] += time.perf_counter() - started
