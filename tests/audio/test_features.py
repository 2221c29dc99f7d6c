from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicrl.audio.features import FLOOR, LOWEST_SEMITONE, log_mel, magnitude, mel_bank, semitones, spectrogram

RATE = 24_000


def sine(hz: float, amplitude: float = 1.0, seconds: float = 1.0) -> torch.Tensor:
    return amplitude * torch.sin(2 * torch.pi * hz * torch.arange(int(RATE * seconds)) / RATE)[None]


@pytest.mark.parametrize("n_fft", [512, 1024, 2048])
def test_a_full_scale_sine_has_magnitude_one(n_fft: int) -> None:
    hz = RATE / n_fft * 40
    spectrum = magnitude(spectrogram(sine(hz), n_fft=n_fft, hop=240))
    assert spectrum[0, 40, 10:-10].mean() == pytest.approx(1.0, abs=1e-3)
    assert spectrum[0, 60:, 10:-10].max() < 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5000), st.sampled_from([240, 480, 960]))
def test_frames_are_n_over_hop_for_any_length(n: int, hop: int) -> None:
    audio = torch.zeros(2, n)
    assert log_mel(audio, n_fft=1024, hop=hop, n_mels=20).shape == (2, 20, n // hop)
    assert semitones(audio, RATE, hop).shape == (2, 84, n // hop)


def test_silence_is_the_floor() -> None:
    assert torch.allclose(log_mel(torch.zeros(1, 4800), n_fft=1024, hop=240, n_mels=80), torch.tensor(math.log(FLOOR)))
    assert torch.allclose(semitones(torch.zeros(1, 24_000), RATE, 960), torch.tensor(2 * math.log(FLOOR)))


def test_no_mel_band_is_empty_and_a_tone_lands_in_its_band() -> None:
    bank = mel_bank(RATE, 512, 100, 0.0, None, torch.device("cpu"))
    assert (bank.sum(1) > 0).all()
    # Slaney's scale: 1 kHz is mel 15 and 12 kHz is mel 15 + 27 ln 12 / ln 6.4 = 51.14; band i is centred at
    # 51.14 * (i + 1) / 101, so 1 kHz lies closest to i = 15 / 51.14 * 101 - 1 = 28.6.
    mel = log_mel(sine(1000), n_fft=2048, hop=240, n_mels=100)
    assert int(mel[0, :, 50].argmax()) in (28, 29)


def test_ten_times_the_amplitude_adds_ln_10() -> None:
    quiet, loud = (log_mel(sine(1000, a), n_fft=1024, hop=240, n_mels=40)[0, 11, 50] for a in (0.05, 0.5))
    assert float(loud - quiet) == pytest.approx(math.log(10), abs=1e-4)


@pytest.mark.parametrize("pitch", [33, 45, 57, 69, 81, 93, 105])
def test_a_note_lights_its_own_semitone(pitch: int) -> None:
    energies = semitones(sine(440 * 2 ** ((pitch - 69) / 12), 0.5), RATE, 960)
    assert int(energies[0, :, 12].argmax()) == pitch - LOWEST_SEMITONE


def test_the_gradient_is_finite_on_silence() -> None:
    audio = torch.zeros(1, 4800, requires_grad=True)
    log_mel(audio, n_fft=512, hop=240, n_mels=40).sum().backward()
    assert audio.grad is not None and bool(audio.grad.isfinite().all())
