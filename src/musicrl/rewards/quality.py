"""Acoustic quality: a regressor of mean opinion scores (MusicRL, section 3.3).

Shapes: **B** clips, **N** audio samples, **M** mel bands, **F** feature frames (100 Hz), **W** channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from musicrl import devices, runs, weights
from musicrl.audio import io, loudness
from musicrl.audio.features import log_mel
from musicrl.config import QualityConfig
from musicrl.errors import UserError
from musicrl.rewards import kinds
from musicrl.rewards import ratings as rated
from musicrl.rewards.fitting import Fitted, Task, fit, held_out
from musicrl.rewards.protocol import Generations
from musicrl.rewards.ratings import RatedClip

SAMPLE_RATE = 24_000
MELS = 80
_HOP = 240
_TAPS = 5
_LONGEST = 30 * 100
"""Frames kept of a rated clip."""


class QualityModel(nn.Module):
    """Convolutions over log-mel frames, pooled to mean and deviation over time, to one score from 1 to 5.

    The deviation is what tells a clip with a few gaps or clicks from one without. No dropout or batch statistics: a
    clip's score depends on the clip alone.

    Args:
        width: W.
        blocks: residual blocks; the dilation doubles from one to the next.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(MELS, width, 7, stride=4, padding=3)
        self.blocks = nn.ModuleList(_Block(width, 2**i) for i in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(2 * width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Return scores [B] in (1, 5) of log-mel frames [B, M, F] (`features`)."""
        # Log magnitudes lie between log(1e-5) = -11.5 and 0.
        x = self.stem((mel + 6.0) / 3.0).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        deviation = (x.var(dim=1, unbiased=False) + 1e-5).sqrt()
        pooled = torch.cat([x.mean(dim=1), deviation], dim=1)
        return 1.0 + 4.0 * self.score(F.gelu(self.hidden(pooled)))[:, 0].sigmoid()


class _Block(nn.Module):
    """ConvNeXt block (Liu et al. 2022) over time."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.taps = nn.Parameter(torch.randn(_TAPS, width) / _TAPS**0.5)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 3 * width)
        self.project = nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, F, W] to [B, F, W]."""
        frames, reach = x.shape[1], (_TAPS // 2) * self.dilation
        padded = F.pad(x, (0, 0, reach, reach))
        # A depthwise convolution; CPUs are faster at shifted products than at Conv1d with groups.
        mixed = torch.zeros_like(x)
        for i, tap in enumerate(self.taps):
            mixed = torch.addcmul(mixed, padded[:, i * self.dilation : i * self.dilation + frames], tap)
        return x + self.project(F.gelu(self.expand(self.norm(mixed))))


def features(audio: Tensor) -> Tensor:
    """Return log-mel frames [B, M, F] of loudness-matched audio [B, N] at 24 kHz."""
    return log_mel(audio, sample_rate=SAMPLE_RATE, n_fft=1024, hop=_HOP, n_mels=MELS)


class Quality:
    """Reward: the predicted mean opinion score, moved from [1, 5] to [0, 1] as in MusicRL, section 3.3."""

    name = "quality"
    needs_audio = True

    def __init__(self, model: QualityModel) -> None:
        self._model = model.eval().requires_grad_(False)

    def __call__(self, batch: Generations) -> Tensor:
        """Return scores [B] in [0, 1]; the whole clip is heard."""
        audio = batch.audio
        if batch.sample_rate != SAMPLE_RATE:
            audio = io.resample(audio, batch.sample_rate, SAMPLE_RATE)
        self._model.to(audio.device)
        with torch.no_grad():
            scores = torch.cat([self._model(features(part)) for part in audio.split(16)])
        return (scores - 1.0) / 4.0


def load(name_or_path: str | Path = "quality") -> Quality:
    """Return the quality reward of a trained model.

    Args:
        name_or_path: an embedded part, or the folder `model` of a training run.

    Raises:
        UserError: the weights are missing or corrupt.
    """
    config, tensors = weights.read(name_or_path)
    with weights.building("quality model", name_or_path):
        model = QualityModel(config["width"], config["blocks"])
        model.load_state_dict(tensors)
    return Quality(model)


def train(config: QualityConfig, ratings: Iterable[Mapping[str, Any]], run_path: Path, resume: bool) -> Fitted:
    """Train a quality model on rated clips and write it to `run_path / "model"`.

    The loss is the squared error to the clip's mean rating, weighted by how many rated it. Clips of one prompt are
    held out together. Logged beside `loss`: `held_out.loss`, `.mae`, `.pearson`, `.spearman`, and `.ceiling`, the
    correlation that a perfect model of the consensus would reach on these ratings.

    Args:
        config: settings.
        ratings: one row a rating: `audio`, `value` and, where known, `prompt`, `axis`, `rater_kind` (`ratings.gather`).
        run_path: run folder.
        resume: continue the run that is there.

    Raises:
        UserError: a rating is not usable, there are too few clips, or Ctrl-C was pressed.
    """
    clips = rated.gather(ratings)
    kept_out = [held_out(clip.group, config.validation, config.seed) for clip in clips]
    training = [clip for clip, out in zip(clips, kept_out, strict=True) if not out]
    validation = [clip for clip, out in zip(clips, kept_out, strict=True) if out]
    if len(training) < 2 or len(validation) < 2:
        raise UserError(
            f"{len(clips)} rated clips leave {len(training)} to train on and {len(validation)} held out; rate more"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = QualityModel(config.width, config.blocks).to(devices.pick())
    inputs = {"set of ratings": rated.digest(clips)}
    with runs.open_run(run_path, "quality", config, resume=resume, inputs=inputs) as run:
        fitted = fit(_task(model, config, training, validation), config, run)
    counts = kinds.count(kind for clip in clips for kind in clip.kinds)
    about = {"width": config.width, "blocks": config.blocks, "ratings": counts}
    card = _card(config, training, validation, fitted, kinds.sentence(counts, "ratings"))
    weights.write(run_path / "model", about, model.state_dict(), card)
    return fitted


def _task(
    model: QualityModel, config: QualityConfig, training: Sequence[RatedClip], validation: Sequence[RatedClip]
) -> Task:
    mels = _read(training)
    targets = torch.tensor([clip.mean for clip in training])
    counts = torch.tensor([float(len(clip.ratings)) for clip in training])
    held_mels = _read(validation)
    held_targets = torch.tensor([clip.mean for clip in validation])
    bound = rated.ceiling(validation)
    frames = round(config.seconds * SAMPLE_RATE / _HOP)
    device = model.score.weight.device

    def accumulate(items: Tensor, generator: torch.Generator) -> float:
        crops = torch.stack([_crop(mels[int(i)], frames, generator) for i in items])
        error = (model(crops.to(device)).cpu() - targets[items]).square()
        loss = (counts[items] * error).sum() / counts[items].sum()
        loss.backward()
        return loss.item()

    def evaluate() -> dict[str, float]:
        with torch.no_grad():
            predicted = torch.cat([model(mel[None].float().to(device)).cpu() for mel in held_mels])
        figures = {
            "loss": float((predicted - held_targets).square().mean()),
            "mae": float((predicted - held_targets).abs().mean()),
            **_correlations(predicted, held_targets),
        }
        return figures if bound is None else figures | {"ceiling": bound}

    optimizer = AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    return Task("quality", len(training), optimizer, accumulate, evaluate, model.state_dict, model.load_state_dict)


def _read(clips: Sequence[RatedClip]) -> list[Tensor]:
    """Return log-mel frames [M, F] of each clip, in half precision so that thousands fit in memory."""
    mels: list[Tensor] = []
    with runs.progress("read rated clips", len(clips)) as bar:
        for clip in clips:
            audio, _ = loudness.match(io.read(clip.audio, SAMPLE_RATE)[None], SAMPLE_RATE)
            mels.append(features(audio)[0, :, :_LONGEST].half())
            bar.advance()
    return mels


def _crop(mel: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """Return `frames` frames from a random place; a shorter clip is repeated."""
    length = mel.shape[1]
    if length < frames:
        return mel.repeat(1, -(-frames // length))[:, :frames].float()
    start = int(torch.randint(length - frames + 1, (), generator=generator))
    return mel[:, start : start + frames].float()


def _correlations(predicted: Tensor, actual: Tensor) -> dict[str, float]:
    from scipy import stats

    if float(predicted.std()) == 0.0 or float(actual.std()) == 0.0:
        return {"pearson": 0.0, "spearman": 0.0}
    pearson: Any = stats.pearsonr(predicted.numpy(), actual.numpy())
    spearman: Any = stats.spearmanr(predicted.numpy(), actual.numpy())
    return {"pearson": float(pearson.statistic), "spearman": float(spearman.statistic)}


def _card(
    config: QualityConfig,
    training: Sequence[RatedClip],
    validation: Sequence[RatedClip],
    fitted: Fitted,
    data: str,
) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in fitted.held_out.items())
    return f"""# Quality model

Predicts the mean opinion score (1 to 5) of a loudness-matched clip, as in MusicRL (Cideron et al. 2024), section 3.3.

Data: {data}, of {len(training) + len(validation)} clips, {len(validation)} of them held out by prompt.
Training: {fitted.steps} steps of {config.batch_size} crops, seed {config.seed}; these are the weights of step
{fitted.best_step}, where the held-out loss was lowest, so the held-out figures flatter a little.

| held out | |
| --- | --- |
{rows}
"""
