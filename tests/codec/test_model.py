from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicrl.codec import Codec
from musicrl.codec.quantizer import straight_through


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(0)
    model = Codec(width=16, encoder_blocks=1, decoder_blocks=1, output_blocks=1, latent_dim=8, codebook_size=32)
    model.quantizer.codebooks.normal_()
    return model.eval()


def music(n: int, batch: int = 2) -> torch.Tensor:
    return 0.2 * torch.randn(batch, n, generator=torch.Generator().manual_seed(n))


@settings(max_examples=12)
@given(st.integers(1, 3000), st.integers(1, 12))
def test_any_length_and_any_prefix_of_levels(codec: Codec, n: int, levels: int) -> None:
    frames = -(-n // 480)
    codes = codec.encode(music(n))
    assert codes.shape == (2, 12, frames) and codes.dtype == torch.int64
    assert int(codes.min()) >= 0 and int(codes.max()) < 32
    audio = codec.decode(codes[:, :levels])
    assert audio.shape == (2, frames * 480) and audio.dtype == torch.float32
    assert bool(audio.isfinite().all())


def test_rates_of_the_paper(codec: Codec) -> None:
    assert (codec.sample_rate, codec.frame_rate, codec.num_codebooks) == (24_000, 50.0, 12)
    assert codec.encode(music(24_000)).shape[-1] == 50


def test_decoding_repeats_itself_and_does_not_depend_on_the_rest_of_the_batch(codec: Codec) -> None:
    codes = codec.encode(music(9600))
    assert torch.equal(codec.decode(codes), codec.decode(codes))
    assert torch.allclose(codec.decode(codes)[:1], codec.decode(codes[:1]), atol=1e-5)


def test_codes_carry_no_phase(codec: Codec) -> None:
    assert torch.equal(codec.encode(music(9600)), codec.encode(-music(9600)))


def test_the_gradient_reaches_the_encoder_through_the_quantizer(codec: Codec) -> None:
    latents = codec.latents(music(4800))
    _, sums = codec.quantizer.quantize(latents)
    codec.synthesize(straight_through(latents, sums, torch.tensor([1, 12]))).square().sum().backward()
    assert codec.embed.weight.grad is not None and float(codec.embed.weight.grad.abs().sum()) > 0


def test_wrong_shapes_and_codes_are_refused(codec: Codec) -> None:
    codes = torch.zeros(1, 12, 5, dtype=torch.int64)
    for audio in (torch.zeros(1, 0), torch.zeros(480)):
        with pytest.raises(ValueError, match="audio must be"):
            codec.encode(audio)
    for wrong in (codes[0], codes[:, :0], codes.repeat(1, 2, 1)):
        with pytest.raises(ValueError, match="codes must be"):
            codec.decode(wrong)
    for wrong in (codes - 1, codes + 32):
        with pytest.raises(ValueError, match=r"within 0\.\.31"):
            codec.decode(wrong)
