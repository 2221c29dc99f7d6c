"""Tensors into modules, with a sentence for the user where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from musicrl.errors import UserError


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Fill a module with tensors by name.

    Raises:
        UserError: a tensor is missing, unknown, or has another shape; the message names both shapes.
    """
    own = module.state_dict()
    for key in sorted({*own, *tensors}):
        expected = list(own[key].shape) if key in own else "nothing"
        found = list(tensors[key].shape) if key in tensors else "nothing"
        if expected != found:
            raise UserError(
                f"weights {name} do not fit this model: '{key}' is {found}, the model has {expected};"
                " give weights of this architecture"
            )
    module.load_state_dict(tensors)
