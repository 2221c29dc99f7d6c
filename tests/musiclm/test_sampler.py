from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from musicrl.musiclm.model import MusicLM
from musicrl.musiclm.sampler import draw, sample, truncate


def oracle(
    model: MusicLM, condition: Tensor, frames: int, temperature: float, top_k: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The plainest sampler: the whole model again for every code."""
    codes = torch.zeros(len(condition), 4, frames, dtype=torch.int64)
    logps = torch.zeros(codes.shape)
    for t in range(frames):
        for k in range(4):
            with torch.no_grad():
                logits = truncate(model(codes[..., : t + 1], condition)[:, k, t], temperature, top_k)
            codes[:, k, t], logps[:, k, t] = draw(logits, generator)
    return codes, logps


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.99, 0), (0.7, 5), (1.3, 1)])
def test_cached_sampler_equals_the_oracle(model: MusicLM, condition: Tensor, temperature: float, top_k: int) -> None:
    slow = oracle(model, condition, 9, temperature, top_k, torch.Generator().manual_seed(3))
    fast = sample(model, condition, 9, temperature=temperature, top_k=top_k, generator=torch.Generator().manual_seed(3))
    assert torch.equal(slow[0], fast[0])
    assert torch.allclose(slow[1], fast[1], atol=1e-4)


@pytest.mark.parametrize("top_k", [0, 4])
def test_captured_logps_equal_teacher_forcing(model: MusicLM, condition: Tensor, top_k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    codes, logps = sample(model, condition, 20, group_size=5, top_k=top_k, generator=generator)
    assert codes.shape == logps.shape == (15, 4, 20)
    with torch.no_grad():
        logits = truncate(model(codes, condition.repeat_interleave(5, 0)), 0.99, top_k)
    scored = logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    assert float((scored - logps).abs().max()) < 1e-4
    # The test would not notice a wrong condition if the model did not listen to it.
    with torch.no_grad():
        other = model(codes, condition.roll(1, 0).repeat_interleave(5, 0)).log_softmax(-1)
    assert float((other.gather(-1, codes[..., None])[..., 0] - logps).abs().max()) > 0.1


def test_continuation_is_scored_as_one_piece(model: MusicLM, condition: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    prefix, _ = sample(model, condition, 8, group_size=2, generator=generator)
    codes, logps = sample(model, condition, 10, group_size=2, generator=generator, prefix=prefix)
    whole = torch.cat([prefix, codes], 2)
    with torch.no_grad():
        scored = truncate(model(whole, condition.repeat_interleave(2, 0)), 0.99, 0).log_softmax(-1)
    assert torch.allclose(scored.gather(-1, whole[..., None])[..., 8:, 0], logps, atol=1e-4)


def test_no_position_beyond_those_trained(model: MusicLM, condition: Tensor) -> None:
    with pytest.raises(ValueError, match="25 frames pass the 24 positions"):
        sample(model, condition, 25, generator=torch.Generator())


def test_seed_decides_everything(model: MusicLM, condition: Tensor) -> None:
    one, same, other = (
        sample(model, condition, 8, group_size=2, generator=torch.Generator().manual_seed(seed))[0]
        for seed in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_samples_follow_the_softmax(model: MusicLM, condition: Tensor) -> None:
    count = 20_000
    codes, _ = sample(
        model, condition[:1], 1, group_size=count, temperature=1.2, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        first = (model(codes[:1], condition[:1])[0, 0, 0] / 1.2).softmax(-1)
        # Codes of the second codebook where the first one was the most frequent.
        most = int(first.argmax())
        second = (model(torch.full((1, 4, 1), most), condition[:1])[0, 1, 0] / 1.2).softmax(-1)
    seen = torch.bincount(codes[:, 0, 0], minlength=16)
    follow = torch.bincount(codes[codes[:, 0, 0] == most, 1, 0], minlength=16)
    for observed, expected in ((seen, first), (follow, second)):
        enough = expected * observed.sum() > 5
        f_obs = [*observed[enough].tolist(), int(observed[~enough].sum())]
        f_exp = [*(expected[enough] * observed.sum()).tolist(), float(expected[~enough].sum() * observed.sum())]
        if f_exp[-1] == 0:
            f_obs, f_exp = f_obs[:-1], f_exp[:-1]
        scale = sum(f_obs) / sum(f_exp)
        assert stats.chisquare(f_obs, [e * scale for e in f_exp]).pvalue > 1e-3
        # A sampler that ignored the temperature would fail.
        flat = (expected.log() * 1.2).softmax(-1)
        assert (
            stats.chisquare(
                observed.numpy(), (flat / flat.sum() * observed.sum()).double().numpy(), sum_check=False
            ).pvalue
            < 1e-3
        )


def test_top_k_keeps_the_largest() -> None:
    logits = truncate(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), 0.5, 2)
    assert logits.tolist() == [[-torch.inf, 8.0, -torch.inf, 6.0]]
    codes, logps = draw(logits.expand(500, 4), torch.Generator().manual_seed(0))
    assert set(codes.tolist()) == {1, 3}
    assert torch.allclose(logps.exp()[codes == 1], torch.tensor(2.0).sigmoid())


def test_gradient_may_follow_a_sample(model: MusicLM, condition: Tensor) -> None:
    codes, _ = sample(model, condition, 4, generator=torch.Generator().manual_seed(0))
    model(codes, condition).sum().backward()
    assert model.trunk.embed.weight.grad is not None
