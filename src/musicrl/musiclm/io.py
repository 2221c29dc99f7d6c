"""Tensors into modules, with a sentence for the user where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from musicrl import weights
from musicrl.errors import UserError


def checksums(*parts: str) -> dict[str, str]:
    """Return the SHA-256 of the installed weights of each part, as a model trained on their tokens keeps them.

    Raises:
        UserError: the weights of a part are missing or corrupt.
    """
    return {part: weights.read(part)[0]["sha256"] for part in parts}


def check_trained_on(config: Mapping[str, Any], name: str | Path, part: str) -> None:
    """Check that the parts whose tokens a model was trained on are the ones installed.

    Args:
        config: of the model; `trained_on` holds what `checksums` returned then.
        name: of the model, for the message.
        part: what `musicrl pretrain` calls it.

    Raises:
        UserError: a part is another one, or is missing.
    """
    for other, digest in config["trained_on"].items():
        installed: str = weights.read(other)[0]["sha256"]
        if installed != digest:
            raise UserError(
                f"weights {name} were trained on the tokens of another {other} ({digest[:12]}, installed is"
                f" {installed[:12]}); train them again with `musicrl pretrain {part}`"
            )


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
