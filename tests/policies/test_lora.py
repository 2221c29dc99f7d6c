from __future__ import annotations

import pytest
import torch
from torch import nn

from musicrl.errors import UserError
from musicrl.musiclm.layers import Block
from musicrl.policies import lora


def blocks() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleList([Block(8, 2, causal=True), Block(8, 2, causal=True)])


def run(module: nn.Module) -> torch.Tensor:
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    for block in module.children():
        x = block(x, None)
    return x


def learn(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in lora.adapters(module).values():
            layer.b.copy_(torch.randn(layer.b.shape, generator=generator))


def test_adapters_start_as_nothing_bit_for_bit() -> None:
    module = blocks()
    before = run(module)
    lora.inject(module, 3)
    assert len(lora.adapters(module)) == 8
    assert torch.equal(run(module), before)


def test_only_adapters_learn() -> None:
    module = blocks()
    lora.inject(module, 3)
    run(module).sum().backward()
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert {name.rpartition(".")[2] for name in trained} == {"a", "b"}
    layer = lora.adapters(module)["0.qkv"]
    assert layer.b.grad is not None
    assert float(layer.b.grad.abs().sum()) > 0
    assert layer.base.weight.grad is None


def test_weight_by_hand() -> None:
    layer = lora.LoRALinear(nn.Linear(2, 2, bias=False), 1, torch.Generator())
    with torch.no_grad():
        layer.base.weight.copy_(torch.eye(2))
        layer.a.copy_(torch.tensor([[1.0, 2.0]]))
        layer.b.copy_(torch.tensor([[0.5], [1.0]]))
    assert layer.weight.tolist() == [[2.0, 2.0], [2.0, 5.0]]
    assert layer(torch.tensor([1.0, 1.0])).tolist() == [4.0, 7.0]


def test_disabled_is_the_base_and_ends_with_the_context() -> None:
    module = blocks()
    before = run(module)
    lora.inject(module, 3)
    learn(module)
    adapted = run(module)
    assert not torch.allclose(adapted, before, atol=1e-2)
    with pytest.raises(RuntimeError), lora.disabled(module):
        assert torch.equal(run(module), before)
        with lora.disabled(module):
            pass
        assert torch.equal(run(module), before)
        raise RuntimeError
    assert torch.equal(run(module), adapted)


def test_merged_and_stacked_adapters_act_alike() -> None:
    first, second = blocks(), blocks()
    lora.inject(first, 3)
    learn(first)
    one = lora.scaled(lora.state(first))
    lora.merge(second, one)
    assert torch.allclose(run(second), run(first), atol=1e-5)

    lora.inject(second, 2, seed=5)
    learn(second)
    both = lora.stack(one, lora.scaled(lora.state(second)))
    assert both["0.qkv.a"].shape == (5, 8)
    third = blocks()
    lora.merge(third, both)
    assert torch.allclose(run(third), run(second), atol=1e-4)


def test_remove_gives_the_base_back() -> None:
    module = blocks()
    before = run(module)
    lora.inject(module, 3)
    learn(module)
    lora.remove(module)
    assert not lora.adapters(module)
    assert torch.equal(run(module), before)


def test_state_is_a_copy_and_comes_back() -> None:
    module, other = blocks(), blocks()
    lora.inject(module, 3)
    learn(module)
    saved = lora.state(module)
    lora.inject(other, 3, seed=9)
    lora.load_state(other, saved)
    assert torch.equal(run(other), run(module))
    learned = run(module)
    lora.load_state(other, {name: torch.zeros_like(tensor) for name, tensor in saved.items()})
    assert torch.equal(run(module), learned)


def test_another_shape_names_both() -> None:
    module = blocks()
    lora.inject(module, 3)
    saved = lora.scaled(lora.state(module))
    wider = nn.ModuleList([Block(16, 2, causal=True)])
    with pytest.raises(UserError, match=r"\[32, 8\] there, \[64, 16\] in the model"):
        lora.merge(wider, saved)
    lora.inject(wider, 3)
    with pytest.raises(UserError, match=r"is \[3, 8\], this model has \[3, 16\]"):
        lora.load_state(wider, saved)
