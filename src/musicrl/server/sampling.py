"""The generator behind `musicrl serve`: clips from the package's own models and from finetuned ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

from musicrl.server.clips import GeneratedClip, Generator

_TEMPERATURE = 0.99


def generator(*models: str) -> Generator:
    """Load models and return a generator that samples from them.

    One model is compared with itself, which is how the votes behind MusicRL-U arose; of more, two are drawn for each
    pair.

    Args:
        models: names or folders, as `musicrl.policies.load` takes them.

    Raises:
        UserError: there is no such model, or its weights are missing or corrupt.
    """
    import torch

    from musicrl import devices, policies
    from musicrl.policies.protocol import Sampler

    devices.set_threads()
    device = devices.pick()
    loaded = {model: policies.load(model, device) for model in models}
    checkpoints = {model: policies.checkpoint_sha256(model) for model in models}
    sampler = Sampler(temperature=_TEMPERATURE)

    def sample(model: str, prompt: str, seconds: float, seed: int, count: int) -> list[GeneratedClip]:
        policy = loaded[model]
        source = torch.Generator(device).manual_seed(seed)
        rollout = policy.sample([prompt], group_size=count, seconds=seconds, sampler=sampler, generator=source)
        audio = policy.decode(rollout.codes).float().cpu().numpy()
        codes = rollout.codes.cpu().numpy()
        return [
            GeneratedClip(
                audio=audio[i],
                sample_rate=policy.sample_rate,
                codes=codes[i],
                model=model,
                checkpoint_sha256=checkpoints[model],
                seed=seed,
                sampler={"temperature": sampler.temperature, "top_k": sampler.top_k, "group": count, "index": i},
            )
            for i in range(count)
        ]

    def generate(prompt: str, seconds: float, seeds: Sequence[int]) -> list[GeneratedClip]:
        if len(models) == 1:
            # One batch takes little longer than one clip.
            return sample(models[0], prompt, seconds, seeds[0], len(seeds))
        drawn = random.Random(seeds[0]).sample(models, len(seeds))
        return [sample(model, prompt, seconds, seed, 1)[0] for model, seed in zip(drawn, seeds, strict=True)]

    return generate
