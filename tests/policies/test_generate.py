from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musicrl import policies
from musicrl.audio import loudness
from musicrl.errors import UserError
from musicrl.policies.generate import generate, write
from musicrl.policies.musiclm import MusicLMPolicy


@pytest.mark.parametrize(("seconds", "samples"), [(0.8, 19_200), (0.77, 18_480), (0.01, 240), (3.0, 72_000)])
def test_clips_have_the_length_asked_for(policy: MusicLMPolicy, seconds: float, samples: int) -> None:
    audio = generate(policy, "a waltz", 2, seconds, 0)
    assert audio.shape == (2, samples)
    assert bool(torch.isfinite(audio).all())


def test_seed_decides_the_clips(policy: MusicLMPolicy) -> None:
    one, same, other = (generate(policy, "a waltz", 1, 2.0, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_clips_are_equally_loud(policy: MusicLMPolicy) -> None:
    for clip in generate(policy, "a waltz", 2, 3.0, 0):
        assert loudness.lufs(clip, 24_000) == pytest.approx(-18, abs=0.5)


def test_a_long_clip_goes_on_from_what_was_heard(policy: MusicLMPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    real = policy.extend

    def extend(prompts, codes, frames, **options):  # type: ignore[no-untyped-def]
        seen.append(codes)
        assert codes.shape[2] + frames <= policy.max_frames
        return real(prompts, codes, frames, **options)

    monkeypatch.setattr(policy, "extend", extend)
    monkeypatch.setattr(policy, "decode", lambda codes: decoded.append(codes) or torch.zeros(1, codes.shape[2] * 960))
    generate(policy, "a waltz", 1, 2.0, 0)
    codes = decoded[0]
    assert codes.shape[2] == 50
    assert torch.equal(seen[0], codes[..., 10:20])
    assert torch.equal(seen[1], codes[..., 20:30])


@pytest.mark.parametrize("prompt", ["", "  \n", "x" * 2001])
def test_bad_prompts(policy: MusicLMPolicy, prompt: str) -> None:
    with pytest.raises(UserError, match="the prompt"):
        generate(policy, prompt, 1, 1.0, 0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 60.5, 1000.0, float("nan"), float("inf")])
def test_bad_lengths(policy: MusicLMPolicy, seconds: float) -> None:
    with pytest.raises(UserError, match="at most 60 s"):
        generate(policy, "a waltz", 1, seconds, 0)


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_bad_seeds(policy: MusicLMPolicy, seed: int) -> None:
    with pytest.raises(UserError, match="2147483647"):
        generate(policy, "a waltz", 1, 1.0, seed)


def test_what_the_name_leaves_out_makes_another_file(
    policy: MusicLMPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "load", lambda model: policy)
    start = "a waltz that is played on so many instruments that "
    asked = [(start + "one is left", 1.0), (start + "two are left", 1.0), (start + "one is left", 0.8)]
    made = [
        write(prompt, n=1, seconds=seconds, model="base", seed=0, folder=tmp_path).paths for prompt, seconds in asked
    ]
    # The first of two clips is not the only one of one.
    made.append(write(asked[0][0], n=2, seconds=1.0, model="base", seed=0, folder=tmp_path).paths)
    made.append(write(asked[0][0], n=1, seconds=1.0, model="runs/r", seed=0, folder=tmp_path).paths)
    made.append(write(asked[0][0], n=1, seconds=1.0, model="runs-r", seed=0, folder=tmp_path).paths)
    assert len({path.name for paths in made for path in paths}) == 7
    assert all(path.exists() for paths in made for path in paths)


def test_no_clips(policy: MusicLMPolicy) -> None:
    with pytest.raises(UserError, match="at least 1"):
        generate(policy, "a waltz", 0, 1.0, 0)
