from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicrl.audio.loudness import lufs, match, true_peak

RATE = 24_000


def sine(hz: float, amplitude: float, seconds: float = 2.0) -> torch.Tensor:
    return amplitude * torch.sin(2 * torch.pi * hz * torch.arange(int(RATE * seconds)) / RATE)


def test_a_sine_has_the_loudness_the_standard_gives() -> None:
    # BS.1770: a 0 dBFS sine of 997 Hz in one channel measures -3.01 LUFS; ten times less amplitude is 20 LU less.
    assert lufs(sine(997, 1.0), RATE) == pytest.approx(-3.01, abs=0.1)
    assert lufs(sine(997, 0.1), RATE) == pytest.approx(-23.01, abs=0.1)


def test_match_reaches_the_target_with_the_gain_computed_by_hand() -> None:
    matched, gains = match(torch.stack([sine(997, 0.1), sine(997, 0.05)]), RATE, target=-18.0)
    # -23.01 -> -18 is +5.01 dB; half the amplitude needs 6.02 dB more.
    assert gains.tolist() == pytest.approx([5.01, 11.03], abs=0.1)
    assert [lufs(clip, RATE) for clip in matched] == pytest.approx([-18.0, -18.0], abs=0.01)


def test_the_true_peak_ceiling_wins_over_the_target() -> None:
    # One click over a quiet tone: the tone asks for gain, the click forbids it.
    clip = sine(997, 0.02)
    clip[24_000] = 0.9
    matched, _ = match(clip[None], RATE)
    assert true_peak(matched[0]) == pytest.approx(-1.0, abs=0.01)
    assert lufs(matched[0], RATE) < -18.0


def test_true_peak_sees_what_lies_between_samples() -> None:
    # A sine at a quarter of the rate sampled at 45 degrees has samples of 0.707 and a true peak of 1.
    clip = torch.sin(torch.pi / 2 * torch.arange(4800) + torch.pi / 4)
    assert 20 * math.log10(float(clip.abs().max())) == pytest.approx(-3.01, abs=0.01)
    assert true_peak(clip[: RATE // 10]) == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize("clip", [torch.zeros(RATE), torch.full((RATE,), float("nan")), 0.5 * torch.ones(100)])
def test_clips_without_a_loudness_are_left_alone(clip: torch.Tensor) -> None:
    matched, gains = match(clip[None], RATE)
    assert lufs(clip, RATE) == -math.inf
    assert gains.tolist() == [0.0]
    assert torch.equal(matched[0].nan_to_num(7.0), clip.nan_to_num(7.0))


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 1.0), st.integers(0, 100))
def test_matching_forgets_the_original_level_and_never_passes_the_ceiling(scale: float, seed: int) -> None:
    noise = torch.randn(RATE, generator=torch.Generator().manual_seed(seed)) * 0.2
    reference, _ = match(noise[None], RATE)
    matched, _ = match(scale * noise[None], RATE)
    assert (matched - reference).abs().max() < 1e-3
    assert true_peak(matched[0]) <= -0.99
