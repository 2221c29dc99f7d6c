"""Fine stage: the codec levels that MusicLM leaves out, filled in parallel (SoundStorm, Borsos et al. 2023).

A bidirectional transformer at the codec's 50 Hz sees the semantic codes and the levels known so far, and predicts a
level at every frame at once. Level 2 takes two passes, the frames it is surest of first; from level 5 on a
pass gives two levels. Filling is greedy, so the same codes always give the same audio; there is no
prompt to condition on, because the semantic codes already say what is played and on what.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from musicrl import weights
from musicrl.errors import UserError
from musicrl.musiclm.io import load_into
from musicrl.musiclm.layers import Block, initialise, rotary
from musicrl.musiclm.layout import SEMANTIC

UNKNOWN = -1
"""Code of a frame whose level is yet to be predicted."""

PASSES = ((1,), (2,), (3,), (4, 5), (6, 7), (8, 9), (10, 11))
"""Levels, counted from 0, that one pass gives; the first is passed over twice."""


@dataclass(frozen=True)
class FineShape:
    """Everything that fixes the shapes of a fine stage; config.json of its weights carries it.

    Attributes:
        width: D.
        layers: blocks.
        heads: attention heads.
        head_width: rank of the output matrix of a level.
        max_frames: codec frames of a window; longer clips are filled window by window.
        levels: codec levels, known ones included.
        codebook_size: V, of codec and semantic codes.
        latent_width: width of a codec code vector.
    """

    width: int = 256
    layers: int = 4
    heads: int = 4
    head_width: int = 64
    max_frames: int = 250
    levels: int = 12
    codebook_size: int = 1024
    latent_width: int = 64


class FineStage(nn.Module):
    """Predicts codec levels from semantic codes and lower levels.

    Known codec codes enter as the sum of their codec vectors, which is the latent that the codec would decode.
    """

    codebooks: Tensor

    def __init__(self, shape: FineShape) -> None:
        """Make a stage with random weights and random codec codebooks."""
        super().__init__()
        self.shape = shape
        width = shape.width
        self.register_buffer("codebooks", torch.randn(shape.levels, shape.codebook_size, shape.latent_width))
        self.semantic = nn.Embedding(SEMANTIC * shape.codebook_size, width)
        self.from_latent = nn.Linear(shape.latent_width, width)
        self.from_level = nn.Linear(shape.latent_width, width)
        self.unknown = nn.Parameter(torch.zeros(width))
        self.level = nn.Embedding(shape.levels, width)
        self.parity = nn.Embedding(2, width)
        self.blocks = nn.ModuleList(Block(width, shape.heads, causal=False) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width, bias=False)
        initialise(self, shape.layers)
        self.narrow = nn.Parameter(torch.randn(shape.levels, width, shape.head_width) * width**-0.5)
        self.tables = nn.Parameter(torch.randn(shape.levels, shape.head_width, shape.codebook_size) * 0.02)
        self.bias = nn.Parameter(torch.zeros(shape.levels, shape.codebook_size))

    def states(self, semantic: Tensor, acoustic: Tensor, level: Tensor, known: Tensor) -> Tensor:
        """Return states from which the codes of a level can be predicted.

        Args:
            semantic: [B, 2, T] int64 semantic codes at 25 Hz.
            acoustic: [B, L, 2·T] codec codes; levels from `level` on are not read, L may be less than all.
            level: [B] int64, the level asked for, at least 1.
            known: [B, 2·T] int64 codes of that level, `UNKNOWN` where they are to be predicted.

        Returns:
            [B, 2·T, D].
        """
        size = self.shape.codebook_size
        offsets = torch.arange(SEMANTIC, device=semantic.device)[:, None] * size
        music = self.semantic(semantic + offsets).sum(1).repeat_interleave(2, 1)
        lower = torch.arange(acoustic.shape[1], device=acoustic.device) < level[:, None]
        latent = torch.zeros((*known.shape, self.shape.latent_width), device=known.device)
        for i in range(acoustic.shape[1]):
            latent = latent + self.codebooks[i][acoustic[:, i]] * lower[:, i, None, None]
        seen = (known >= 0)[..., None]
        own = self.from_level(self.codebooks[level[:, None], known.clamp(min=0)])
        parity = self.parity.weight.repeat(semantic.shape[2], 1)
        x = (
            music
            + self.from_latent(latent)
            + torch.where(seen, own, self.unknown)
            + parity
            + self.level(level)[:, None]
        )
        table = rotary(torch.arange(x.shape[1], device=x.device), self.shape.width // self.shape.heads)
        for block in self.blocks:
            x = block(x, table)
        return self.norm(x)

    def logits(self, states: Tensor, level: Tensor) -> Tensor:
        """Return logits [B, T, V] of `level` [B] from states [B, T, D]."""
        return torch.baddbmm(self.bias[level][:, None], torch.bmm(states, self.narrow[level]), self.tables[level])

    @torch.no_grad()
    def fill(self, semantic: Tensor, acoustic: Tensor) -> Tensor:
        """Return all codec levels; those given stay as they are.

        Args:
            semantic: [B, 2, T] int64 semantic codes at 25 Hz.
            acoustic: [B, L, 2·T] int64 codes of the first L codec levels.

        Returns:
            [B, 12, 2·T] int64.
        """
        frames = acoustic.shape[2]
        window = self.shape.max_frames // 2 * 2
        if frames <= window:
            return self._fill(semantic, acoustic)
        out = acoustic.new_empty(acoustic.shape[0], self.shape.levels, frames)
        margin = window // 20 * 2
        for start, first, last in windows(frames, window, margin):
            half = slice(start // 2, (start + window) // 2)
            part = self._fill(semantic[..., half], acoustic[..., start : start + window])
            out[..., first:last] = part[..., first - start : last - start]
        return out

    def _fill(self, semantic: Tensor, acoustic: Tensor) -> Tensor:
        batch, given, frames = acoustic.shape
        codes = acoustic
        for levels in PASSES:
            wanted = [level for level in levels if given <= level < self.shape.levels]
            if not wanted:
                continue
            level = torch.full((batch,), wanted[0], device=codes.device)
            known = torch.full((batch, frames), UNKNOWN, device=codes.device)
            if wanted[0] == PASSES[0][0]:
                best = self.logits(self.states(semantic, codes, level, known), level).log_softmax(-1).max(-1)
                sure = best.values >= best.values.median(1, keepdim=True).values
                known = torch.where(sure, best.indices, known)
            states = self.states(semantic, codes, level, known)
            for i in wanted:
                found = self.logits(states, torch.full_like(level, i)).argmax(-1)
                if i == wanted[0]:
                    found = torch.where(known >= 0, known, found)
                codes = torch.cat([codes, found[:, None]], 1)
        return codes


def windows(frames: int, window: int, margin: int) -> list[tuple[int, int, int]]:
    """Cut a long clip into windows that overlap, each keeping what is at least `margin` from its inner borders.

    Args:
        frames: length of the clip, more than `window`.
        window: length of a window.
        margin: frames at a border that are left to the neighbour where there is one; even.

    Returns:
        (start of the window, first frame kept, end of the frames kept) for each; kept parts tile the clip.
    """
    cut: list[tuple[int, int, int]] = []
    first = 0
    while first < frames:
        start = min(max(0, first - margin), frames - window)
        last = frames if start + window >= frames else start + window - margin
        cut.append((start, first, last))
        first = last
    return cut


def save(model: FineStage, path: Path, card: str, *, codec: str) -> None:
    """Write a fine stage so that `load` reads it; the codec's codebooks stay in its own weights.

    Args:
        model: what to write, in bf16.
        path: folder.
        card: model card.
        codec: SHA-256 of the codec weights it was trained on.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "codebooks"}
    weights.write(path, {"shape": asdict(model.shape), "codec": codec}, tensors, card)


def load(name_or_path: str | Path = "fine") -> FineStage:
    """Return the fine stage that ships with the package, or one from a folder.

    Raises:
        UserError: the weights are missing, corrupt, or were trained on another codec than the one installed.
    """
    config, tensors = weights.read(name_or_path)
    codec_config, codec_tensors = weights.read("codec")
    if config["codec"] != codec_config["sha256"]:
        raise UserError(
            f"weights {name_or_path} were trained on the codes of another codec ({config['codec'][:12]},"
            f" installed is {codec_config['sha256'][:12]}); train them again with `musicrl pretrain fine`"
        )
    tensors["codebooks"] = codec_tensors["quantizer.codebooks"]
    model = FineStage(FineShape(**config["shape"]))
    load_into(model, tensors, str(name_or_path))
    return model.eval().requires_grad_(False)
