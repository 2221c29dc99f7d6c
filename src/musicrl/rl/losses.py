"""What the policy maximises and what the value network minimises, per clip.

Shapes: **B** clips, **K** codebooks, **T** frames.

Units. Every term is a mean over the K·T codes of a clip, so learning rate and clipping do not depend on the clip's
length. Both terms of the policy's objective share that factor 1/(K·T), so α trades the reward of a clip against the KL
of the *whole clip*, summed over its codes, in nats. Where the full gradient of that trade is followed, the optimum is
π(clip) ∝ π_ref(clip) · exp(λ · reward), λ = (1 − α)/α; if rewards are normal with deviation 1 among the reference's
clips of a prompt, it lifts the reward by λ at a KL of λ²/2 nats a clip: 40 nats for α = 0.1, 180 for α = 0.05. The
gradient here follows the paper and leaves out how a code changes the KL of later ones, so this guides the choice of α
and guarantees nothing. MusicRL shows KL up to 60 and does not state its α.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from musicrl.errors import UserError


def policy_objective(logps: Tensor, advantages: Tensor, kl: Tensor, *, alpha: float, weights: Tensor) -> Tensor:
    """Return the KL-regularised REINFORCE objective of each clip, to be maximised (MusicRL, section 3.2).

    J = 1/(K·T) Σ_kt [(1 − α) · w_k · A_kt · log π(a_kt|s_kt) − α · KL_kt]

    The weights stand on the first term only: its estimate is the noisy one, and codebooks that are close to random add
    noise to it and little else. The KL is exact and counts in full on every codebook.

    Args:
        logps: [B, K, T] log-probabilities of the sampled codes, with gradient.
        advantages: [B] or [B, K, T], without gradient.
        kl: [B, K, T] exact KL to the reference (`kl.divergence`), with gradient.
        alpha: weight of the KL, in [0, 1].
        weights: [K] weight of each codebook, mean 1 (`codebook_weights`).

    Returns:
        [B].
    """
    if advantages.dim() == 1:
        advantages = advantages[:, None, None]
    gain = (weights[:, None] * advantages * logps).mean(dim=(1, 2))
    return (1.0 - alpha) * gain - alpha * kl.mean(dim=(1, 2))


def value_loss(values: Tensor, rewards: Tensor) -> Tensor:
    """Return the mean squared error between predicted and actual return of each clip (MusicRL, section 3.2).

    Args:
        values: [B, K, T] with gradient.
        rewards: [B].

    Returns:
        [B].
    """
    return (values - rewards[:, None, None]).square().mean(dim=(1, 2))


def codebook_weights(weights: Sequence[float], num_codebooks: int) -> Tensor:
    """Return the weights scaled to mean 1, so that they move emphasis and not the size of the step.

    Args:
        weights: one number >= 0 a codebook, or none for equal weights.
        num_codebooks: K.

    Returns:
        [K] float32.

    Raises:
        UserError: their number is not K, one is negative, or all are 0.
    """
    if not weights:
        return torch.ones(num_codebooks)
    given = torch.tensor(list(weights), dtype=torch.float32)
    if len(weights) != num_codebooks or bool((given < 0).any()) or not bool((given > 0).any()):
        raise UserError(
            f"codebook_weights = {list(weights)} do not fit a model of {num_codebooks} codebooks; "
            f"give {num_codebooks} numbers >= 0, one of them > 0, or none for equal weights"
        )
    return given / given.mean()
