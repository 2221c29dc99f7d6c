"""Several rewards as one: a weighted sum of standardised parts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from musicrl.errors import UserError
from musicrl.rewards.generations import needs_audio
from musicrl.rewards.protocol import Generations, Reward


class WeightedSum:
    """Σ_i w_i · (r_i − mean_i) / deviation_i, with constants that do not move during training.

    MusicRL-R sums text adherence and quality "on the same scale"; here the scale is that of the model finetuning starts
    from (`musicrl.rl.calibrate`), so a weight says how many deviations of one part are worth one of another.

    Args:
        rewards: rewards by name.
        weights: weight of each, by the same names.
        scales: (mean, deviation) of each, by the same names; (0, 1) leaves a reward in its own units.
        name: name of the sum.

    Raises:
        UserError: the names do not agree, there are none, or a deviation is not > 0.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        weights: Mapping[str, float],
        scales: Mapping[str, tuple[float, float]],
        name: str = "sum",
    ) -> None:
        if not rewards or rewards.keys() != weights.keys() or rewards.keys() != scales.keys():
            raise UserError(
                f"rewards {sorted(rewards)}, weights {sorted(weights)} and scales {sorted(scales)} must name the same"
                " one or more rewards"
            )
        flat = sorted(name for name, (_, deviation) in scales.items() if not deviation > 0.0)
        if flat:
            raise UserError(f"scales of {', '.join(flat)} have a deviation that is not > 0; give (mean, deviation)")
        self.name = name
        self.needs_audio = any(needs_audio(reward) for reward in rewards.values())
        self._rewards = dict(rewards)
        self._weights = dict(weights)
        self._scales = dict(scales)

    def parts(self, batch: Generations) -> dict[str, Tensor]:
        """Return the rewards [B] of each part in its own units."""
        return {name: reward(batch) for name, reward in self._rewards.items()}

    def combine(self, parts: dict[str, Tensor]) -> Tensor:
        """Return the sum [B] made of what `parts` returned."""
        terms = [
            self._weights[name] * (values.float() - self._scales[name][0]) / self._scales[name][1]
            for name, values in parts.items()
        ]
        return torch.stack(terms).sum(dim=0)

    def __call__(self, batch: Generations) -> Tensor:
        """Return the sum [B] float32."""
        return self.combine(self.parts(batch))
