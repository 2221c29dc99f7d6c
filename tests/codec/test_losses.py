from __future__ import annotations

import math

import pytest
import torch

from musicrl.codec.discriminator import Discriminators, discriminator_loss, generator_losses
from musicrl.codec.losses import mel_distance, reconstruction

RATE = 24_000


def noise(seed: int, scale: float = 0.1) -> torch.Tensor:
    return scale * torch.randn(2, RATE // 2, generator=torch.Generator().manual_seed(seed))


def sine(hz: float) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hz * torch.arange(RATE // 2) / RATE)[None]


def test_a_clip_is_at_no_distance_from_itself_or_its_negative() -> None:
    for same in (noise(0), -noise(0)):
        terms = reconstruction(same, noise(0), RATE)
        assert all(float(term) == pytest.approx(0.0, abs=1e-4) for term in terms.values())


def test_twice_the_amplitude_is_ln_2_in_log_mel_and_1_in_magnitude() -> None:
    terms = reconstruction(2 * noise(0), noise(0), RATE)
    assert float(terms["mel"]) == pytest.approx(math.log(2), abs=0.03)
    assert float(terms["magnitude"]) == pytest.approx(1.0, abs=1e-3)
    assert float(terms["turning"]) < 0.05  # only through the bound on bins under -70 dB
    assert mel_distance(2 * noise(0), noise(0), RATE).tolist() == pytest.approx([math.log(2)] * 2, abs=0.03)


def test_turning_does_not_see_where_a_tone_starts_but_sees_a_wrong_pitch() -> None:
    shifted = sine(440).roll(17, dims=1)
    other = reconstruction(sine(450), sine(440), RATE)["turning"]
    assert float(reconstruction(shifted, sine(440), RATE)["turning"]) < 0.2 * float(other)


def test_silence_gives_finite_losses_and_gradients() -> None:
    audio = noise(0).requires_grad_()
    terms = reconstruction(audio, torch.zeros(2, RATE // 2), RATE)
    torch.stack(list(terms.values())).sum().backward()
    assert audio.grad is not None and bool(audio.grad.isfinite().all())


def test_hinge_and_matching_losses_by_hand() -> None:
    real = [[torch.tensor([1.0, 3.0]), torch.tensor([0.5, 2.0])]]
    fake = [[torch.tensor([2.0, 3.0]), torch.tensor([-2.0, 0.5])]]
    # real: (0.5 + 0) / 2; fake: (0 + 1.5) / 2
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.25 + 0.75)
    adversarial, matching = generator_losses(real, fake)
    assert float(adversarial) == pytest.approx(0.75)
    # mean |(1, 0)| / mean (1, 3)
    assert float(matching) == pytest.approx(0.5 / 2.0)


def test_the_decoder_hears_of_the_verdict() -> None:
    torch.manual_seed(0)
    discriminators = Discriminators(channels=2)
    audio = noise(1).requires_grad_()
    adversarial, _ = generator_losses(discriminators(noise(0)), discriminators(audio))
    adversarial.backward()
    assert audio.grad is not None and float(audio.grad.abs().sum()) > 0
