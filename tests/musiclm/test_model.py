from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from musicrl.errors import UserError
from musicrl.musiclm import load_into
from musicrl.musiclm.layers import attend, rotary, rotate
from musicrl.musiclm.model import MusicLM, Trunk


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    q, k = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    table = rotary(torch.arange(20), 8)

    def product(i: int, j: int) -> float:
        at = [tuple(part[n : n + 1] for part in table) for n in (i, j)]
        return float((rotate(q, at[0]) * rotate(k, at[1])).sum())  # type: ignore[arg-type]

    assert product(3, 1) == pytest.approx(product(17, 15), abs=1e-5)
    assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)
    assert float(rotate(q, tuple(part[7:8] for part in table)).norm()) == pytest.approx(float(q.norm()))  # type: ignore[arg-type]


def test_attention_equals_its_formula_by_hand() -> None:
    q = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2).repeat(1, 1, 2, 1)
    k = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    v = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    first = math.exp(2 / math.sqrt(2)) / (math.exp(2 / math.sqrt(2)) + 1)
    causal = attend(q, k, v, causal=True)[0, 0]
    assert torch.allclose(causal, torch.tensor([[1.0, 0.0], [first, 1 - first]]))
    assert torch.allclose(attend(q, k, v, causal=False)[0, 0], torch.tensor([first, 1 - first]).repeat(2, 1))


@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_torch(causal: bool) -> None:
    q, k, v = torch.randn(3, 2, 3, 7, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    assert torch.allclose(attend(q, k, v, causal=causal), expected, atol=1e-6)


def test_codes_change_no_earlier_logits(model: MusicLM, codes: Tensor, condition: Tensor) -> None:
    logits = model(codes, condition)
    for book in range(4):
        changed = codes.clone()
        changed[:, book, 5] = (changed[:, book, 5] + 1) % 16
        other = model(changed, condition)
        assert torch.equal(other[:, :, :5], logits[:, :, :5])
        assert torch.allclose(other[:, : book + 1, 5], logits[:, : book + 1, 5], atol=1e-5)
        if book < 3:
            assert not torch.allclose(other[:, book + 1, 5], logits[:, book + 1, 5], atol=1e-3)
        assert not torch.allclose(other[:, :, 6:], logits[:, :, 6:], atol=1e-3)


def test_condition_reaches_every_frame(model: MusicLM, codes: Tensor, condition: Tensor) -> None:
    gap = (model(codes, condition) - model(codes, condition.roll(1, 0))).abs().amax(dim=(1, 3))
    assert bool((gap > 1e-3).all())


def test_condition_is_the_sum_of_the_levels_that_are_there(model: MusicLM) -> None:
    layer = model.trunk.condition
    books = layer.codebooks
    summed = (books[0][2] + books[2][4]) * 10**0.5
    expected = layer.fc_out(torch.nn.functional.gelu(layer.fc_in(summed)))
    assert torch.allclose(layer(torch.tensor([[2, -1, 4]]))[0], expected, atol=1e-5)
    with torch.no_grad():
        layer.null.fill_(0.7)
    expected = layer.fc_out(torch.nn.functional.gelu(layer.fc_in(layer.null)))
    assert torch.allclose(layer(torch.tensor([[-1, -1, -1]]))[0], expected, atol=1e-5)


def test_hidden_state_after_a_frame_is_the_state_before_the_next(
    model: MusicLM, codes: Tensor, condition: Tensor
) -> None:
    states, hidden = model.trunk.states(codes, condition), model.trunk.hidden(codes, condition)
    assert states.shape == hidden.shape == (3, 11, 32)
    assert torch.allclose(hidden[:, :-1], states[:, 1:], atol=1e-5)


def test_hidden_codes_leave_no_trace(model: MusicLM, codes: Tensor, condition: Tensor) -> None:
    keep = torch.ones(codes.shape)
    assert torch.allclose(model.trunk.states(codes, condition, keep), model.trunk.states(codes, condition), atol=1e-6)
    keep[:, 2, 4] = 0
    changed = codes.clone()
    changed[:, 2, 4] = (changed[:, 2, 4] + 3) % 16
    assert torch.equal(model.trunk.states(codes, condition, keep), model.trunk.states(changed, condition, keep))


def test_loading_another_shape_names_both(model: MusicLM) -> None:
    tensors = model.state_dict()
    tensors["trunk.start"] = torch.zeros(7)
    with pytest.raises(UserError, match=r"'trunk.start' is \[7\], the model has \[32\]"):
        load_into(model, tensors, "somewhere")
    del tensors["trunk.start"]
    with pytest.raises(UserError, match="is nothing, the model has"):
        load_into(model, tensors, "somewhere")


def test_trunk_is_most_of_the_model() -> None:
    from musicrl.musiclm.model import Shape

    with torch.device("meta"):
        whole, trunk = MusicLM(Shape()), Trunk(Shape())
    count = sum(p.numel() for p in whole.parameters())
    assert 12e6 < count < 14e6
    assert sum(p.numel() for p in trunk.parameters()) > 0.75 * count
