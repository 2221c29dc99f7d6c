from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicrl.codec.layers import Block, SpectrumHead, normalise, turn_phasors

RATE, N_FFT, HOP = 24_000, 960, 240


def peak_hz(audio: torch.Tensor) -> float:
    spectrum = torch.fft.rfft(audio * torch.hann_window(audio.shape[-1])).abs()
    return float(spectrum.argmax()) * RATE / audio.shape[-1]


def head_with_one_bin(bin_: int, *, tonal: bool, drift: float = 0.0) -> SpectrumHead:
    head = SpectrumHead(4, N_FFT, HOP)
    with torch.no_grad():
        head.linear.weight.zero_()
        bias = head.linear.bias.view(6, head.bins)
        bias.zero_()
        bias[0] = bias[3] = -20.0
        bias[3 if tonal else 0, bin_] = -1.0
        bias[1] = 1.0  # start phase 0
        bias[4] = drift
        bias[5] = -20.0  # gate closed
    return head


def test_a_steady_feature_gives_a_steady_tone_at_the_bins_frequency_and_between_bins() -> None:
    features = torch.zeros(1, 200, 4)
    with torch.no_grad():
        # Bin 41 of 960 is 1025 Hz; a drift of .4 rad a hop of 10 ms is 6.4 Hz more.
        assert abs(peak_hz(head_with_one_bin(41, tonal=True)(features)[0]) - 1025.0) < 0.6
        assert abs(peak_hz(head_with_one_bin(41, tonal=True, drift=0.4)(features)[0]) - 1031.4) < 0.6
        # Without phasors only multiples of the frame rate, 100 Hz, can hold.
        assert peak_hz(head_with_one_bin(41, tonal=False)(features)[0]) % 100.0 < 0.6


def test_overlap_add_inverts_the_windowed_frames_up_to_both_ends() -> None:
    head = SpectrumHead(4, N_FFT, HOP)
    signal = torch.randn(1, 20 * HOP + N_FFT - HOP, generator=torch.Generator().manual_seed(0))
    frames = signal.unfold(1, N_FFT, HOP)
    out = head._overlap_add(frames * head.window)  # pyright: ignore[reportPrivateUsage]
    trim = (N_FFT - HOP) // 2
    expected = signal[:, trim : trim + 20 * HOP]
    assert (out - expected)[:, HOP:-HOP].abs().max() < 1e-5
    assert (out - expected).abs().max() < 1e-3


def test_gradients_of_the_phasors_match_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 5, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(5)]

    def phasors(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor, g: torch.Tensor) -> object:
        return turn_phasors(normalise(a, b), normalise(c, d), g.sigmoid())

    assert torch.autograd.gradcheck(phasors, inputs)


@settings(max_examples=20)
@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_an_open_gate_gives_the_start_phase_and_a_closed_one_the_turned_phase(start: float, turn: float) -> None:
    phases = torch.full((1, 6, 1), start)
    turns = torch.full((1, 6, 1), turn)
    for gate, expected in ((1.0, phases), (1e-6, phases + torch.arange(6.0)[None, :, None] * turns)):
        gates = torch.full((1, 6, 1), gate)
        gates[:, 0] = 1.0
        re, im = turn_phasors((phases.cos(), phases.sin()), (turns.cos(), turns.sin()), gates)
        assert (re / re.hypot(im) - expected.cos()).abs().max() < 1e-3
        assert (im / re.hypot(im) - expected.sin()).abs().max() < 1e-3


def test_a_block_sees_three_frames_to_each_side() -> None:
    torch.manual_seed(0)
    block = Block(8)
    x = torch.randn(1, 21, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x)[0, 10].square().sum(), x)
    assert torch.nonzero(gradient[0].abs().sum(1) > 0).flatten().tolist() == list(range(7, 14))
