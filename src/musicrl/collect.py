"""Rehearsal of the feedback page: a policy makes pairs of clips, simulated users vote on them and rate some.

What is stored is what people's votes would be: models trained on the store cannot tell the difference, but every row
and every table made from it says that these listeners are simulated.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from musicrl import codec, devices, policies, tagger
from musicrl.audio import loudness
from musicrl.audio.facts import measure_many
from musicrl.config import CollectConfig
from musicrl.corpus import prompts
from musicrl.corpus.prompts import Prompt
from musicrl.evaluation.clips import draw, sample_clips
from musicrl.evaluation.study import Heard, Judge, hear
from musicrl.feedback import listeners
from musicrl.feedback.records import Clip, NewClip, NewRating, NewVote, Pair
from musicrl.feedback.store import PreferenceStore
from musicrl.policies.protocol import Policy
from musicrl.rewards.degrade import DAMAGES, Reduce, codec_levels, degrade


def collect(
    config: CollectConfig,
    store: PreferenceStore,
    policy: Policy,
    candidates: Sequence[Prompt],
    judge: Judge,
    reduce: Reduce,
    *,
    checkpoint_sha256: str,
) -> dict[str, int]:
    """Fill a store with pairs of clips, the votes of simulated users on them and their ratings of some.

    Args:
        config: how much of each.
        store: where it goes.
        policy: what makes the clips.
        candidates: prompts to draw from.
        judge: of the prompt match; no reward.
        reduce: a codec's round trip, one of the ways clips are damaged before they are rated.
        checkpoint_sha256: of the policy's weights, kept with every clip.

    Returns:
        Counts of clips, pairs, votes and ratings.

    Raises:
        UserError: there are too few prompts, or the store refuses the write.
    """
    chosen = draw(candidates, config.prompts, config.seed)
    sampled = sample_clips(
        policy,
        [prompt.text for prompt in chosen],
        clips_per_prompt=config.clips_per_prompt,
        seconds=config.seconds,
        temperature=config.temperature,
        seed=config.seed,
    )
    codes, audio = sampled.codes, sampled.audio
    each = [prompt for prompt in chosen for _ in range(config.clips_per_prompt)]
    sampler = {"temperature": config.temperature}
    clips = store.add_clips(
        [
            NewClip(
                prompt=prompt.text,
                model=config.model,
                checkpoint_sha256=checkpoint_sha256,
                seed=config.seed,
                sampler=sampler,
                audio=audio[i].numpy(),
                sample_rate=policy.sample_rate,
                codes=codes[i].numpy(),
                lufs=loudness.finite_lufs(audio[i], policy.sample_rate),
                gain_db=float(sampled.gain_db[i]),
            )
            for i, prompt in enumerate(each)
        ]
    )
    heard = hear(audio, [prompt.attributes for prompt in each], judge, policy.sample_rate)
    users = listeners.users(config.users, config.seed, config.agreement)
    raters = [rater.id for rater in store.add_raters(users.raters())]
    pairs = store.add_pairs(
        [
            (clips[start + i].id, clips[start + j].id)
            for start in range(0, len(clips), config.clips_per_prompt)
            for i, j in itertools.combinations(range(config.clips_per_prompt), 2)
        ]
    )
    votes = _votes(config, pairs, clips, heard, users, raters)
    store.vote_many(votes)
    ratings = _rate(config, store, clips, audio, policy.sample_rate, reduce, users, raters)
    return {"clips": len(clips), "pairs": len(pairs), "votes": len(votes), "ratings": ratings}


def simulate(config: CollectConfig, folder: Path) -> dict[str, int]:
    """Fill a store with simulated feedback on a model: `collect` with what it needs loaded.

    Args:
        config: how much of what, by which model.
        folder: of the store; made if it is not there.
    """
    devices.set_threads()
    policy = policies.load(config.model)
    coder = codec.load()

    def reduce(audio: Tensor, levels: int) -> Tensor:
        return coder.decode(coder.encode(audio)[:, :levels])

    sha256 = policies.checkpoint_sha256(config.model)
    with PreferenceStore(folder) as store:
        return collect(config, store, policy, prompts.load("train"), tagger.load(), reduce, checkpoint_sha256=sha256)


def _votes(
    config: CollectConfig,
    pairs: Sequence[Pair],
    clips: Sequence[Clip],
    heard: Heard,
    users: listeners.Listeners,
    raters: Sequence[str],
) -> list[NewVote]:
    rng = np.random.default_rng([config.seed, 1])
    index = {clip.id: i for i, clip in enumerate(clips)}
    utility = users.utility(heard.facts, heard.match)
    votes: list[NewVote] = []
    prefix = f"simulated/{_digest(config)}"
    for pair in pairs:
        a, b = index[pair.clip_a], index[pair.clip_b]
        who = rng.permutation(len(users))[: config.votes_per_pair]
        first = np.where(rng.random(len(who)) < 0.5, "a", "b")
        choices = users.prefer(who, utility[who, a], utility[who, b], rng, first)
        votes += [
            NewVote(
                pair_id=pair.id,
                rater_id=raters[int(user)],
                choice=str(choice),  # pyright: ignore[reportArgumentType]
                presented_first=str(side),  # pyright: ignore[reportArgumentType]
                heard_a_seconds=clips[a].duration_s,
                heard_b_seconds=clips[b].duration_s,
                key=f"{prefix}/{pair.id}/{user}",
            )
            for user, choice, side in zip(who, choices, first, strict=True)
        ]
    return votes


def _rate(
    config: CollectConfig,
    store: PreferenceStore,
    clips: Sequence[Clip],
    audio: Tensor,
    sample_rate: int,
    reduce: Reduce,
    users: listeners.Listeners,
    raters: Sequence[str],
) -> int:
    """Have the first clips of some prompts rated for quality, as they are and damaged; return the number of ratings."""
    rng = np.random.default_rng([config.seed, 2])
    first = list(range(0, len(clips), config.clips_per_prompt))[: config.rated_prompts]
    if not first:
        return 0
    kinds = [*DAMAGES, "codec"]
    made: list[Tensor] = []
    for number, i in enumerate(first):
        kind, severity = kinds[number % len(kinds)], float(rng.uniform(0.1, 1.0))
        if kind == "codec":
            made.append(codec_levels(audio[i], reduce, severity))
        else:
            made.append(degrade(audio[i], sample_rate, kind, severity, config.seed + i))
    damaged, gains = loudness.match(torch.stack(made), sample_rate)
    stored = store.add_clips(
        [
            NewClip(
                prompt=clips[i].prompt,
                model=f"{config.model} damaged: {kinds[number % len(kinds)]}",
                checkpoint_sha256=clips[i].checkpoint_sha256,
                seed=config.seed,
                audio=damaged[number].numpy(),
                sample_rate=sample_rate,
                lufs=loudness.finite_lufs(damaged[number], sample_rate),
                gain_db=float(gains[number]),
            )
            for number, i in enumerate(first)
        ]
    )
    rated = [*(clips[i] for i in first), *stored]
    sound = torch.cat([audio[first], damaged])
    quality = users.quality(measure_many(list(sound.numpy()), sample_rate))
    ratings: list[NewRating] = []
    key = f"simulated/{_digest(config)}"
    for number, clip in enumerate(rated):
        who = rng.permutation(len(users))[: config.ratings_per_clip]
        values = users.rate(who, quality[who, number], rng)
        ratings += [
            NewRating(clip.id, raters[int(user)], "quality", int(value), f"{key}/{clip.id}/{user}")
            for user, value in zip(who, values, strict=True)
        ]
    store.rate_many(ratings)
    return len(ratings)


def _digest(config: CollectConfig) -> str:
    """Return what tells one rehearsal from another: a second one in the same store must not pass for a replay."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:12]
