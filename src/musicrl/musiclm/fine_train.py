"""Training of the fine stage (`musicrl pretrain fine`) on the tokens of a corpus."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from musicrl import weights
from musicrl.audio.features import log_mel
from musicrl.config import FineConfig
from musicrl.devices import autocast
from musicrl.fitting import card, fit
from musicrl.musiclm import fine, layout, tokens
from musicrl.musiclm.average import Averaged
from musicrl.musiclm.fine import PASSES, UNKNOWN, FineShape, FineStage
from musicrl.musiclm.tokens import Codes
from musicrl.runs import open_run

_OFTEN = torch.tensor([3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0])
"""How often each of `PASSES` is trained: what the low levels miss is heard most."""

_COARSE = 1
"""Codec levels that MusicLM gives."""


def train(config: FineConfig, corpus_path: Path, run_path: Path, resume: bool) -> dict[str, object]:
    """Train on the train split, measure on the validation split, write the averaged weights to `run_path/model`.

    Args:
        config: settings.
        corpus_path: folder of a corpus; its tokens are made first if they are not there.
        run_path: run folder.
        resume: continue a run that is there.

    Returns:
        The measured figures of the model card.

    Raises:
        UserError: corpus or tokenizers cannot be read, or the run was interrupted (and saved).
    """
    data, held_out = tokens.codes(corpus_path, "train"), tokens.codes(corpus_path, "validation")
    codec_config, codec_tensors = weights.read("codec")
    codebooks = codec_tensors["quantizer.codebooks"]
    torch.manual_seed(config.seed)
    model = FineStage(shape_of(config, codebooks))
    model.codebooks.copy_(codebooks)
    student = Averaged(model)
    length = model.shape.max_frames // 2

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        student.update(step)
        _, semantic, acoustic = data.draw(config.batch_size, length, length, generator)
        level, known = mask(acoustic, generator)
        with autocast(acoustic.device):
            return masked_loss(model, semantic, acoustic, level, known)

    with open_run(run_path, "fine", config, resume=resume) as run:
        spent = fit(
            run,
            student,
            loss,
            steps=config.steps,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
            checkpoint_minutes=config.checkpoint_minutes,
            description="fine stage",
        )
    # What ships is bf16; the figures are measured on exactly that.
    best = student.average.eval().bfloat16().float()
    best.codebooks.copy_(codebooks)
    figures: dict[str, object] = {"steps skipped": int(spent["skipped"]), **measure(best, held_out)}
    text = card(
        "Fine stage",
        "A bidirectional transformer that fills codec levels 2 to 12 in eight passes, given semantic codes and"
        " level 1. Accuracy is that of a level when the levels its pass sees are the true ones; mel distance is the"
        " mean absolute difference of log-mel spectra at three resolutions to what the codec makes of all true levels.",
        part="fine",
        data=f"{len(data.frames)} training clips, {int(data.starts[-1]) / layout.FRAME_RATE / 3600:.1f} h",
        config=config,
        seconds=spent["seconds"],
        figures=figures,
    )
    fine.save(best, run_path / "model", text, codec=codec_config["sha256"])
    return figures


def shape_of(config: FineConfig, codebooks: Tensor) -> FineShape:
    """Return the shape a configuration asks for, for a codec with codebooks [levels, V, D]."""
    levels, size, latent = codebooks.shape
    return FineShape(
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        head_width=config.head_width,
        max_frames=2 * int(config.seconds * layout.FRAME_RATE),
        levels=levels,
        codebook_size=size,
        latent_width=latent,
    )


def mask(acoustic: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the level asked of each crop and hide some or all of its codes.

    Only the first of `PASSES` ever sees part of its level, so only that is masked in part, by cos(u·π/2) with u uniform
    (MaskGIT, Chang et al. 2022); half of the time it is hidden whole.

    Args:
        acoustic: [B, 12, T] codes.
        generator: source of the draws.

    Returns:
        Level [B] int64 and its codes [B, T], `UNKNOWN` where hidden.
    """
    batch, _, frames = acoustic.shape
    starts = torch.tensor([levels[0] for levels in PASSES])
    level = starts[torch.multinomial(_OFTEN, batch, replacement=True, generator=generator)]
    u, whole = torch.rand(2, batch, generator=generator)
    share = torch.where((level == PASSES[0][0]) & (whole < 0.5), torch.cos(u * math.pi / 2), torch.ones(()))
    hidden = torch.rand(batch, frames, generator=generator) < share[:, None]
    return level, acoustic[torch.arange(batch), level].masked_fill(hidden, UNKNOWN)


def masked_loss(
    model: FineStage, semantic: Tensor, acoustic: Tensor, level: Tensor, known: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Return the mean negative log-likelihood of the hidden codes, and its parts in nats.

    Where a pass gives two levels, that of the second is added. Arguments as in `FineStage.states`.
    """
    states = model.states(semantic, acoustic, level, known)
    paired = torch.tensor([len(levels) == 2 for levels in PASSES for _ in levels], device=level.device)
    hidden = known < 0
    own = _nats(model.logits(states, level), acoustic, level)[hidden]
    parts = {"nats": own.mean()}
    pair = paired[level - PASSES[0][0]]
    if bool(pair.any()):
        parts["nats_second"] = _nats(
            model.logits(states[pair], level[pair] + 1), acoustic[pair], level[pair] + 1
        ).mean()
    total = torch.stack(list(parts.values())).sum()
    return total, {name: float(value.detach()) for name, value in parts.items()}


@torch.no_grad()
def measure(model: FineStage, data: Codes, clips: int = 32) -> dict[str, float]:
    """Return figures on up to `clips` held-out clips.

    Returns:
        Accuracy of each level given the true codes of the levels its pass sees; and the multi-resolution log-mel
        distance to the codec's reconstruction from all levels, of level 1 alone and of level 1 with generated levels.
    """
    from musicrl import codec

    index = torch.arange(min(clips, len(data.frames)))
    length = int(data.frames.min())
    semantic, acoustic = data.crops(index, length, torch.zeros(len(index)))
    window = model.shape.max_frames // 2
    figures: dict[str, float] = {}
    for levels in PASSES:
        level = torch.full((len(index),), levels[0])
        known = torch.full((len(index), 2 * window), UNKNOWN)
        states = model.states(semantic[..., :window], acoustic[..., : 2 * window], level, known)
        for i in levels:
            hits = model.logits(states, torch.full_like(level, i)).argmax(-1) == acoustic[:, i, : 2 * window]
            figures[f"accuracy, level {i + 1}"] = float(hits.float().mean())
    decoder = codec.load()
    whole = decoder.decode(acoustic)
    filled = model.fill(semantic, acoustic[:, :_COARSE])
    figures["mel distance, level 1 only"] = mel_distance(decoder.decode(acoustic[:, :_COARSE]), whole)
    figures["mel distance, level 1 and generated"] = mel_distance(decoder.decode(filled), whole)
    return figures


def mel_distance(a: Tensor, b: Tensor, sample_rate: int = 24_000) -> float:
    """Return the mean absolute difference of log-mel spectra of audio [B, N] over windows of 512, 1,024 and 2,048."""
    each = [(_mel(a, sample_rate, n_fft) - _mel(b, sample_rate, n_fft)).abs().mean() for n_fft in (512, 1024, 2048)]
    return float(torch.stack(each).mean())


def _mel(audio: Tensor, sample_rate: int, n_fft: int) -> Tensor:
    return log_mel(audio, sample_rate=sample_rate, n_fft=n_fft, hop=n_fft // 4, n_mels=80)


def _nats(logits: Tensor, acoustic: Tensor, level: Tensor) -> Tensor:
    """Return the negative log-likelihood [B, T] of the codes of `level` [B]."""
    target = acoustic[torch.arange(len(level), device=level.device), level]
    return F.cross_entropy(logits.float().transpose(1, 2), target, reduction="none")
