"""`musicrl evaluate`: samples of every model on held-out prompts, judged side by side, written as a report."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicrl import __version__, devices, mulan, policies, tagger
from musicrl.audio import io
from musicrl.audio.facts import NUMBERS
from musicrl.config import EvaluateConfig
from musicrl.corpus import prompts
from musicrl.corpus.prompts import Prompt
from musicrl.errors import UserError
from musicrl.evaluation import report
from musicrl.evaluation.clips import draw, sample_clips
from musicrl.evaluation.statistics import mean_interval
from musicrl.evaluation.study import Heard, Study, hear, matches, side_by_side
from musicrl.feedback import listeners
from musicrl.files import make_folder, write_atomic
from musicrl.fitting import commit
from musicrl.rewards.generations import from_audio
from musicrl.rewards.protocol import Reward
from musicrl.rewards.text_adherence import TextAdherence

FACTS = ("key_clarity", "steadiness", "silence_share")
"""Measured facts that stand beside the rewards of each model."""

LISTENERS = (
    "No person rated these clips. Users and raters are programs with hidden utilities over measured facts, two "
    "populations with different tastes; no model was trained on a utility, and the judge of prompt match is no reward."
)


@dataclass(frozen=True)
class Compared:
    """A finished comparison.

    Attributes:
        study: judgements and pairs.
        models: figures of each model by name; means over prompts.
        intervals: 95 % interval of each figure that has one, by model and figure.
        audio: loudness-matched clips [P, N] of each model.
    """

    study: Study
    models: dict[str, dict[str, float | None]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    audio: Mapping[str, Tensor]


def evaluate(config: EvaluateConfig, folder: Path) -> dict[str, Any]:
    """Compare models side by side and write the report into a folder.

    Args:
        config: which models, how many prompts and raters.
        folder: where report.html, results.json, judgements.jsonl and the clips of the examples go.

    Returns:
        What results.json holds.

    Raises:
        UserError: fewer than two models, a model is missing, there are too few held-out prompts, or the folder holds
            results already or cannot be made.
    """
    if len(set(config.models)) < len(config.models):
        raise UserError(f"models {', '.join(config.models)} name one model twice; name each once")
    if len(config.models) < 2:
        raise UserError(f'a comparison needs two models or more, not {len(config.models)}; give models=["base","r"]')
    if (folder / "results.json").exists():
        raise UserError(f"{folder} already holds results; give another folder with --out")
    # Made before the work, so that a folder that cannot be made costs nothing.
    make_folder(folder)
    devices.set_threads()
    chosen = draw(prompts.load("test"), config.prompts, config.seed)
    start = time.monotonic()
    names = {name.upper() if name in ("r", "u", "ru") else name: name for name in config.models}
    compared, sample_rate = compare_models(config, names, chosen, {"text_adherence": TextAdherence(mulan.load())})
    return write_results(
        folder,
        compared,
        config,
        [prompt.text for prompt in chosen],
        sample_rate,
        title="Models side by side",
        stages={"side by side": round(time.monotonic() - start, 1)},
        runs={},
        extra={"settings": config.model_dump(mode="json")},
    )


def compare_models(
    config: EvaluateConfig, models: Mapping[str, str], chosen: Sequence[Prompt], rewards: Mapping[str, Reward]
) -> tuple[Compared, int]:
    """Sample every model on the same prompts and let simulated raters compare them.

    Args:
        config: settings.
        models: what `policies.load` takes, by the name shown.
        chosen: prompts.
        rewards: rewards reported beside the judgements.

    Returns:
        The comparison and the sample rate, Hz.
    """
    judge = tagger.load()
    raters = listeners.raters(config.raters, config.seed, config.agreement)
    texts = [prompt.text for prompt in chosen]
    audio: dict[str, Tensor] = {}
    codes: dict[str, Tensor] = {}
    heard: dict[str, Heard] = {}
    shuffled: dict[str, NDArray[np.float64]] = {}
    sample_rate = 0
    for name, model in models.items():
        policy = policies.load(model)
        sample_rate = policy.sample_rate
        clips = sample_clips(
            policy,
            texts,
            clips_per_prompt=1,
            seconds=config.seconds,
            temperature=config.temperature,
            seed=config.seed,
        )
        codes[name], audio[name] = clips.codes, clips.audio
        attributes = [prompt.attributes for prompt in chosen]
        heard[name] = hear(audio[name], attributes, judge, sample_rate)
        # The control of every claim that a model follows its prompts: the same clips, each judged by another's prompt.
        shuffled[name] = matches(audio[name], attributes[1:] + attributes[:1], judge)
    study = side_by_side(heard, texts, raters, raters_per_prompt=config.raters_per_prompt, seed=config.seed)
    figures: dict[str, dict[str, float | None]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for name, perceived in heard.items():
        batch = from_audio(texts, audio[name], sample_rate, codes[name])
        columns = {"prompt match": perceived.match, "prompt match, shuffled": shuffled[name]}
        columns |= {fact.replace("_", " "): perceived.facts[:, NUMBERS.index(fact)] for fact in FACTS}
        with torch.no_grad():
            for key, reward in rewards.items():
                columns[f"reward: {key.replace('_', ' ')}"] = reward(batch).double().cpu().numpy()
        figures[name], intervals[name] = {"mean rating": study.mean_ratings.get(name)}, {}
        for column, values in columns.items():
            mean, low, high = mean_interval(values, np.arange(len(texts)), seed=config.seed)
            figures[name][column], intervals[name][column] = mean, (low, high)
    return Compared(study, figures, intervals, audio), sample_rate


def write_results(
    folder: Path,
    compared: Compared,
    config: EvaluateConfig,
    texts: Sequence[str],
    sample_rate: int,
    *,
    title: str,
    stages: Mapping[str, float],
    runs: Mapping[str, Sequence[Mapping[str, float]]],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Write results.json, judgements.jsonl, the clips of the examples and report.html.

    Args:
        folder: where they go.
        compared: the comparison.
        config: its settings.
        texts: P prompts.
        sample_rate: Hz.
        title: heading of the report.
        stages: seconds by stage.
        runs: metrics of each finetuning, for the curves.
        extra: further entries of results.json.

    Returns:
        What results.json holds.
    """
    results: dict[str, Any] = {
        "title": title,
        "command": shlex.join(["musicrl", *sys.argv[1:]]),
        "version": __version__,
        "commit": commit(),
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "device": "cpu" if not torch.cuda.is_available() else "cuda",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "listeners": LISTENERS,
        "prompts": len(texts),
        "raters_per_prompt": config.raters_per_prompt,
        "pairs": {name: pair.as_dict() for name, pair in compared.study.pairs.items()},
        "models": compared.models,
        "intervals": compared.intervals,
        "model_columns": list(next(iter(compared.models.values()))),
        "model_note": (
            "Mean rating: simulated raters, 1 to 5. Prompt match: probability the tagger gives to what the prompt "
            "names; shuffled: to what the next prompt names. In brackets 95 % intervals over prompts. Rewards are "
            "means over the held-out clips; what a model was trained on never judges it alone."
        ),
        "stages": dict(stages),
        "peak_rss_mb": devices.peak_rss_mb(),
        **extra,
    }
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in compared.study.judgements)
    write_atomic(folder / "judgements.jsonl", lines.encode())
    examples = _write_examples(folder, compared.audio, texts, config.examples, sample_rate)
    report.write_report(folder / "report.html", results, runs, examples, sample_rate)
    write_atomic(folder / "results.json", (json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
    return results


def _write_examples(
    folder: Path, audio: Mapping[str, Tensor], prompts: Sequence[str], count: int, sample_rate: int
) -> list[report.Example]:
    examples: list[report.Example] = []
    (folder / "audio").mkdir(exist_ok=True)
    # The whole name, since several policies may lie in folders called `policy`.
    slugs = {name: re.sub(r"\W+", "-", name).strip("-").lower() for name in audio}
    for index in range(min(count, len(prompts))):
        clips: dict[str, tuple[str, Any]] = {}
        for name, clip in audio.items():
            file = f"audio/{index:02d}-{slugs[name]}.wav"
            io.write(folder / file, clip[index], sample_rate)
            clips[name] = (file, np.asarray(clip[index]))
        examples.append(report.Example(prompts[index], clips))
    return examples
