"""Optimizer and random state in the two forms a checkpoint holds: tensors and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from musicrl.errors import UserError

Generator = torch.Generator | np.random.Generator


def pack(
    *,
    optimizer: Optimizer | Mapping[str, Optimizer] | None = None,
    generators: Mapping[str, Generator] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of optimizers and random generators, to be merged into what `Run.save` gets.

    Args:
        optimizer: one optimizer, or several by name.
        generators: torch or NumPy generators by name; `torch.default_generator` is torch's global one.

    Returns:
        Tensors under "optimizer." and "generator.", and JSON values under the same two keys.
    """
    tensors: dict[str, Tensor] = {}
    state: dict[str, Any] = {"optimizer": {}, "generator": {}}
    for name, one in _by_name(optimizer).items():
        saved = one.state_dict()
        rest: dict[str, dict[str, Any]] = {}
        for index, entries in saved["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{name}.{index}.{key}"] = value.detach().cpu().clone()
                else:
                    rest.setdefault(str(index), {})[key] = value
        state["optimizer"][name] = {"state": rest, "param_groups": saved["param_groups"]}
    for name, generator in (generators or {}).items():
        if isinstance(generator, torch.Generator):
            tensors[f"generator.{name}"] = generator.get_state().clone()
        else:
            state["generator"][name] = _plain(generator.bit_generator.state)
    return tensors, state


def unpack(
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    optimizer: Optimizer | Mapping[str, Optimizer] | None = None,
    generators: Mapping[str, Generator] | None = None,
) -> None:
    """Put back, bit for bit, what `pack` took from the same optimizers and generators.

    Args:
        tensors: tensors of a checkpoint; others than those of `pack` are left alone.
        state: JSON values of a checkpoint.
        optimizer: as given to `pack`, over parameters of the same shapes in the same order.
        generators: as given to `pack`.

    Raises:
        UserError: the checkpoint lacks one of them.
    """
    for name, one in _by_name(optimizer).items():
        saved = _get(state.get("optimizer", {}), name, "optimizer", name)
        entries: dict[int, dict[str, Any]] = {int(i): dict(rest) for i, rest in saved["state"].items()}
        prefix = f"optimizer.{name}."
        for key, tensor in tensors.items():
            if key.startswith(prefix):
                index, _, field = key.removeprefix(prefix).partition(".")
                entries.setdefault(int(index), {})[field] = tensor.clone()
        groups = [
            {k: tuple(cast("list[Any]", v)) if k == "betas" else v for k, v in g.items()} for g in saved["param_groups"]
        ]
        one.load_state_dict({"state": entries, "param_groups": groups})
    for name, generator in (generators or {}).items():
        if isinstance(generator, torch.Generator):
            generator.set_state(_get(tensors, f"generator.{name}", "generator", name).clone())
        else:
            generator.bit_generator.state = _get(state.get("generator", {}), name, "generator", name)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def finite(*tensors: Tensor) -> bool:
    """Return whether no value is NaN or infinite; a loop skips the step otherwise."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _by_name(optimizer: Optimizer | Mapping[str, Optimizer] | None) -> Mapping[str, Optimizer]:
    if optimizer is None:
        return {}
    return {"main": optimizer} if isinstance(optimizer, Optimizer) else optimizer


def _get(found: Mapping[str, Any], key: str, kind: str, name: str) -> Any:
    if key not in found:
        raise UserError(f"the checkpoint holds no {kind} '{name}'; it was written by another version, start a new run")
    return found[key]


def _plain(item: Any) -> Any:
    """Return a NumPy state dictionary with plain integers and lists, which JSON can hold."""
    if isinstance(item, dict):
        return {key: _plain(value) for key, value in cast("dict[str, Any]", item).items()}
    if isinstance(item, np.ndarray):
        return item.tolist()
    return item.item() if isinstance(item, np.generic) else item
