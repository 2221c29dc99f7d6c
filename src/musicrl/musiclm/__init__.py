"""MusicLM: hierarchical token model, sampler with a static cache, and the parallel fine stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from musicrl import weights
from musicrl.errors import UserError
from musicrl.musiclm.io import check_trained_on, load_into
from musicrl.musiclm.model import MusicLM, Shape

__all__ = ["MusicLM", "Shape", "load", "save"]

_CODEBOOKS = "trunk.condition.codebooks"


def save(model: MusicLM, path: Path, card: str, *, trained_on: Mapping[str, str]) -> None:
    """Write a model so that `load` reads it.

    The MuLan codebooks stay where they are, in MuLan's own weights.

    Args:
        model: what to write, in bf16.
        path: folder.
        card: model card.
        trained_on: `io.checksums` of the parts whose tokens it was trained on.

    Raises:
        UserError: the folder cannot be written.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != _CODEBOOKS}
    weights.write(
        path, {"kind": "musiclm", "shape": asdict(model.shape), "trained_on": dict(trained_on)}, tensors, card
    )


def load(name_or_path: str | Path = "musiclm") -> MusicLM:
    """Return the model that ships with the package, or one from a folder.

    Raises:
        UserError: the weights are missing or corrupt, of another kind or shape, or were trained on the tokens of other
            parts than those installed.
    """
    config, tensors = weights.read(name_or_path)
    if config.get("kind") != "musiclm":
        raise UserError(f"{name_or_path} holds no MusicLM, it says '{config.get('kind')}'; give another folder")
    with weights.building("MusicLM", name_or_path):
        check_trained_on(config, name_or_path, "musiclm")
        tensors[_CODEBOOKS] = weights.read("mulan")[1]["codebooks"]
        model = MusicLM(Shape(**config["shape"]))
        load_into(model, tensors, str(name_or_path))
    return model.eval().requires_grad_(False)
