"""Training and calibration of the tagger (`musicrl pretrain tagger`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from musicrl import weights
from musicrl.audio.frames import FRAME_RATE, equalise, gain, low_pass, noise, smear
from musicrl.config import TaggerConfig
from musicrl.corpus import frames as stored
from musicrl.corpus.dataset import Clip, Corpus
from musicrl.devices import autocast
from musicrl.errors import UserError
from musicrl.fitting import card, fit
from musicrl.runs import open_run
from musicrl.tagger.model import SHORTEST, Tagger, label

ATTRIBUTES = ("style", "lead", "tempo_class", "drums", "mode", "density")
_LONGEST = 10 * int(FRAME_RATE)
_UNKNOWN = -100


def train(config: TaggerConfig, corpus_path: Path, run_path: Path, resume: bool) -> dict[str, object]:
    """Train and calibrate the tagger, measure it on held-out clips and write it to `run_path/model`.

    Args:
        config: settings.
        corpus_path: folder of a corpus whose clips have attributes.
        run_path: run folder.
        resume: continue a run that is there.

    Returns:
        The measured figures of the model card.

    Raises:
        UserError: the corpus cannot be read or has no attributes, or the run was interrupted (and saved).
    """
    torch.manual_seed(config.seed)
    corpus = Corpus(corpus_path)
    clips = corpus.rows("train")
    labels = {name: _values(clips, name) for name in ATTRIBUTES}
    labels = {name: values for name, values in labels.items() if len(values) > 1}
    if not labels:
        raise UserError(
            f"no clip of {corpus_path} has attributes such as {ATTRIBUTES[0]}; build one with `musicrl corpus build`"
        )
    paths = stored.prepare(corpus_path, [clip.file_name for clip in clips])
    tagger = Tagger(width=config.width, dilations=config.dilations, labels=labels)
    truth = _truth(clips, labels)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        chosen = torch.randint(len(clips), (config.batch_size,), generator=generator).tolist()
        length = int(torch.randint(SHORTEST, _LONGEST + 1, (), generator=generator))
        x, _ = stored.crops([paths[i] for i in chosen], length, generator)
        x = degrade(x, generator)
        with autocast(x.device):
            logits = tagger.logits(x)
        parts = {
            name: F.cross_entropy(logits[name], truth[chosen, i], ignore_index=_UNKNOWN, label_smoothing=0.05)
            for i, name in enumerate(labels)
        }
        return torch.stack(list(parts.values())).sum(), {name: float(part.detach()) for name, part in parts.items()}

    with open_run(run_path, "tagger", config, resume=resume, inputs={"corpus": corpus.digest()}) as run:
        spent = fit(
            run,
            tagger,
            loss,
            steps=config.steps,
            learning_rate=config.learning_rate,
            seed=config.seed,
            checkpoint_minutes=config.checkpoint_minutes,
            description="tagger",
        )
    # What ships is bf16; temperatures are fitted to, and figures measured on, exactly that.
    tagger.bfloat16().float().eval()
    validation = corpus.rows("validation") or clips
    tagger.temperatures.copy_(_temperatures(tagger, corpus_path, validation, labels))
    tagger.bfloat16().float()
    held_out = corpus.rows("test") or validation
    figures: dict[str, object] = {
        "steps skipped": int(spent["skipped"]),
        "clips": len(held_out),
        **measure(tagger, corpus_path, held_out),
    }
    text = card(
        "Tagger",
        "A classifier of musical attributes. It judges how well a clip matches its prompt for simulated listeners and"
        " evaluation. It must not be used as a reward: what is optimised cannot judge.",
        part="tagger",
        data=f"{len(clips)} training clips, {sum(stored.load(p).shape[0] for p in paths) / FRAME_RATE / 3600:.1f} h",
        config=config,
        seconds=spent["seconds"],
        figures=figures,
    )
    shape = {"width": config.width, "dilations": list(config.dilations), "labels": labels}
    weights.write(run_path / "model", shape, tagger.state_dict(), text)
    return figures


def degrade(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return frames [B, T, 404] as a codec or a token model may give them: other level, dull, noisy or blurred."""
    x = equalise(gain(x, generator, 9.0), generator, 5.0)
    return noise(smear(low_pass(x, generator, 0.4), generator, 0.4), generator, 0.4)


@torch.no_grad()
def measure(tagger: Tagger, folder: Path, clips: Sequence[Clip]) -> dict[str, float]:
    """Return figures on the first 10 s of clips.

    Returns:
        For each attribute: accuracy, accuracy on degraded clips, share of the most frequent value, and expected
        calibration error (10 bins; Guo et al. 2017).
    """
    logits, degraded = (_logits(tagger, folder, clips, spoil) for spoil in (False, True))
    truth = _truth(clips, tagger.labels)
    figures: dict[str, float] = {}
    for i, name in enumerate(tagger.labels):
        known = truth[:, i] != _UNKNOWN
        true = truth[known, i]
        if not len(true):
            continue
        probabilities = (logits[name][known] / tagger.temperatures[i]).softmax(-1)
        figures[f"{name}: accuracy"] = float((probabilities.argmax(1) == true).double().mean())
        figures[f"{name}: accuracy, degraded"] = float((degraded[name][known].argmax(1) == true).double().mean())
        figures[f"{name}: most frequent value"] = float(torch.bincount(true).max()) / len(true)
        figures[f"{name}: calibration error"] = calibration_error(probabilities, true)
    return figures


def calibration_error(probabilities: Tensor, truth: Tensor) -> float:
    """Return the expected calibration error over ten bins of confidence.

    Args:
        probabilities: [M, C].
        truth: [M] int64.
    """
    confidence, guess = probabilities.max(1)
    bins = (confidence * 10).long().clamp_max(9)
    hits = (guess == truth).double()
    gaps = [(hits[bins == b].sum() - confidence[bins == b].double().sum()).abs() for b in range(10)]
    return float(torch.stack(gaps).sum()) / len(truth)


def _temperatures(tagger: Tagger, folder: Path, clips: Sequence[Clip], labels: Mapping[str, Sequence[str]]) -> Tensor:
    """Return the temperature of each attribute that minimises the cross-entropy of clips, half of them degraded."""
    truth = _truth(clips, labels).repeat(2, 1)
    halves = [_logits(tagger, folder, clips, spoil) for spoil in (False, True)]
    candidates = torch.logspace(-0.7, 0.7, 57)
    best: list[Tensor] = []
    for i, name in enumerate(labels):
        both = torch.cat([half[name] for half in halves])
        losses = [F.cross_entropy(both / t, truth[:, i], ignore_index=_UNKNOWN) for t in candidates]
        best.append(candidates[torch.stack(losses).nan_to_num(0.0).argmin()])
    return torch.stack(best)


@torch.no_grad()
def _logits(tagger: Tagger, folder: Path, clips: Sequence[Clip], spoil: bool) -> dict[str, Tensor]:
    paths = stored.prepare(folder, [clip.file_name for clip in clips])
    generator = torch.Generator().manual_seed(0)
    parts: list[dict[str, Tensor]] = []
    for path in paths:
        x = stored.crop(path, 0, max(SHORTEST, min(_LONGEST, stored.load(path).shape[0])))[None]
        parts.append(tagger.logits(degrade(x, generator) if spoil else x))
    return {name: torch.cat([part[name] for part in parts]) for name in tagger.labels}


def _values(clips: Sequence[Clip], name: str) -> list[str]:
    return sorted({label(clip.attributes[name]) for clip in clips if clip.attributes.get(name) is not None})


def _truth(clips: Sequence[Clip], labels: Mapping[str, Sequence[str]]) -> Tensor:
    """Return [clips, attributes] int64 places among the labels, -100 where a clip's value is unknown."""
    rows: list[list[int]] = []
    for clip in clips:
        values = [(name, clip.attributes.get(name)) for name in labels]
        rows.append(
            [labels[n].index(label(v)) if v is not None and label(v) in labels[n] else _UNKNOWN for n, v in values]
        )
    return torch.tensor(rows)
