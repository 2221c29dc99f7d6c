"""Low-rank adapters (LoRA, Hu et al. 2021, eq. 3): y = (W + s·B·A) x with W frozen.

The product is added to the weight, not to the output. The sampler and the scorer then multiply by the very same matrix,
a zero B gives the base bit for bit, and rank-16 products are small next to a batch of frames.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicrl.errors import UserError
from musicrl.musiclm.layers import Block

TARGETS = ("qkv", "out", "fc_in", "fc_out")
"""Linear layers of a block that are adapted."""

_GAIN = 2.0


class LoRALinear(nn.Module):
    """A frozen linear layer without bias and its adapter.

    Attributes:
        a: [rank, in], random at first.
        b: [out, rank], zero at first.
        enabled: whether the adapter acts.
    """

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        """Adapt a layer.

        Args:
            base: the layer; its weight is frozen.
            rank: of the product B·A.
            generator: source of `a`.
        """
        super().__init__()
        self.base = base.requires_grad_(False)
        a = torch.randn(rank, base.in_features, generator=generator) * base.in_features**-0.5
        self.a = nn.Parameter(a.to(base.weight.device))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
        self.enabled = True

    @property
    def weight(self) -> Tensor:
        """The matrix that acts, [out, in]."""
        if not self.enabled:
            return self.base.weight
        # In float32 whatever is cast around it: the sampler forms this product too, outside of any autocast.
        with torch.autocast(self.a.device.type, enabled=False):
            return self.base.weight + _GAIN * (self.b @ self.a)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        return F.linear(x, self.weight)


def inject(module: nn.Module, rank: int, *, seed: int = 0) -> None:
    """Freeze a module and adapt the `TARGETS` of every transformer block in it; the result computes the same.

    Args:
        module: holds `musicrl.musiclm.layers.Block`s that are not adapted yet.
        rank: of the adapters.
        seed: of their random halves.
    """
    module.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for block in module.modules():
        if isinstance(block, Block):
            for name in TARGETS:
                setattr(block, name, LoRALinear(getattr(block, name), rank, generator))


def adapters(module: nn.Module) -> dict[str, LoRALinear]:
    """Return the adapted layers of a module by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, LoRALinear)}


def remove(module: nn.Module) -> None:
    """Put the frozen layers back where `inject` found them; what the adapters learned is dropped."""
    for block in module.modules():
        if isinstance(block, Block):
            for name in TARGETS:
                layer = getattr(block, name)
                if isinstance(layer, LoRALinear):
                    setattr(block, name, layer.base)


@contextmanager
def disabled(module: nn.Module) -> Generator[None, None, None]:
    """Inside, the adapters of a module do not act."""
    layers = adapters(module).values()
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.enabled = enabled


def state(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the adapters of a module: `NAME.a` [rank, in] and `NAME.b` [out, rank]."""
    found = adapters(module)
    tensors = {f"{name}.a": layer.a for name, layer in found.items()}
    tensors |= {f"{name}.b": layer.b for name, layer in found.items()}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def load_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill the adapters of a module with what `state` returned.

    Raises:
        UserError: a tensor is missing or unknown, or has another shape.
    """
    own = {f"{name}.{side}": getattr(layer, side) for name, layer in adapters(module).items() for side in ("a", "b")}
    for name in sorted({*own, *tensors}):
        expected = list(own[name].shape) if name in own else "nothing"
        found = list(tensors[name].shape) if name in tensors else "nothing"
        if expected != found:
            raise UserError(f"the adapter does not fit: '{name}' is {found}, this model has {expected}")
        own[name].copy_(tensors[name])


def scaled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return adapter tensors of `state` with the gain put into `b`, so that W + b·a is the matrix that acts."""
    return {name: _GAIN * tensor if name.endswith(".b") else tensor for name, tensor in tensors.items()}


def stack(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return one `scaled` adapter that acts as two do one after the other; its rank is the sum of theirs."""
    if not first:
        return dict(second)
    return {name: torch.cat([first[name], tensor], 0 if name.endswith(".a") else 1) for name, tensor in second.items()}


@torch.no_grad()
def merge(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Add a `scaled` adapter to the weights of a module that is not adapted.

    Raises:
        UserError: the adapter names a layer that the module lacks, or one of another shape; the message names both.
    """
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        a, b = tensors.get(f"{name}.a"), tensors.get(f"{name}.b")
        weight = dict(module.named_parameters()).get(f"{name}.weight")
        found = None if a is None or b is None else [b.shape[0], a.shape[1]]
        if weight is None or a is None or b is None or found != list(weight.shape):
            here = "no such layer" if weight is None else list(weight.shape)
            raise UserError(f"the adapter does not fit this model: '{name}' is {found} there, {here} in the model")
        weight += b @ a
