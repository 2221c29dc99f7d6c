"""Exact divergence and entropy of the next-code distributions.

Shapes: **B** clips, **K** codebooks, **T** frames, **V** codebook size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def divergence(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Return KL(π‖π_ref) at each step, summed over the whole codebook.

    MusicRL (section 3.2) prints this term as the plain sum over codes of log(π/π_ref). That sum lacks the weight π, is
    no divergence, and is ruled by codes that neither model would ever draw. The exact KL is used here:
    Σ_v π(v) log(π(v) / π_ref(v)).

    The gradient goes through the distribution of each step and takes the prefix as given, as in the paper.

    Args:
        log_probs: [B, K, T, V] of the policy, normalised; -inf where truncation removed a code.
        ref_log_probs: [B, K, T, V] of the reference under the same sampler.

    Returns:
        [B, K, T] nats, at least 0 up to rounding; inf where the policy can draw what the reference cannot.
    """
    # 0 · (-inf - -inf) is NaN: codes the policy cannot draw contribute nothing.
    difference = torch.where(log_probs.isneginf(), 0.0, log_probs - ref_log_probs)
    return (log_probs.exp() * difference).sum(dim=-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy of each step's distribution.

    Args:
        log_probs: [B, K, T, V], normalised; -inf where truncation removed a code.

    Returns:
        [B, K, T] nats.
    """
    return torch.special.entr(log_probs.exp()).sum(dim=-1)
