"""Training of the semantic encoder and its centroids (`musicrl pretrain semantic`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicrl import weights
from musicrl.audio.features import SEMITONES
from musicrl.audio.frames import COLUMNS, FRAME_RATE, MELS, equalise, gain, standardise
from musicrl.config import SemanticConfig
from musicrl.corpus import frames as stored
from musicrl.corpus.dataset import Corpus
from musicrl.devices import autocast
from musicrl.errors import UserError
from musicrl.fitting import card, fit
from musicrl.kmeans import kmeans
from musicrl.runs import open_run
from musicrl.semantic.encoder import PITCHES, Encoder
from musicrl.semantic.measure import measure
from musicrl.semantic.targets import (
    DRUM_CLASSES,
    FAMILIES,
    NoteTargets,
    RandomProjectionLabels,
    note_targets,
    random_spans,
)
from musicrl.semantic.tokenizer import SemanticTokenizer

_BANDS = 20
_LABEL_BOOKS, _LABELS = 2, 1024


class Teacher(nn.Module):
    """The encoder with the heads that only training needs."""

    def __init__(self, encoder: Encoder, width: int, bottleneck: int, seed: int) -> None:
        """Add heads to an encoder of `width` channels with outputs of `bottleneck` channels."""
        super().__init__()
        self.encoder = encoder
        self.labels = RandomProjectionLabels(_LABEL_BOOKS, _LABELS, 16, seed)
        self.predict = nn.Linear(width, _LABEL_BOOKS * _LABELS)
        self.tonal_sizes = [PITCHES, PITCHES, SEMITONES]
        self.texture_sizes = [COLUMNS, DRUM_CLASSES, FAMILIES, COLUMNS * _BANDS]
        self.tonal = _head(bottleneck, width, sum(self.tonal_sizes))
        self.texture = _head(bottleneck, width, sum(self.texture_sizes))

    def forward(
        self, frames: Tensor, masked: Tensor, targets: NoteTargets, noise: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and its parts.

        Args:
            frames: [B, T, 404].
            masked: [B, T] bool, frames hidden from the encoder; only they count for the masked prediction, only the
                others for all else.
            targets: facts from notes.
            noise: [2, B, T, bottleneck] added to the outputs. Distinctions that matter must then be wider than the
                noise, and so survive k-means.
        """
        hidden = self.encoder.hidden(frames, masked)
        logits = self.predict(hidden[masked]).float().view(-1, _LABEL_BOOKS, _LABELS)
        prediction = F.cross_entropy(logits.flatten(0, 1), self.labels(frames, masked).flatten())

        tonal, texture = self.encoder.bottlenecks(hidden)
        active, onset, semitones = self.tonal(tonal + noise[0]).float().split(self.tonal_sizes, -1)
        attack, drums, families, bands = self.texture(texture + noise[1]).float().split(self.texture_sizes, -1)
        seen = (~masked)[..., None].float()
        known = seen * targets.known
        x = standardise(frames)
        parts = {
            "pitch": 12 * _bce(active, targets.active, known),
            "onset": 12 * _bce(onset, targets.onset, known),
            "semitones": _mse(semitones, _contrast(x[..., COLUMNS * MELS :]), seen),
            "attack": 2 * _bce(attack, targets.attack, known),
            "drums": 3 * _bce(drums, targets.drums, known),
            "families": 2 * _bce(families, targets.families, known),
            "bands": _mse(bands, coarse_bands(x), seen),
        }
        loss = torch.stack(list(parts.values())).sum() + 0.2 * prediction
        parts["masked"] = prediction
        return loss, {name: float(part.detach()) for name, part in parts.items()}


def coarse_bands(x: Tensor) -> Tensor:
    """Return the mean of each four neighbouring mel bands [..., 80] of frames [..., 404], column by column."""
    return x[..., : COLUMNS * MELS].unflatten(-1, (COLUMNS * _BANDS, MELS // _BANDS)).mean(-1)


def train(config: SemanticConfig, corpus_path: Path, run_path: Path, resume: bool) -> dict[str, object]:
    """Train encoder and centroids, measure them on held-out clips and write them to `run_path/model`.

    Args:
        config: settings.
        corpus_path: folder of a corpus; notes are used where it has them.
        run_path: run folder.
        resume: continue a run that is there.

    Returns:
        The measured figures of the model card.

    Raises:
        UserError: the corpus cannot be read or is too small, or the run was interrupted (and saved).
    """
    torch.manual_seed(config.seed)
    corpus = Corpus(corpus_path)
    clips = corpus.rows("train")
    paths = stored.prepare(corpus_path, [clip.file_name for clip in clips])
    counts = torch.tensor([stored.load(path).shape[0] for path in paths])
    if int(counts.sum()) < 2 * config.codebook_size:
        raise UserError(
            f"{corpus_path} holds only {float(counts.sum()) / FRAME_RATE:.0f} s of training audio;"
            f" k-means needs at least {2 * config.codebook_size / FRAME_RATE:.0f} s"
        )
    notes = [corpus.notes(clip) for clip in clips]
    length = int(config.seconds * FRAME_RATE)
    tokenizer = SemanticTokenizer(
        width=config.width, depth=config.depth, bottleneck=config.bottleneck, codebook_size=config.codebook_size
    )
    teacher = Teacher(tokenizer.encoder, config.width, config.bottleneck, config.seed)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        chosen = torch.multinomial(counts.double(), config.batch_size, replacement=True, generator=generator).tolist()
        x, starts = stored.crops([paths[i] for i in chosen], length, generator)
        x = equalise(gain(x, generator), generator, 4.0)
        masked = random_spans((len(chosen), length), 0.25, 8, generator)
        noise = config.noise * torch.randn(2, len(chosen), length, config.bottleneck, generator=generator)
        targets = note_targets([notes[i] for i in chosen], starts, length)
        with autocast(x.device):
            return teacher(x, masked, targets, noise)

    with open_run(run_path, "semantic", config, resume=resume, inputs={"corpus": corpus.digest()}) as run:
        spent = fit(
            run,
            teacher,
            loss,
            steps=config.steps,
            learning_rate=config.learning_rate,
            seed=config.seed,
            checkpoint_minutes=config.checkpoint_minutes,
            description="semantic encoder",
        )
    # What ships is bf16; centroids are fitted to, and figures measured on, exactly that.
    tokenizer.bfloat16().float()
    tokenizer.eval()
    tokenizer.centroids.copy_(_centroids(tokenizer.encoder, paths, config))
    tokenizer.bfloat16().float()
    figures: dict[str, object] = {"steps skipped": int(spent["skipped"]), **measure(tokenizer, corpus, corpus_path)}
    text = card(
        "Semantic tokenizer",
        "A convolutional encoder at 25 Hz and two codebooks: tonal (pitch) and texture (rhythm, drums, timbre,"
        " loudness). The token model predicts these codes first.",
        part="semantic",
        data=f"{len(clips)} training clips, {float(counts.sum()) / FRAME_RATE / 3600:.1f} h",
        config=config,
        seconds=spent["seconds"],
        figures=figures,
    )
    shape = {"width": config.width, "depth": config.depth, "bottleneck": config.bottleneck}
    weights.write(run_path / "model", {**shape, "codebook_size": config.codebook_size}, tokenizer.state_dict(), text)
    return figures


@torch.no_grad()
def _centroids(encoder: Encoder, paths: list[Path], config: SemanticConfig) -> Tensor:
    """Return [2, V, bottleneck] centroids of the outputs on up to `config.kmeans_frames` frames of training clips."""
    generator = torch.Generator().manual_seed(config.seed)
    tonal: list[Tensor] = []
    texture: list[Tensor] = []
    total = 0
    for i in torch.randperm(len(paths), generator=generator).tolist():
        clip = torch.from_numpy(stored.load(paths[i]).copy()).float()[None]
        for outputs, output in zip((tonal, texture), encoder(clip), strict=True):
            outputs.append(output[0])
        total += clip.shape[1]
        if total >= config.kmeans_frames:
            break
    return torch.stack(
        [
            kmeans(torch.cat(outputs), config.codebook_size, iterations=30, generator=generator)
            for outputs in (tonal, texture)
        ]
    )


def _head(bottleneck: int, width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(bottleneck, width), nn.GELU(), nn.Linear(width, out))


def _contrast(semitones: Tensor) -> Tensor:
    """Return semitones relative to the frame's mean: which notes, not how loud."""
    return semitones - semitones.mean(-1, keepdim=True)


def _bce(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1, keepdim=True)
    return (each * weight).sum() / weight.sum().clamp_min(1.0)


def _mse(x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    each = (x - target).square().mean(-1, keepdim=True)
    return (each * weight).sum() / weight.sum().clamp_min(1.0)
