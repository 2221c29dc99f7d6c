from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from musicrl import codec, mulan, policies, weights
from musicrl.errors import UserError
from musicrl.musiclm import fine
from musicrl.policies.musiclm import MusicLMPolicy
from musicrl.policies.protocol import Policy, Sampler

MakePolicy = Callable[..., MusicLMPolicy]
Disturb = Callable[[MusicLMPolicy], None]
PROMPTS = ("slow waltz", "a fast reel on the fiddle")


def rollout(policy: MusicLMPolicy, sampler: Sampler | None = None, seed: int = 0) -> Any:
    return policy.sample(
        PROMPTS,
        group_size=3,
        seconds=0.4,
        sampler=sampler or Sampler(),
        generator=torch.Generator().manual_seed(seed),
    )


def test_it_is_a_policy(policy: MusicLMPolicy) -> None:
    assert isinstance(policy, Policy)
    assert (policy.sample_rate, policy.frame_rate, policy.num_codebooks, policy.codebook_size) == (24_000, 25.0, 4, 16)


@pytest.mark.parametrize("rank", [4, None])
@pytest.mark.parametrize("sampler", [Sampler(), Sampler(temperature=0.7, top_k=5)])
def test_scores_equal_the_logps_of_sampling(
    make_policy: MakePolicy, disturb: Disturb, rank: int | None, sampler: Sampler
) -> None:
    policy = make_policy(rank=rank)
    disturb(policy)
    drawn = rollout(policy, sampler)
    assert drawn.prompts == (PROMPTS[0],) * 3 + (PROMPTS[1],) * 3
    assert drawn.codes.shape == drawn.logps.shape == (6, 4, 10)
    scores = policy.score(drawn.prompts, drawn.codes, sampler=sampler)
    assert scores.logits.shape == (6, 4, 10, 16)
    assert float((scores.logps.detach() - drawn.logps).abs().max()) < 1e-4
    normalised = scores.logits.log_softmax(-1).gather(-1, drawn.codes[..., None])[..., 0]
    assert torch.allclose(normalised, scores.logps)


def test_bfloat16_samples_and_scores_stay_close(make_policy: MakePolicy) -> None:
    policy = make_policy(dtype=torch.bfloat16)
    drawn = rollout(policy)
    gap = (policy.score(drawn.prompts, drawn.codes, sampler=Sampler()).logps - drawn.logps).abs()
    assert 0 < float(gap.mean()) < 0.05


@pytest.mark.parametrize("rank", [4, None])
def test_reference_is_the_start_exactly(make_policy: MakePolicy, disturb: Disturb, rank: int | None) -> None:
    policy = make_policy(rank=rank)
    drawn = rollout(policy)
    before = policy.score(drawn.prompts, drawn.codes, sampler=Sampler()).logits
    with policy.reference():
        at_start = policy.score(drawn.prompts, drawn.codes, sampler=Sampler()).logits
    assert torch.equal(before, at_start)
    logps = before.log_softmax(-1)
    assert float((logps.exp() * (logps - at_start.log_softmax(-1))).sum(-1).abs().max()) == 0

    disturb(policy)
    assert not torch.allclose(policy.score(drawn.prompts, drawn.codes, sampler=Sampler()).logits, before, atol=0.1)
    assert not torch.equal(rollout(policy).codes, drawn.codes)
    with policy.reference():
        assert torch.equal(policy.score(drawn.prompts, drawn.codes, sampler=Sampler()).logits, before)
        assert torch.equal(rollout(policy).codes, drawn.codes)


@pytest.mark.parametrize("rank", [4, None])
def test_gradient_reaches_what_is_trained_and_nothing_else(make_policy: MakePolicy, rank: int | None) -> None:
    policy = make_policy(rank=rank)
    drawn = rollout(policy)
    policy.score(drawn.prompts, drawn.codes, sampler=Sampler()).logps.sum().backward()
    trained = policy.trainable_parameters()
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in trained)
    assert sum(p.numel() for p in trained) == sum(t.numel() for t in policy.trainable_state().values()) - (
        0 if rank else 3 * 8 * 10
    )


@pytest.mark.parametrize("rank", [4, None])
def test_trainable_state_comes_back(make_policy: MakePolicy, disturb: Disturb, rank: int | None) -> None:
    policy, other = make_policy(rank=rank), make_policy(rank=rank)
    disturb(policy)
    saved = policy.trainable_state()
    other.load_trainable_state(saved)
    assert torch.equal(rollout(other).logps, rollout(policy).logps)
    with pytest.raises(UserError, match="has"):
        make_policy(rank=2 if rank else 4).load_trainable_state(saved)


def test_too_long_a_clip_is_refused(policy: MusicLMPolicy) -> None:
    for seconds in (0.0, 0.84, -1.0):
        with pytest.raises(UserError, match=r"at most 0\.8 s"):
            policy.sample(["x"], seconds=seconds, sampler=Sampler(), generator=torch.Generator())


def test_decode_needs_no_gradient_and_repeats(policy: MusicLMPolicy) -> None:
    codes = rollout(policy).codes
    audio = policy.decode(codes)
    assert audio.shape == (6, 9600)
    assert torch.equal(policy.decode(codes), audio)


@pytest.mark.parametrize("rank", [4, None])
def test_values_see_only_frames_before(make_policy: MakePolicy, disturb: Disturb, rank: int | None) -> None:
    policy = make_policy(rank=rank)
    disturb(policy)
    drawn = rollout(policy)
    value = policy.value_network()
    assert torch.equal(value(drawn.prompts, drawn.codes), torch.zeros(6, 4, 10))
    with torch.no_grad():
        for parameter in value.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    values = value(drawn.prompts, drawn.codes)
    changed = drawn.codes.clone()
    changed[:, :, 5] = (changed[:, :, 5] + 1) % 16
    other = value(drawn.prompts, changed)
    assert torch.equal(other[..., :6], values[..., :6])
    assert not torch.allclose(other[..., 6:], values[..., 6:], atol=1e-3)
    assert not torch.allclose(value([p + "!" for p in drawn.prompts], drawn.codes), values, atol=1e-3)

    fresh = policy.value_network()
    fresh.load_state_dict(value.state_dict())
    assert torch.equal(fresh(drawn.prompts, drawn.codes), values)
    values.sum().backward()
    assert all(parameter.grad is None for parameter in policy.trainable_parameters())


@pytest.fixture
def installed(make_policy: MakePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MusicLMPolicy:
    """The tiny model as the base that ships, with stand-ins for what surrounds it."""
    books = torch.zeros(3, 8, 10)
    real = weights.read
    monkeypatch.setattr(weights, "embedded", lambda part: tmp_path / "weights" / part)
    monkeypatch.setattr(
        weights, "read", lambda name: ({"sha256": "m" * 64}, {"codebooks": books}) if name == "mulan" else real(name)
    )
    plain = make_policy(rank=None)
    plain.save(tmp_path / "weights" / "musiclm", "# base")
    books.copy_(plain.trainable_state()["trunk.condition.codebooks"])

    class Mulan:
        def embed_text(self, texts: list[str]) -> Tensor:
            return torch.tensor([[float(len(t)), float(sum(map(ord, t))), float(ord(t[0]))] for t in texts])

        def tokens(self, embedding: Tensor) -> Tensor:
            return (embedding % 8).long()

    class Still:
        sample_rate = 24_000

        def to(self, device: torch.device) -> Still:
            return self

    monkeypatch.setattr(mulan, "load", Mulan, raising=False)
    monkeypatch.setattr(codec, "load", Still, raising=False)
    monkeypatch.setattr(fine, "load", Still)
    return make_policy()


def load(model: str | Path, **options: Any) -> MusicLMPolicy:
    return policies.load(model, torch.device("cpu"), dtype=torch.float32, **options)


def test_base_loads_as_it_was(installed: MusicLMPolicy) -> None:
    assert torch.equal(rollout(load("base", rank=4)).logps, rollout(installed).logps)


def test_an_adapter_loads_as_it_was_and_is_its_own_reference(
    installed: MusicLMPolicy, disturb: Disturb, tmp_path: Path
) -> None:
    policy = load("base", rank=4)
    disturb(policy)
    policy.save(tmp_path / "mine", "# card")
    config, tensors = weights.read(tmp_path / "mine")
    assert config["kind"] == "adapter"
    assert max(tensor.numel() for tensor in tensors.values()) < 1000
    loaded = load(tmp_path / "mine", rank=2)
    drawn = rollout(loaded)
    # The adapter is stored in bf16.
    ours = policy.score(drawn.prompts, drawn.codes, sampler=Sampler()).logps
    assert torch.allclose(ours, drawn.logps, atol=0.05)
    with loaded.reference():
        assert torch.equal(rollout(loaded).logps, drawn.logps)

    disturb(loaded)
    loaded.save(tmp_path / "further", "# card")
    assert weights.read(tmp_path / "further")[1]["trunk.blocks.0.qkv.a"].shape == (6, 32)
    further = load(tmp_path / "further")
    drawn = rollout(loaded)
    again = further.score(drawn.prompts, drawn.codes, sampler=Sampler()).logps
    assert torch.allclose(again, drawn.logps, atol=0.1)
    with loaded.reference():
        start = loaded.score(drawn.prompts, drawn.codes, sampler=Sampler()).logps
    assert float((again - drawn.logps).abs().mean()) < 0.1 * float((start - drawn.logps).abs().mean())


def test_a_fully_trained_model_loads(installed: MusicLMPolicy, disturb: Disturb, tmp_path: Path) -> None:
    policy = load("base", rank=None)
    disturb(policy)
    policy.save(tmp_path / "whole", "# card")
    loaded = load(tmp_path / "whole", rank=4)
    drawn = rollout(loaded)
    ours = policy.score(drawn.prompts, drawn.codes, sampler=Sampler()).logps
    assert torch.allclose(ours, drawn.logps, atol=0.1)
    # An adapter on it could not be loaded without it, so all weights are written again.
    loaded.save(tmp_path / "again", "# card")
    assert weights.read(tmp_path / "again")[0]["kind"] == "musiclm"


def test_models_that_do_not_fit_are_refused(installed: MusicLMPolicy, make_policy: MakePolicy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights"):
        load(tmp_path / "nowhere")
    make_policy(base="c" * 64).save(tmp_path / "stranger", "# card")
    with pytest.raises(UserError, match="another base"):
        load(tmp_path / "stranger")
    weights.write(tmp_path / "other", {"kind": "codec"}, {"x": torch.zeros(1)}, "# card")
    with pytest.raises(UserError, match="holds no MusicLM"):
        load(tmp_path / "other")
    base = weights.read("musiclm")[0]["sha256"]
    narrow = {"trunk.blocks.0.qkv.a": torch.zeros(2, 8), "trunk.blocks.0.qkv.b": torch.zeros(24, 2)}
    weights.write(tmp_path / "narrow", {"kind": "adapter", "base": base}, narrow, "# card")
    with pytest.raises(UserError, match=r"\[24, 8\] there, \[96, 32\] in the model"):
        load(tmp_path / "narrow")
