"""What the encoder is trained to hear: facts from a clip's notes, and random-projection labels where there are none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from musicrl.audio.frames import COLUMNS, FRAME_RATE, WIDTH, standardise
from musicrl.semantic.encoder import PITCHES

LOWEST_PITCH = 21
DRUMS = 128
"""Program number of percussion notes in a corpus."""
FAMILIES = 16
"""General MIDI programs come in sixteen families of eight."""
_DRUM_PITCHES = ((35, 36), (37, 38, 39, 40), (42, 44, 46), (41, 43, 45, 47, 48, 50), (49, 51, 52, 53, 55, 57, 59))
DRUM_CLASSES = len(_DRUM_PITCHES) + 1
"""Kick, snare, hi-hat, toms, cymbals, and all other percussion."""


@dataclass(frozen=True)
class NoteTargets:
    """Facts about each frame of a batch, float32 zeros and ones.

    Attributes:
        active: [B, T, 88] pitches that sound.
        onset: [B, T, 88] pitches that start.
        attack: [B, T, 4] whether any note or drum starts in each 10 ms.
        drums: [B, T, 6] drum classes struck.
        families: [B, T, 16] instrument families that sound.
        known: [B, 1, 1] one where the clip's notes are known.
    """

    active: Tensor
    onset: Tensor
    attack: Tensor
    drums: Tensor
    families: Tensor
    known: Tensor


def note_targets(notes: list[NDArray[np.float32] | None], starts: list[int], length: int) -> NoteTargets:
    """Return the targets of crops.

    Args:
        notes: for each crop the clip's notes [n, 5] (onset s, duration s, pitch, program, velocity), or None.
        starts: first frame of each crop.
        length: frames of a crop (T).
    """
    rolls = [_rolls(clip, start, length) for clip, start in zip(notes, starts, strict=True)]
    active, onset, attack, drums, families = (torch.from_numpy(np.stack(part)) for part in zip(*rolls, strict=True))
    known = torch.tensor([clip is not None for clip in notes]).float()[:, None, None]
    return NoteTargets(active, onset, attack, drums, families, known)


def _rolls(notes: NDArray[np.float32] | None, start: int, length: int) -> tuple[NDArray[np.float32], ...]:
    active, onset, attack, drums, families = (
        np.zeros((length + 1, width), np.float32) for width in (PITCHES, PITCHES, COLUMNS, DRUM_CLASSES, FAMILIES)
    )
    if notes is not None and len(notes):
        begin = notes[:, 0] * FRAME_RATE - start
        end = begin + notes[:, 1] * FRAME_RATE
        pitch, program = notes[:, 2].astype(int), notes[:, 3].astype(int)
        tuned = (program != DRUMS) & (pitch >= LOWEST_PITCH) & (pitch < LOWEST_PITCH + PITCHES)
        first = np.clip(np.round(begin), 0, length).astype(int)
        last = np.clip(np.maximum(np.round(end), np.round(begin) + 1), 0, length).astype(int)
        for roll, column in ((active, pitch - LOWEST_PITCH), (families, program // 8)):
            np.add.at(roll, (first[tuned], column[tuned]), 1.0)
            np.add.at(roll, (last[tuned], column[tuned]), -1.0)
            roll[:] = np.cumsum(roll, axis=0) > 0.5
        inside = (begin >= 0) & (begin < length)
        frame = np.floor(begin).astype(int)
        onset[frame[inside & tuned], pitch[inside & tuned] - LOWEST_PITCH] = 1.0
        attack[frame[inside], ((begin - frame) * COLUMNS).astype(int)[inside]] = 1.0
        struck = inside & (program == DRUMS)
        drums[frame[struck], [_drum_class(p) for p in pitch[struck]]] = 1.0
    return active[:length], onset[:length], attack[:length], drums[:length], families[:length]


def _drum_class(pitch: int) -> int:
    return next((i for i, members in enumerate(_DRUM_PITCHES) if pitch in members), DRUM_CLASSES - 1)


class RandomProjectionLabels(nn.Module):
    """Labels of BEST-RQ (Chiu et al. 2022): the nearest random code of a random projection of each frame."""

    def __init__(self, codebooks: int, size: int, dim: int, seed: int) -> None:
        """Draw `codebooks` projections to `dim` and as many sets of `size` codes; they are never trained."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.projection: Tensor
        self.codes: Tensor
        self.register_buffer("projection", torch.randn(codebooks, WIDTH, dim, generator=generator) / WIDTH**0.5)
        codes = F.normalize(torch.randn(codebooks, size, dim, generator=generator), dim=-1)
        self.register_buffer("codes", codes)

    @torch.no_grad()
    def forward(self, frames: Tensor, masked: Tensor) -> Tensor:
        """Return labels [M, codebooks] int64 of the M `masked` [B, T] frames of [B, T, 404]; clips are centred."""
        x = standardise(frames)
        x = (x - x.mean(dim=1, keepdim=True))[masked]
        vectors = F.normalize(torch.einsum("mw,cwd->mcd", x, self.projection), dim=-1)
        return torch.einsum("mcd,cvd->mcv", vectors, self.codes).argmax(-1)


def random_spans(shape: tuple[int, int], share: float, span: int, generator: torch.Generator) -> Tensor:
    """Return a mask [B, T] of spans of `span` frames that together cover about `share` of all frames."""
    # A frame is free only if none of the `span` frames up to it starts a span.
    chance = 1 - (1 - share) ** (1 / span)
    starts = (torch.rand(shape, generator=generator) < chance).float()
    covered = F.max_pool1d(F.pad(starts, (span - 1, 0))[:, None], span, stride=1)
    return covered[:, 0] > 0
