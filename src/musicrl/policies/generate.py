"""A prompt to clips: `musicrl generate`."""

from __future__ import annotations

import hashlib
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from musicrl import devices, files, policies
from musicrl.audio import io, loudness
from musicrl.config import LARGEST_SEED
from musicrl.errors import UserError
from musicrl.policies.musiclm import MusicLMPolicy
from musicrl.policies.protocol import Sampler

LONGEST_PROMPT = 2_000
LONGEST_SECONDS = 60.0
MOST = 64
"""Clips sampled at once."""


def generate(
    policy: MusicLMPolicy,
    prompt: str,
    n: int,
    seconds: float,
    seed: int,
    *,
    sampler: Sampler | None = None,
) -> Tensor:
    """Make clips for a prompt.

    Beyond the length the model was trained on, the second half of what is there becomes the beginning of a new piece
    that the model continues, as in MusicLM (Agostinelli et al. 2023, section 5), so no position is new to it.

    Args:
        policy: the model.
        prompt: what to play.
        n: number of clips.
        seconds: length of each.
        seed: the same seed gives the same clips.
        sampler: how codes are drawn; temperature 0.99 if None.

    Returns:
        [n, N] float32 at the policy's sample rate, matched in loudness to -18 LUFS.

    Raises:
        UserError: the prompt is empty or too long, or a number is out of range.
    """
    check(prompt, n, seconds, seed)
    generator = torch.Generator(policy.device).manual_seed(seed)
    frames = math.ceil(seconds * policy.frame_rate - 1e-6)
    clips: list[Tensor] = []
    for first in range(0, n, MOST):
        codes = _codes(policy, prompt, min(MOST, n - first), frames, sampler or Sampler(), generator)
        clips += [policy.decode(part) for part in codes.split(8)]
    audio = torch.cat(clips)[:, : round(seconds * policy.sample_rate)]
    return loudness.match(audio, policy.sample_rate)[0]


def check(prompt: str, n: int, seconds: float, seed: int) -> None:
    """Check what a user asks for.

    Raises:
        UserError: the prompt is empty or too long, or a number is out of range.
    """
    if not prompt.strip():
        raise UserError("the prompt is empty; say what to play, for example 'a slow sad waltz on the accordion'")
    if len(prompt) > LONGEST_PROMPT:
        raise UserError(f"the prompt has {len(prompt)} characters; give at most {LONGEST_PROMPT}")
    if n < 1:
        raise UserError(f"{n} clips were asked for; give at least 1")
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"the seed is {seed}; give 0 to {LARGEST_SEED}")
    # Written so that NaN fails too.
    if not 0 < seconds <= LONGEST_SECONDS:
        raise UserError(f"a clip of {seconds:g} s was asked for; give more than 0 and at most {LONGEST_SECONDS:g} s")


def _codes(
    policy: MusicLMPolicy, prompt: str, n: int, frames: int, sampler: Sampler, generator: torch.Generator
) -> Tensor:
    window = policy.max_frames
    first = min(frames, window)
    rollout = policy.sample(
        [prompt], group_size=n, seconds=first / policy.frame_rate, sampler=sampler, generator=generator
    )
    codes = rollout.codes
    while codes.shape[2] < frames:
        prefix = codes[..., -(window // 2) :]
        more = min(window - prefix.shape[2], frames - codes.shape[2])
        new = policy.extend(rollout.prompts, prefix, more, sampler=sampler, generator=generator)
        codes = torch.cat([codes, new], 2)
    return codes


@dataclass(frozen=True)
class Written:
    """What `write` made, and what it took.

    Attributes:
        paths: the files.
        audio_seconds: length of all clips together.
        wall_seconds: time to make and write them.
        loading_seconds: time to load the model before that.
        peak_rss_mb: most memory of the process, MB.
    """

    paths: list[Path]
    audio_seconds: float
    wall_seconds: float
    loading_seconds: float
    peak_rss_mb: float


def write(prompt: str, *, n: int, seconds: float, model: str, seed: int, folder: Path) -> Written:
    """Make clips for a prompt and write them as WAV files.

    Args:
        prompt: what to play.
        n: number of clips.
        seconds: length of each.
        model: what `musicrl.policies.load` takes.
        seed: the same seed gives the same clips.
        folder: where the files go; made if it is not there.

    Returns:
        The files and what they took; files are named after the prompt, the model, a digest of prompt, length, number of
        clips and model, the seed and their place.

    Raises:
        UserError: as `generate`, or the model or the folder cannot be used.
    """
    check(prompt, n, seconds, seed)
    devices.set_threads()
    files.make_folder(folder)
    start = time.monotonic()
    policy = policies.load(model)
    loaded = time.monotonic()
    audio = generate(policy, prompt, n, seconds, seed)
    stem = "-".join(re.findall(r"\w+", prompt.lower()))[:48] or "clip"
    name = re.sub(r"\W+", "-", model).strip("-").lower()
    # What the name leaves out must not make another clip's name.
    told = hashlib.sha256(f"{prompt}\n{seconds}\n{n}\n{model}".encode()).hexdigest()[:6]
    paths = [folder / f"{stem}-{name}-{told}-{seed}-{index}.wav" for index in range(n)]
    for path, clip in zip(paths, audio, strict=True):
        io.write(path, clip.cpu(), policy.sample_rate)
    return Written(paths, n * seconds, time.monotonic() - loaded, loaded - start, devices.peak_rss_mb())
