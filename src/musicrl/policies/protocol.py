"""The border between a token model and reinforcement learning.

Shapes: **B** batch, **G** samples per prompt, **K** codebooks, **T** frames, **V** codebook size, **N** audio samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampler:
    """How codes are drawn. Scores of a rollout are taken under the same distribution.

    Attributes:
        temperature: divides the logits; the paper uses 0.99 (MusicRL, section 3.1).
        top_k: keep the k most likely codes and renormalise; 0 keeps all.
    """

    temperature: float = 0.99
    top_k: int = 0


@dataclass(frozen=True)
class Rollout:
    """What a policy sampled.

    Attributes:
        prompts: B texts; the G samples of one prompt stand next to each other.
        codes: [B, K, T] int64.
        logps: [B, K, T] log-probability of each code under `sampler`, captured while sampling.
        sampler: the sampler really used.
        group_size: G.
    """

    prompts: tuple[str, ...]
    codes: Tensor
    logps: Tensor
    sampler: Sampler
    group_size: int


@dataclass(frozen=True)
class TokenScores:
    """Teacher-forced scores, aligned with the code they speak of (no shift is left to the reader).

    Attributes:
        logps: [B, K, T] log-probability of the given codes under the sampler asked for.
        logits: [B, K, T, V] logits of that same distribution (temperature and truncation applied).
    """

    logps: Tensor
    logits: Tensor


class ValueNetwork(Protocol):
    """Predicts the return from the state before each frame (MusicRL, section 3.2)."""

    def __call__(self, prompts: Sequence[str], codes: Tensor) -> Tensor:
        """Return values [B, K, T]; the entry at frame t may look only at codes of frames before t."""
        ...

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """Return what is trained."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> object:
        """Put back what `state_dict` returned."""
        ...


@runtime_checkable
class Policy(Protocol):
    """A text-to-music token model that can be finetuned."""

    sample_rate: int
    frame_rate: float
    num_codebooks: int
    codebook_size: int
    device: torch.device

    def sample(
        self,
        prompts: Sequence[str],
        *,
        group_size: int = 1,
        seconds: float,
        sampler: Sampler,
        generator: torch.Generator,
    ) -> Rollout:
        """Draw `group_size` clips for each prompt; no gradient. B = len(prompts) * group_size."""
        ...

    def score(self, prompts: Sequence[str], codes: Tensor, *, sampler: Sampler) -> TokenScores:
        """Score codes [B, K, T] with teacher forcing; differentiable.

        Under the same sampler it gives the log-probabilities that `sample` returned.
        """
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, `score` and `sample` are the reference model (adapter off, or frozen weights)."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, K, T] into audio [B, N] at `sample_rate`; no gradient, the same codes give the same audio."""
        ...

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters that finetuning changes."""
        ...

    def trainable_state(self) -> dict[str, Tensor]:
        """Tensors that finetuning changes (adapter, or all weights), by name; what a checkpoint keeps."""
        ...

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `trainable_state` returned."""
        ...

    def value_network(self) -> ValueNetwork:
        """Return a new value network initialised from this policy's base weights."""
        ...

    def save(self, path: Path, card: str) -> None:
        """Write the policy so that `--model PATH` loads it."""
        ...
