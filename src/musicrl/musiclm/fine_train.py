"""Training of the fine stage (`musicrl pretrain fine`) on the tokens of a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from musicrl import weights
from musicrl.audio.features import log_mel
from musicrl.config import FineConfig
from musicrl.corpus.dataset import Corpus
from musicrl.devices import autocast
from musicrl.fitting import card, fit
from musicrl.musiclm import fine, layout, tokens
from musicrl.musiclm.average import Averaged
from musicrl.musiclm.fine import FineShape, FineStage, latents
from musicrl.musiclm.io import checksums
from musicrl.musiclm.tokens import Codes
from musicrl.runs import open_run

_HIDDEN = 0.3
"""Most of a training crop's frames whose acoustic codes are hidden. MusicLM's own codes are less consistent than those
of real clips; a stage that has learnt to do without some of them leans on the semantic codes more."""


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
    codebooks = weights.read("codec")[1]["quantizer.codebooks"]
    torch.manual_seed(config.seed)
    model = FineStage(shape_of(config, codebooks))
    model.codebooks.copy_(codebooks[: config.levels])
    student = Averaged(model)
    length = model.shape.max_frames // 2

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        student.update(step)
        _, semantic, acoustic = data.draw(config.batch_size, length, length, generator)
        share = _HIDDEN * torch.rand(len(acoustic), 1, generator=generator)
        shown = torch.rand(acoustic.shape[0], acoustic.shape[2], generator=generator) >= share
        with autocast(acoustic.device):
            predicted = model(semantic, acoustic[:, : config.levels], shown)
        return (predicted - latents(codebooks, acoustic)).square().mean(), {}

    trained_on = checksums("codec", "semantic")
    inputs = {**trained_on, "corpus": Corpus(corpus_path).digest()}
    with open_run(run_path, "fine", config, resume=resume, inputs=inputs) as run:
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
    best = student.average.bfloat16().float()
    best.codebooks.copy_(codebooks[: config.levels])
    figures: dict[str, object] = {"steps skipped": int(spent["skipped"]), **measure(best, held_out, codebooks)}
    text = card(
        "Fine stage",
        "A bidirectional transformer that predicts the codec's latent from semantic codes and the first codec levels,"
        " in one pass. Latent error is the mean squared difference to the sum of all 12 levels' code vectors, whose"
        " entries have a variance of 1; mel distance is the mean absolute difference of log-mel spectra at three"
        " resolutions to what the codec makes of all true levels.",
        part="fine",
        data=f"{len(data.frames)} training clips, {int(data.starts[-1]) / layout.FRAME_RATE / 3600:.1f} h",
        config=config,
        seconds=spent["seconds"],
        figures=figures,
    )
    fine.save(best, run_path / "model", text, trained_on=trained_on)
    return figures


def shape_of(config: FineConfig, codebooks: Tensor) -> FineShape:
    """Return the shape a configuration asks for, for a codec with codebooks [12, V, D]."""
    _, size, latent = codebooks.shape
    return FineShape(
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        max_frames=2 * int(config.seconds * layout.FRAME_RATE),
        levels=config.levels,
        codebook_size=size,
        latent_width=latent,
    )


@torch.no_grad()
def measure(model: FineStage, data: Codes, codebooks: Tensor, clips: int = 32) -> dict[str, float]:
    """Return figures on up to `clips` held-out clips.

    Args:
        model: fine stage.
        data: codes of held-out clips.
        codebooks: [12, V, D] of the codec.
        clips: the first ones are taken.

    Returns:
        Latent error and log-mel distance of some true levels, and of the given ones completed by the model.
    """
    from musicrl import codec

    index = torch.arange(min(clips, len(data.frames)))
    length = min(int(data.frames.min()), int(10 * layout.FRAME_RATE))
    semantic, acoustic = data.crops(index, length, torch.zeros(len(index)))
    decoder = codec.load()
    target = latents(codebooks, acoustic)
    sound = decoder.synthesize(target)
    given = model.shape.levels
    candidates = {f"true levels: {levels}": latents(codebooks, acoustic[:, :levels]) for levels in (1, 2, 4)}
    candidates[f"true levels: {given}, the rest predicted"] = model.fill(semantic, acoustic[:, :given])
    figures: dict[str, float] = {}
    for name, found in candidates.items():
        figures[f"latent error, {name}"] = float((found - target).square().mean())
        figures[f"mel distance, {name}"] = mel_distance(decoder.synthesize(found), sound)
    return figures


def mel_distance(a: Tensor, b: Tensor, sample_rate: int = 24_000) -> float:
    """Return the mean absolute difference of log-mel spectra of audio [B, N] over windows of 512, 1,024 and 2,048."""
    each = [(_mel(a, sample_rate, n_fft) - _mel(b, sample_rate, n_fft)).abs().mean() for n_fft in (512, 1024, 2048)]
    return float(torch.stack(each).mean())


def _mel(audio: Tensor, sample_rate: int, n_fft: int) -> Tensor:
    return log_mel(audio, sample_rate=sample_rate, n_fft=n_fft, hop=n_fft // 4, n_mels=80)
