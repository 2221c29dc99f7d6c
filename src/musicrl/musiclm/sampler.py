"""Sampling from MusicLM with a static cache; the log-probabilities come with the codes.

One temporal step and K depth steps a frame. The first position is computed once a prompt and copied to its group.
Weights are taken out of the model once a call, adapters merged and cast, so a step is matrix products and little else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicrl.musiclm.layers import Block, attend, rotary, rotate
from musicrl.musiclm.model import MusicLM


def truncate(logits: Tensor, temperature: float, top_k: int) -> Tensor:
    """Return the logits of the distribution really sampled from.

    Args:
        logits: [..., V].
        temperature: divides the logits.
        top_k: all but the k largest become -inf; 0 keeps all.

    Returns:
        [..., V] float32.
    """
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits


def draw(logits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one code from each row of logits [B, V] by inverting its cumulative distribution.

    That takes one random number a row; the exponential race of `torch.multinomial` takes V, which at V = 1,024 costs as
    much as a layer.

    Returns:
        Codes [B] int64 and their log-probabilities [B] float32.
    """
    logps = logits.log_softmax(-1)
    # Doubles: no rounding moves a draw onto a code of probability 0.
    cumulative = logps.double().exp().cumsum(-1)
    point = torch.rand((len(logits), 1), generator=generator, device=logits.device, dtype=torch.float64)
    codes = torch.searchsorted(cumulative, point * cumulative[:, -1:], right=True)
    return codes[:, 0], logps.gather(-1, codes)[:, 0]


@dataclass(frozen=True)
class _Layer:
    heads: int
    norm_attention: Tensor
    qkv: Tensor
    out: Tensor
    norm_mlp: Tensor
    fc_in: Tensor
    fc_out: Tensor


class _Stack:
    """Blocks of a transformer with their cache [B, H, positions, d] for keys and values."""

    def __init__(self, blocks: nn.ModuleList, batch: int, positions: int, *, rotated: bool, dtype: torch.dtype) -> None:
        self.layers = [_layer(block, dtype) for block in blocks if isinstance(block, Block)]
        heads, width = self.layers[0].heads, self.layers[0].out.shape[0]
        device = self.layers[0].out.device
        shape = (len(self.layers), 2, batch, heads, positions, width // heads)
        self.cache = torch.zeros(shape, dtype=dtype, device=device)
        self.dtype = dtype
        self.table = rotary(torch.arange(positions, device=device), width // heads) if rotated else None

    def grow(self, group_size: int) -> None:
        """Repeat each row of the cache for the samples of its group."""
        self.cache = self.cache.repeat_interleave(group_size, 2)

    def step(self, x: Tensor, at: int) -> Tensor:
        """Run frames [B, T, D] at positions `at` ... `at + T - 1`; T > 1 only where nothing is cached before."""
        batch, frames, width = x.shape
        here = slice(at, at + frames)
        table = None if self.table is None else (self.table[0][here], self.table[1][here])
        for layer, cache in zip(self.layers, self.cache.unbind(0), strict=True):
            normed = F.layer_norm(x, (width,), layer.norm_attention).to(self.dtype)
            qkv = F.linear(normed, layer.qkv).view(batch, frames, 3, layer.heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            if table is not None:
                q, k = rotate(q, table), rotate(k, table)
            cache[0, :, :, here] = k
            cache[1, :, :, here] = v
            if frames > 1:
                mixed = attend(q, k, v, causal=True)
            else:
                mixed = F.scaled_dot_product_attention(q, cache[0, :, :, : at + 1], cache[1, :, :, : at + 1])
            x = x + F.linear(mixed.transpose(1, 2).reshape(batch, frames, width), layer.out)
            normed = F.layer_norm(x, (width,), layer.norm_mlp).to(self.dtype)
            x = x + F.linear(F.gelu(F.linear(normed, layer.fc_in)), layer.fc_out)
        return x


def _layer(block: Block, dtype: torch.dtype) -> _Layer:
    # An adapted layer's `weight` is the merged one, so the sampler multiplies by what `MusicLM.forward` multiplies by.
    return _Layer(
        heads=block.heads,
        norm_attention=block.norm_attention.weight,
        qkv=block.qkv.weight.to(dtype),
        out=block.out.weight.to(dtype),
        norm_mlp=block.norm_mlp.weight,
        fc_in=block.fc_in.weight.to(dtype),
        fc_out=block.fc_out.weight.to(dtype),
    )


def sample(
    model: MusicLM,
    condition: Tensor,
    frames: int,
    *,
    group_size: int = 1,
    temperature: float = 0.99,
    top_k: int = 0,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
    prefix: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw `group_size` sequences of codes for each condition.

    Args:
        model: what to sample from.
        condition: [P, R] MuLan tokens of P prompts.
        frames: T, new frames to draw.
        group_size: G.
        temperature: divides the logits.
        top_k: keep the k most likely codes; 0 keeps all.
        generator: source of randomness, on the model's device.
        dtype: of the matrix products and the cache; sums, softmax and log-probabilities are float32.
        prefix: [P·G, K, T0] codes to continue, or None to begin.

    Returns:
        Codes [P·G, K, T] int64 and their log-probabilities [P·G, K, T] float32 under temperature and top-k.

    Raises:
        ValueError: prefix and new frames together pass the positions the model was trained on.
    """
    known = 0 if prefix is None else prefix.shape[2]
    if known + frames > model.shape.max_frames:
        raise ValueError(f"{known + frames} frames pass the {model.shape.max_frames} positions trained")
    with torch.inference_mode():
        run = _TemporalSampler(model, condition, group_size, known + frames, dtype)
        state = run.begin(prefix)
        depth = _DepthSampler(model, state.shape[0], dtype)
        codes = torch.empty((state.shape[0], model.shape.num_codebooks, frames), dtype=torch.int64, device=state.device)
        logps = torch.empty(codes.shape, device=state.device)
        for t in range(frames):
            codes[..., t], logps[..., t] = depth(state, temperature, top_k, generator)
            if t + 1 < frames:
                state = run.advance(codes[..., t : t + 1], known + t + 1)
    # Outside inference mode a copy is an ordinary tensor, which autograd accepts.
    return codes.clone(), logps.clone()


class _TemporalSampler:
    """Gives the temporal state before each frame."""

    def __init__(self, model: MusicLM, condition: Tensor, group_size: int, positions: int, dtype: torch.dtype) -> None:
        self.trunk = model.trunk
        self.group_size = group_size
        self.stack = _Stack(model.trunk.blocks, condition.shape[0], positions, rotated=True, dtype=dtype)
        with torch.autocast(condition.device.type, dtype=dtype, enabled=dtype != torch.float32):
            self.vector = self.trunk.condition(condition).float()[:, None]

    def begin(self, prefix: Tensor | None) -> Tensor:
        """Return the state [P·G, 1, D] after the prefix, or before the first frame."""
        state = self.stack.step(self.trunk.start + self.vector, 0)
        self.stack.grow(self.group_size)
        self.vector, state = (x.repeat_interleave(self.group_size, 0) for x in (self.vector, state))
        if prefix is not None:
            x = torch.cat([(self.trunk.start + self.vector), self.trunk.frames(prefix) + self.vector], 1)
            state = self.stack.step(x, 0)[:, -1:]
        return self._norm(state)

    def advance(self, codes: Tensor, at: int) -> Tensor:
        """Return the state [P·G, 1, D] before frame `at`, given codes [P·G, K, 1] of the frame before it."""
        return self._norm(self.stack.step(self.trunk.frames(codes) + self.vector, at))

    def _norm(self, state: Tensor) -> Tensor:
        return F.layer_norm(state, state.shape[-1:], self.trunk.norm.weight)


class _DepthSampler:
    """Draws the K codes of a frame from its temporal state."""

    def __init__(self, model: MusicLM, batch: int, dtype: torch.dtype) -> None:
        self.depth = model.depth
        self.books = model.shape.num_codebooks
        self.stack = _Stack(model.depth.blocks, batch, self.books, rotated=False, dtype=dtype)
        self.project = model.depth.project.weight.to(dtype)
        self.heads = model.depth.heads.to(dtype)
        self.tables = model.depth.embed.weight.view(-1, model.shape.codebook_size, model.shape.depth_width)

    def __call__(
        self, state: Tensor, temperature: float, top_k: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return codes [B, K] and log-probabilities [B, K] given states [B, 1, D]."""
        projected = F.linear(state.to(self.stack.dtype), self.project).float()
        codes: list[Tensor] = []
        logps: list[Tensor] = []
        for k in range(self.books):
            x = projected + self.depth.position[k]
            if k > 0:
                x = x + F.embedding(codes[-1], self.tables[k - 1])[:, None]
            x = self.stack.step(x, k)[:, 0]
            normed = F.layer_norm(x, x.shape[-1:], self.depth.norm.weight).to(self.stack.dtype)
            code, logp = draw(truncate(normed @ self.heads[k], temperature, top_k), generator)
            codes.append(code)
            logps.append(logp)
        return torch.stack(codes, 1), torch.stack(logps, 1)
