"""Training of MusicLM (`musicrl pretrain musiclm`) on the tokens of a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from musicrl import musiclm, weights
from musicrl.config import MusicLMConfig
from musicrl.corpus.dataset import Corpus
from musicrl.devices import autocast
from musicrl.fitting import card, fit
from musicrl.musiclm import layout, tokens
from musicrl.musiclm.average import Averaged
from musicrl.musiclm.io import checksums
from musicrl.musiclm.layers import EMBEDDING_STD
from musicrl.musiclm.model import ABSENT, MusicLM, Shape
from musicrl.musiclm.tokens import Codes, Conditions
from musicrl.runs import open_run

_SHORTEST = 0.6
"""Shortest crop, as a share of the longest."""


def train(config: MusicLMConfig, corpus_path: Path, run_path: Path, resume: bool) -> dict[str, object]:
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
    said, held_out_said = tokens.conditions(corpus_path, "train"), tokens.conditions(corpus_path, "validation")
    mulan_tensors = weights.read("mulan")[1]
    levels = (config.num_codebooks - layout.SEMANTIC) // 2
    torch.manual_seed(config.seed)
    model = MusicLM(shape_of(config, mulan_tensors["codebooks"]))
    model.trunk.condition.codebooks.copy_(mulan_tensors["codebooks"])
    start_from(model, code_vectors(levels))
    student = Averaged(model)
    longest = model.shape.max_frames

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        student.update(step)
        clips, semantic, acoustic = data.draw(config.batch_size, longest, int(_SHORTEST * longest), generator)
        codes = layout.join(semantic, acoustic[:, :levels])
        condition = conditions(said, clips, generator)
        share = config.frame_share if step < config.full_after * config.steps else 1.0
        keep = (torch.rand(codes.shape, generator=generator) >= config.code_dropout).float()
        with autocast(codes.device):
            each = nats(model, codes, condition, share, generator, keep)
        figures = {f"nats_{k}": float(value) for k, value in enumerate(each.detach())}
        if (step + 1) % config.validate_every == 0:
            figures |= validate(student.average, held_out, held_out_said, levels)
        return each.mean(), figures

    trained_on = checksums("codec", "semantic", "mulan")
    inputs = {**trained_on, "corpus": Corpus(corpus_path).digest()}
    with open_run(run_path, "musiclm", config, resume=resume, inputs=inputs) as run:
        spent = fit(
            run,
            student,
            loss,
            steps=config.steps,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
            checkpoint_minutes=config.checkpoint_minutes,
            description="musiclm",
        )
    # What ships is bf16; the figures are measured on exactly that.
    best = student.average.bfloat16().float()
    best.trunk.condition.codebooks.copy_(mulan_tensors["codebooks"])
    figures: dict[str, object] = {
        "steps skipped": int(spent["skipped"]),
        **validate(best, held_out, held_out_said, levels),
    }
    hours = int(data.starts[-1]) / layout.FRAME_RATE / 3600
    text = card(
        "MusicLM",
        "A hierarchical transformer over 25 Hz frames of two semantic codes and the first codec level, conditioned on"
        " MuLan tokens. Figures named nats are the mean negative log-likelihood of a code given the clip's own caption,"
        " the caption of another clip (shuffled), the MuLan tokens of its own sound (audio), or nothing (none).",
        part="musiclm",
        data=f"{len(data.frames)} training clips, {hours:.1f} h, seen {_passes(config, longest, hours):.1f} times",
        config=config,
        seconds=spent["seconds"],
        figures=figures,
    )
    musiclm.save(best, run_path / "model", text, trained_on=trained_on)
    return figures


def shape_of(config: MusicLMConfig, mulan_codebooks: Tensor) -> Shape:
    """Return the shape of the model a configuration asks for, conditioned on MuLan codebooks [R, V, D]."""
    levels, size, width = mulan_codebooks.shape
    return Shape(
        num_codebooks=config.num_codebooks,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        depth_width=config.depth_width,
        depth_layers=config.depth_layers,
        depth_heads=config.depth_heads,
        condition_levels=levels,
        condition_size=size,
        condition_width=width,
        max_frames=int(config.seconds * layout.FRAME_RATE),
    )


def code_vectors(levels: int) -> list[Tensor]:
    """Return what each codebook's codes stand for, K tensors [V, d]: semantic centroids, then codec code vectors."""
    centroids = weights.read("semantic")[1]["centroids"]
    codec = weights.read("codec")[1]["quantizer.codebooks"]
    return [*centroids, *codec[:levels], *codec[:levels]]


@torch.no_grad()
def start_from(model: MusicLM, vectors: Sequence[Tensor]) -> None:
    """Start embeddings and output vectors as random projections of `code_vectors`.

    Codes that sound alike then start alike, which is most of what a short training would spend its first steps on.
    """

    def project(vectors: Sequence[Tensor], width: int, spread: float) -> Tensor:
        standard = [(v - v.mean(0)) / (v - v.mean(0)).std() for v in vectors]
        return torch.cat([v @ torch.randn(v.shape[1], width) * (spread / v.shape[1] ** 0.5) for v in standard])

    trunk, depth, narrow = model.trunk, model.depth, model.shape.depth_width
    trunk.embed.weight.copy_(project(vectors, model.shape.width, EMBEDDING_STD))
    depth.embed.weight.copy_(project(vectors[:-1], narrow, EMBEDDING_STD))
    depth.heads.copy_(torch.stack([project([v], narrow, 0.02).T for v in vectors]))


def nats(
    model: MusicLM,
    codes: Tensor,
    condition: Tensor,
    share: float,
    generator: torch.Generator,
    keep: Tensor | None = None,
) -> Tensor:
    """Return the mean negative log-likelihood of each codebook, [K].

    Args:
        model: MusicLM.
        codes: [B, K, T] int64.
        condition: [B, R] MuLan tokens.
        share: of the frames, drawn at random, that the depth transformer sees.
        generator: source of that draw.
        keep: [B, K, T] which codes the temporal transformer sees, see `Trunk.states`.
    """
    states = model.trunk.states(codes, condition, keep).flatten(0, 1)
    frames = codes.transpose(1, 2).flatten(0, 1)
    if share < 1.0:
        chosen = torch.randperm(len(frames), generator=generator)[: max(1, int(share * len(frames)))]
        states, frames = states[chosen], frames[chosen]
    logits = model.depth(states, frames).float()
    each = F.cross_entropy(logits.flatten(0, 1), frames.flatten(), reduction="none")
    return each.view(frames.shape).mean(0)


def conditions(said: Conditions, clips: Tensor, generator: torch.Generator) -> Tensor:
    """Return MuLan tokens [B, R] for training crops of `clips` [B].

    Half of them come from the sound, a third from a caption, the rest from a prompt that is true of the clip: prompts
    are what a user gives, and text and sound embeddings of a clip differ (Liang et al. 2022). Of a quarter only the
    first few levels stay, of a tenth none (classifier-free guidance, Ho & Salimans 2022).
    """
    batch, levels = len(clips), said.audio.shape[1]
    kind, kept, absent = torch.rand(3, batch, generator=generator)
    caption = torch.randint(said.captions.shape[1], (batch,), generator=generator)
    prompt = torch.randint(said.prompts.shape[1], (batch,), generator=generator)
    few = torch.randint(1, levels, (batch,), generator=generator)
    chosen = torch.where(
        (kind < 0.5)[:, None],
        said.audio[clips],
        torch.where((kind < 0.83)[:, None], said.captions[clips, caption], said.prompts[clips, prompt]),
    ).long()
    count = torch.where(absent < 0.1, 0, torch.where(kept < 0.25, few, levels))
    return chosen.masked_fill(torch.arange(levels) >= count[:, None], ABSENT)


@torch.no_grad()
def validate(model: MusicLM, data: Codes, said: Conditions, levels: int, clips: int = 64) -> dict[str, float]:
    """Return nats a code on up to `clips` clips of a split, under the right condition, a shuffled one and none.

    Args:
        model: MusicLM.
        data: codes of held-out clips.
        said: their MuLan tokens.
        levels: codec levels in a frame of codes.
        clips: the first ones are taken.
    """
    length = min(model.shape.max_frames, int(data.frames.min()))
    index = torch.arange(min(clips, len(data.frames)))
    semantic, acoustic = data.crops(index, length, torch.zeros(len(index)))
    codes = layout.join(semantic, acoustic[:, :levels])
    caption = said.captions[index, 0].long()
    asked = {
        "": caption,
        " shuffled": caption.roll(len(index) // 2, 0),
        " audio": said.audio[index].long(),
        " none": torch.full_like(caption, ABSENT),
    }
    figures: dict[str, float] = {}
    generator = torch.Generator()
    for name, condition in asked.items():
        parts: list[Tensor] = []
        for rows in index.split(16):
            with autocast(codes.device):
                parts.append(nats(model, codes[rows], condition[rows], 1.0, generator) * len(rows))
        each = torch.stack(parts).sum(0) / len(index)
        figures[f"nats{name}"] = float(each.mean())
        if not name or name == " shuffled":
            figures |= {f"nats{name}, codebook {k}": float(value) for k, value in enumerate(each)}
    return figures


def _passes(config: MusicLMConfig, longest: int, hours: float) -> float:
    frames = config.steps * config.batch_size * longest * (1 + _SHORTEST) / 2
    return frames / layout.FRAME_RATE / 3600 / hours
