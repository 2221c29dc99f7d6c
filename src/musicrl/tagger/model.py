"""A classifier of what a clip is: style, lead, tempo class and so on.

It judges whether a clip matches its prompt, for simulated listeners and for evaluation, and is never a reward. Its
architecture (dilated convolutions, statistics pooling) shares nothing with MuLan's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicrl import weights
from musicrl.audio.frames import FRAME_RATE, HOP, SAMPLE_RATE, WIDTH, frames, standardise
from musicrl.errors import UserError

SHORTEST = 3 * int(FRAME_RATE)
"""Frames of the shortest clip it was trained on; shorter ones are repeated until they fill it."""


class Tagger(nn.Module):
    """Audio to calibrated probabilities of attribute values.

    Attributes:
        labels: for each attribute the names of its values, in the order of the probabilities.
        sample_rate: Hz of the audio it reads, 24,000.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, *, width: int, dilations: Sequence[int], labels: Mapping[str, Sequence[str]]) -> None:
        """Make a classifier with random weights, to be trained or loaded."""
        super().__init__()
        self.labels = {name: list(values) for name, values in labels.items()}
        self.enter = nn.Linear(WIDTH, width)
        self.blocks = nn.ModuleList([_DilatedBlock(width, dilation) for dilation in dilations])
        self.norm = nn.LayerNorm(3 * width)
        self.mix = nn.Linear(3 * width, width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in self.labels.items()})
        self.temperatures: Tensor
        self.register_buffer("temperatures", torch.ones(len(self.labels)))

    def logits(self, x: Tensor) -> dict[str, Tensor]:
        """Return the logits [B, C] of each attribute, not calibrated, for feature frames [B, T, 404]."""
        x = self.enter(standardise(x))
        for block in self.blocks:
            x = block(x)
        x = x.float()
        pooled = torch.cat([x.mean(1), (x.var(1, correction=0) + 1e-4).sqrt(), x.amax(1)], -1)
        h = F.gelu(self.mix(self.norm(pooled)))
        return {name: self.heads[name](h).float() for name in self.labels}

    @torch.no_grad()
    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Return the probabilities of each attribute's values.

        Args:
            audio: [B, N] float at 24 kHz, at least one frame (960 samples); below 3 s it is repeated.

        Returns:
            For each attribute [B, C]; rows sum to one.

        Raises:
            UserError: the audio is shorter than one frame.
        """
        if audio.shape[-1] < HOP:
            raise UserError(f"audio of {audio.shape[-1]} samples is too short for the tagger; give at least {HOP}")
        x = frames(audio)
        if x.shape[1] < SHORTEST:
            x = x.repeat(1, -(-SHORTEST // x.shape[1]), 1)[:, :SHORTEST]
        logits = self.logits(x)
        return {
            name: (logits[name] / temperature).softmax(-1)
            for name, temperature in zip(self.labels, self.temperatures, strict=True)
        }

    def match(self, audio: Tensor, attributes: Sequence[Mapping[str, Any]]) -> Tensor:
        """Return how well clips match what their prompts name.

        Args:
            audio: [B, N] float at 24 kHz.
            attributes: for each clip the values its prompt names. None, and attributes this classifier does not know
                (such as a list of instruments), are left out.

        Returns:
            [B] mean probability of the named values; 1 where a prompt names none, since no clip contradicts it.

        Raises:
            UserError: a value is not among the labels of its attribute.
        """
        probabilities = self(audio)
        rows: list[Tensor] = []
        for b, named in enumerate(attributes):
            found = [
                probabilities[name][b, self.index(name, value)]
                for name, value in named.items()
                if name in self.labels and value is not None
            ]
            rows.append(torch.stack(found).mean() if found else audio.new_ones(()))
        return torch.stack(rows)

    def index(self, attribute: str, value: object) -> int:
        """Return the place of a value among the labels of an attribute.

        Raises:
            UserError: it is not one of them.
        """
        try:
            return self.labels[attribute].index(label(value))
        except ValueError:
            raise UserError(
                f"the tagger knows no {attribute} '{label(value)}'; it knows {', '.join(self.labels[attribute])}"
            ) from None


class _DilatedBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.spread = nn.Linear(5 * width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        reach = 2 * self.dilation
        padded = F.pad(self.norm(x), (0, 0, reach, reach))
        # A convolution written as one matrix product over five shifted copies.
        shifted = [padded[:, k * self.dilation : k * self.dilation + x.shape[1]] for k in range(5)]
        return x + self.out(F.gelu(self.spread(torch.cat(shifted, -1))))


def label(value: object) -> str:
    """Return the name of an attribute's value: "yes" and "no" for truth values."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def load(name_or_path: str | Path = "tagger") -> Tagger:
    """Return the classifier that ships with the package, or one from a folder.

    Raises:
        UserError: the weights are missing or corrupt.
    """
    config, tensors = weights.read(name_or_path)
    with weights.building("tagger", name_or_path):
        tagger = Tagger(width=config["width"], dilations=config["dilations"], labels=config["labels"])
        tagger.load_state_dict(tensors)
    return tagger.eval().requires_grad_(False)
