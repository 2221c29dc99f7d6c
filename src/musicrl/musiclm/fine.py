"""Fine stage: what the codec levels that MusicLM leaves out add to its sound, predicted in one parallel pass.

A bidirectional transformer at the codec's 50 Hz sees the semantic codes and the levels that MusicLM gives, and predicts
the sum of the code vectors of all other levels at every frame at once. SoundStorm (Borsos et al. 2023) predicts their
codes instead, level by level. To a small model those codes are close to random, and the most likely code of each frame
is a worse guess of the sound than their expected sum (docs/decisions.md).

The same codes always give the same audio. There is no prompt to condition on: the semantic codes already say what is
played and on what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from musicrl import weights
from musicrl.errors import UserError
from musicrl.musiclm.io import check_trained_on, load_into
from musicrl.musiclm.layers import Block, initialise, rotary
from musicrl.musiclm.layout import SEMANTIC


@dataclass(frozen=True)
class FineShape:
    """Everything that fixes the shapes of a fine stage; config.json of its weights carries it.

    Attributes:
        width: D.
        layers: blocks.
        heads: attention heads.
        max_frames: codec frames of a window; longer clips are done window by window.
        levels: L, codec levels that are given.
        codebook_size: V, of codec and semantic codes.
        latent_width: width of a codec code vector.
    """

    width: int = 256
    layers: int = 4
    heads: int = 4
    max_frames: int = 250
    levels: int = 1
    codebook_size: int = 1024
    latent_width: int = 64


class FineStage(nn.Module):
    """Semantic codes and the first codec levels to the latent that the codec decodes.

    Codec codes enter as the sum of their code vectors.
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
        self.hidden = nn.Parameter(torch.randn(width) * 0.1)
        self.parity = nn.Embedding(2, width)
        self.blocks = nn.ModuleList(Block(width, shape.heads, causal=False) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width, bias=False)
        initialise(self, shape.layers)
        self.to_latent = nn.Linear(width, shape.latent_width)
        # A fresh stage adds nothing to the levels it is given.
        nn.init.zeros_(self.to_latent.weight)
        nn.init.zeros_(self.to_latent.bias)

    def forward(self, semantic: Tensor, acoustic: Tensor, shown: Tensor | None = None) -> Tensor:
        """Return the latents of all levels together.

        Args:
            semantic: [B, 2, T] int64 semantic codes at 25 Hz.
            acoustic: [B, L, 2·T] int64 codes of the levels that are given.
            shown: [B, 2·T] bool, frames whose acoustic codes the network sees; None shows all.

        Returns:
            [B, 2·T, latent_width]: what is given, plus a prediction of the rest.
        """
        offsets = torch.arange(SEMANTIC, device=semantic.device)[:, None] * self.shape.codebook_size
        music = self.semantic(semantic + offsets).sum(1).repeat_interleave(2, 1)
        given = latents(self.codebooks, acoustic)
        sound = self.from_latent(given)
        if shown is not None:
            given = given * shown[..., None]
            sound = torch.where(shown[..., None], sound, self.hidden)
        x = music + sound + self.parity.weight.repeat(semantic.shape[2], 1)
        table = rotary(torch.arange(x.shape[1], device=x.device), self.shape.width // self.shape.heads)
        for block in self.blocks:
            x = block(x, table)
        return given + self.to_latent(self.norm(x)).float()

    @torch.no_grad()
    def fill(self, semantic: Tensor, acoustic: Tensor) -> Tensor:
        """Return the latents [B, 2·T, latent_width] of a clip of any length; arguments as in `forward`.

        Raises:
            UserError: another number of codec levels is given than it was trained on.
        """
        frames = acoustic.shape[2]
        if acoustic.shape[1] != self.shape.levels:
            raise UserError(
                f"the fine stage was trained on {self.shape.levels} codec levels and MusicLM gives"
                f" {acoustic.shape[1]}; train it with `musicrl pretrain fine levels={acoustic.shape[1]}`"
            )
        window = self.shape.max_frames // 2 * 2
        if frames <= window:
            return self(semantic, acoustic)
        out = acoustic.new_empty((acoustic.shape[0], frames, self.shape.latent_width), dtype=torch.float32)
        for start, first, last in windows(frames, window, window // 20 * 2):
            half = slice(start // 2, (start + window) // 2)
            part = self(semantic[..., half], acoustic[..., start : start + window])
            out[:, first:last] = part[:, first - start : last - start]
        return out


def latents(codebooks: Tensor, acoustic: Tensor) -> Tensor:
    """Return the sum of code vectors [B, T, D] of codes [B, L, T] in the first L of the codebooks [≥ L, V, D]."""
    levels = range(acoustic.shape[1])
    return torch.stack([codebooks[level][acoustic[:, level]] for level in levels]).sum(0)


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


def save(model: FineStage, path: Path, card: str, *, trained_on: Mapping[str, str]) -> None:
    """Write a fine stage so that `load` reads it; the codec's codebooks stay in its own weights.

    Args:
        model: what to write, in bf16.
        path: folder.
        card: model card.
        trained_on: `io.checksums` of the codec and the semantic tokenizer.

    Raises:
        UserError: the folder cannot be written.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "codebooks"}
    weights.write(path, {"shape": asdict(model.shape), "trained_on": dict(trained_on)}, tensors, card)


def load(name_or_path: str | Path = "fine") -> FineStage:
    """Return the fine stage that ships with the package, or one from a folder.

    Raises:
        UserError: the weights are missing, corrupt, or were trained on another codec or semantic tokenizer than the one
            installed.
    """
    config, tensors = weights.read(name_or_path)
    with weights.building("fine stage", name_or_path):
        check_trained_on(config, name_or_path, "fine")
        shape = FineShape(**config["shape"])
        tensors["codebooks"] = weights.read("codec")[1]["quantizer.codebooks"][: shape.levels]
        model = FineStage(shape)
        load_into(model, tensors, str(name_or_path))
    return model.eval().requires_grad_(False)
