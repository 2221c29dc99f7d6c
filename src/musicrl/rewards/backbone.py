"""The trunk of MusicLM as the backbone of the preference reward (MusicRL, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from musicrl import devices, mulan, musiclm, weights
from musicrl.musiclm.model import Trunk
from musicrl.policies import lora
from musicrl.policies.condition import TextCondition

Tune = Literal["head", "lora", "full"]


class MusicLMBackbone:
    """States of a trunk that is frozen, adapted, or trained whole; a `musicrl.rewards.preference.Backbone`.

    Args:
        trunk: changed in place.
        condition: from B prompts to MuLan tokens [B, R].
        tune: "head" freezes the trunk, "lora" trains adapters, "full" every weight.
        rank: of the adapters.
        base_sha256: of the weights the trunk was loaded from.
        autocast: whether matrix products are bfloat16 where the hardware has units for it.
    """

    def __init__(
        self,
        trunk: Trunk,
        condition: Callable[[Sequence[str]], Tensor],
        *,
        tune: Tune,
        rank: int,
        base_sha256: str,
        autocast: bool,
    ) -> None:
        self.width = trunk.shape.width
        self.max_frames = trunk.shape.max_frames
        self.device = trunk.start.device
        self.base_sha256 = base_sha256
        self._trunk = trunk.eval().requires_grad_(tune == "full")
        if tune == "lora":
            lora.inject(self._trunk, rank)
        self._condition = condition
        self._autocast = autocast

    def hidden(self, prompts: Sequence[str], codes: Tensor) -> Tensor:
        """Return the state after each frame, [B, T, D] for codes [B, K, T]."""
        tokens = self._condition(prompts).to(self.device)
        with devices.autocast(self.device, self._autocast):
            return self._trunk.hidden(codes, tokens).float()

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what is trained."""
        return [parameter for _, parameter in self._trained()]

    def trainable_state(self) -> dict[str, Tensor]:
        """Return a copy of what is trained, by name."""
        return {name: parameter.detach().clone() for name, parameter in self._trained()}

    @torch.no_grad()
    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Fill in what `trainable_state` returned."""
        for name, parameter in self._trained():
            parameter.copy_(state[name])

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self._trunk.named_parameters() if parameter.requires_grad]


def load(base: str | Path, tune: Tune, rank: int) -> MusicLMBackbone:
    """Return the trunk of a base model, with MuLan to read the prompts.

    Args:
        base: an embedded part, or a folder with all weights of a MusicLM.
        tune: what will be trained.
        rank: of the adapters.

    Raises:
        UserError: weights are missing or corrupt.
    """
    trunk = musiclm.load(base).trunk.to(devices.pick())
    digest: str = weights.read(base)[0]["sha256"]
    condition = TextCondition(mulan.load())
    return MusicLMBackbone(trunk, condition, tune=tune, rank=rank, base_sha256=digest, autocast=True)
