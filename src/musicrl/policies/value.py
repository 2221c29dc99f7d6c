"""Value network of MusicLM: what return to expect before each frame (MusicRL, section 3.2)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from musicrl.musiclm.model import Trunk
from musicrl.policies import lora


class MusicLMValue:
    """A trunk of its own, started from the base model's, and a linear head that starts at zero.

    It implements `musicrl.policies.protocol.ValueNetwork`.
    """

    def __init__(
        self, trunk: Trunk, condition: Callable[[Sequence[str]], Tensor], *, rank: int | None, dtype: torch.dtype
    ) -> None:
        """Copy a trunk.

        Args:
            trunk: of the base model, without adapters.
            condition: from B prompts to MuLan tokens [B, R].
            rank: of the adapters that are trained; None trains every weight.
            dtype: of the matrix products.
        """
        self._trunk = copy.deepcopy(trunk)
        self._head = nn.Linear(trunk.shape.width, trunk.shape.num_codebooks, device=trunk.start.device)
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)
        self._trunk.requires_grad_(True)
        if rank is not None:
            lora.inject(self._trunk, rank, seed=1)
        self._condition = condition
        self._dtype = dtype

    def __call__(self, prompts: Sequence[str], codes: Tensor) -> Tensor:
        """Return values [B, K, T]; those of frame t depend on prompts and codes [B, K, <t] only."""
        with torch.autocast(codes.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            states = self._trunk.states(codes, self._condition(prompts))
        return self._head(states.float()).transpose(1, 2)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return what is trained."""
        return [parameter for _, parameter in self._trained()]

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of what is trained, by name; the rest is the base model's."""
        return {name: parameter.detach().clone() for name, parameter in self._trained()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Fill in what `state_dict` returned."""
        for name, parameter in self._trained():
            parameter.copy_(state[name])

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        named = [*self._trunk.named_parameters("trunk"), *self._head.named_parameters("head")]
        return [(name, parameter) for name, parameter in named if parameter.requires_grad]
