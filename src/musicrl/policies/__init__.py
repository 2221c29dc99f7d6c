"""Token models that can be finetuned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from musicrl.policies.musiclm import MusicLMPolicy

__all__ = ["EMBEDDED", "checkpoint_sha256", "load"]

EMBEDDED = ("base", "r", "u", "ru")
"""Models that ship with the package: MusicLM, MusicRL-R, MusicRL-U and MusicRL-RU."""


def load(
    model: str | Path = "base",
    device: torch.device | None = None,
    *,
    rank: int | None = 16,
    dtype: torch.dtype | None = None,
) -> MusicLMPolicy:
    """Return a model ready to sample, to be scored, and to be finetuned with itself as the reference.

    Args:
        model: one of `EMBEDDED`, or a folder that a policy's `save` wrote.
        device: where it runs; the best there is if None.
        rank: of the adapters finetuning trains; None trains every weight.
        dtype: of the matrix products, see `MusicLMPolicy`; None takes bfloat16 where the hardware has units for it.

    Raises:
        UserError: there is no such model, or its weights are missing, corrupt, or of another architecture.
    """
    import torch

    from musicrl import codec as codec_room
    from musicrl import devices, mulan, musiclm, weights
    from musicrl.errors import UserError
    from musicrl.musiclm import fine
    from musicrl.policies import lora
    from musicrl.policies.condition import TextCondition
    from musicrl.policies.decoder import Decoder
    from musicrl.policies.musiclm import MusicLMPolicy

    device = device or devices.pick()
    if dtype is None:
        fast = device.type == "cuda" or (device.type == "cpu" and devices.cpu_has_bf16_matrix_units())
        dtype = torch.bfloat16 if fast else torch.float32
    name = _weights(model)
    config, tensors = weights.read(name)
    base: str | None = None
    start: dict[str, torch.Tensor] = {}
    if config.get("kind") == "adapter":
        installed: str = weights.read("musiclm")[0]["sha256"]
        if config["base"] != installed:
            raise UserError(
                f"the adapter {model} was trained on another base ({config['base'][:12]},"
                f" installed is {installed[:12]}); finetune again from the installed one"
            )
        network, base, start = musiclm.load(), installed, tensors
        lora.merge(network, start)
    else:
        network = musiclm.load(name)
        base = config["sha256"] if name == "musiclm" else None
    decoder = Decoder(fine.load().to(device), codec_room.load().to(device))
    return MusicLMPolicy(
        network.to(device),
        TextCondition(mulan.load()),
        decoder,
        trained_on=config.get("trained_on") or weights.read("musiclm")[0]["trained_on"],
        base=base,
        start=start,
        rank=rank,
        dtype=dtype,
        sample_rate=decoder.sample_rate,
    )


def checkpoint_sha256(model: str | Path) -> str:
    """Return the SHA-256 of a model's weights, as `load` finds them.

    Raises:
        UserError: there is no such model, or its weights are missing or corrupt.
    """
    from musicrl import weights

    return weights.read(_weights(model))[0]["sha256"]


def _weights(model: str | Path) -> str | Path:
    name = str(model)
    return {"base": "musiclm"}.get(name, name) if name in EMBEDDED else Path(model)
