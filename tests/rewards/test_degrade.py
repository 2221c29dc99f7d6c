from __future__ import annotations

import pytest
import torch

from musicrl.rewards.degrade import DAMAGES, codec_levels, degrade

RATE = 24_000


@pytest.fixture
def clip() -> torch.Tensor:
    time = torch.arange(2 * RATE) / RATE
    tones = sum(torch.sin(2 * torch.pi * f * time) / (i + 1) for i, f in enumerate((220.0, 1400.0, 3500.0, 8000.0)))
    return 0.2 * tones * (1 + 0.5 * torch.sin(2 * torch.pi * 2 * time))


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_a_function_of_clip_severity_and_seed(kind: str, clip: torch.Tensor):
    before = clip.clone()
    first = degrade(clip, RATE, kind, 0.5, seed=3)
    assert first.shape == clip.shape and first.dtype == torch.float32 and torch.isfinite(first).all()
    assert torch.equal(first, degrade(clip, RATE, kind, 0.5, seed=3))
    assert torch.equal(clip, before)
    assert not torch.allclose(first, clip, atol=1e-3)
    assert torch.equal(degrade(clip, RATE, kind, 0.0, seed=3), clip)


@pytest.mark.parametrize("kind", ["noise", "clipping", "low_pass", "dropouts"])
def test_more_severity_is_further_from_the_original(kind: str, clip: torch.Tensor):
    errors = [float((degrade(clip, RATE, kind, s, 0) - clip).square().mean()) for s in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)]
    assert errors == sorted(errors) and errors[0] < 0.3 * errors[-1]


@pytest.mark.parametrize("kind", ["noise", "dropouts", "wobble"])
def test_random_damage_depends_on_the_seed(kind: str, clip: torch.Tensor):
    assert not torch.equal(degrade(clip, RATE, kind, 0.5, 0), degrade(clip, RATE, kind, 0.5, 1))


def test_noise_has_the_ratio_it_says(clip: torch.Tensor):
    added = degrade(clip, RATE, "noise", 0.5, 0) - clip
    assert 10 * torch.log10(clip.square().mean() / added.square().mean()) == pytest.approx(25.0, abs=0.1)


def test_clipping_cuts_at_a_share_of_the_peak(clip: torch.Tensor):
    assert degrade(clip, RATE, "clipping", 1.0, 0).abs().max() == pytest.approx(clip.abs().max() / 20)


def test_low_pass_keeps_what_lies_below_and_removes_what_lies_above(clip: torch.Tensor):
    # Severity 0.5 puts the cutoff at 12 kHz / 32 ** 0.5 = 2.1 kHz.
    before, after = torch.fft.rfft(clip).abs(), torch.fft.rfft(degrade(clip, RATE, "low_pass", 0.5, 0)).abs()
    assert after[2 * 220] / before[2 * 220] == pytest.approx(1.0, abs=0.01)
    assert after[2 * 8000] / before[2 * 8000] < 1e-3


def test_dropouts_are_silent_and_no_louder_than_before(clip: torch.Tensor):
    gaps = degrade(clip, RATE, "dropouts", 1.0, 0)
    assert (gaps == 0).float().mean() > 0.1
    assert (gaps.abs() <= clip.abs() + 1e-6).all()


def test_wobble_sways_the_pitch_by_the_depth_it_says():
    time = torch.arange(2 * RATE, dtype=torch.float64) / RATE
    swayed = degrade(torch.sin(2 * torch.pi * 500 * time).float(), RATE, "wobble", 1.0, 1)
    rising = ((swayed[:-1] < 0) & (swayed[1:] >= 0)).nonzero()[:, 0]
    # Mean frequency over blocks of 50 periods, and of single periods.
    single = RATE / rising.diff().float()
    assert 500 / single.max() == pytest.approx(1 / 1.04, abs=0.02)
    assert 500 / single.min() == pytest.approx(1 / 0.96, abs=0.025)


def test_codec_levels(clip: torch.Tensor):
    asked: list[int] = []

    def reduce(audio: torch.Tensor, levels: int) -> torch.Tensor:
        asked.append(levels)
        return audio[:, : clip.shape[0] - 100 * (levels % 2)]

    for severity in (0.0, 0.5, 1.0):
        assert codec_levels(clip, reduce, severity).shape == clip.shape
    assert asked == [12, 6, 1]


def test_severity_outside_its_range():
    with pytest.raises(ValueError, match="severity"):
        degrade(torch.zeros(10), RATE, "noise", 1.5, 0)
