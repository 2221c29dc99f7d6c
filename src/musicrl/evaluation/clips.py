"""Held-out prompts and the clips that models make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from musicrl.audio import loudness
from musicrl.corpus.prompts import Prompt
from musicrl.errors import UserError
from musicrl.policies.protocol import Policy, Sampler
from musicrl.runs import progress

PROMPTS_A_BATCH = 8
DECODED_AT_ONCE = 16


@dataclass(frozen=True)
class Sampled:
    """Clips of P prompts, G of each; those of a prompt stand next to each other.

    Attributes:
        codes: [P·G, K, T].
        audio: [P·G, N] float32, loudness-matched.
        gain_db: [P·G] gain that brought each clip there.
    """

    codes: Tensor
    audio: Tensor
    gain_db: Tensor


def draw(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """Return `count` different prompts, the same for the same seed.

    Raises:
        UserError: there are fewer.
    """
    if count > len(prompts):
        raise UserError(f"{count} prompts were asked for, {len(prompts)} are there; ask for fewer")
    return [prompts[i] for i in np.random.default_rng(seed).permutation(len(prompts))[:count]]


def sample_clips(
    policy: Policy, prompts: Sequence[str], *, clips_per_prompt: int, seconds: float, temperature: float, seed: int
) -> Sampled:
    """Sample clips of each prompt and decode them.

    Args:
        policy: what samples.
        prompts: P texts.
        clips_per_prompt: G.
        seconds: length of a clip.
        temperature: of the sampling.
        seed: of the sampling; each batch of prompts has a generator of its own.
    """
    codes: list[Tensor] = []
    audio: list[Tensor] = []
    gains: list[Tensor] = []
    with progress("sample clips", len(prompts) * clips_per_prompt) as bar:
        for start in range(0, len(prompts), PROMPTS_A_BATCH):
            part = prompts[start : start + PROMPTS_A_BATCH]
            generator = torch.Generator(device=policy.device).manual_seed(seed * 1_000_003 + start)
            rollout = policy.sample(
                part,
                group_size=clips_per_prompt,
                seconds=seconds,
                sampler=Sampler(temperature=temperature),
                generator=generator,
            )
            codes.append(rollout.codes.cpu())
            for rows in rollout.codes.split(DECODED_AT_ONCE):
                matched, gain = loudness.match(policy.decode(rows), policy.sample_rate)
                audio.append(matched.cpu())
                gains.append(gain.cpu())
            bar.advance(len(rollout.prompts))
    return Sampled(torch.cat(codes), torch.cat(audio), torch.cat(gains))
