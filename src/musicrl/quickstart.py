"""The whole circle: pairs → votes → rewards → R, U and RU → side by side → report. Every stage can be resumed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicrl import devices, files
from musicrl.collect import simulate
from musicrl.config import FinetuneConfig, QuickstartConfig, load, to_toml
from musicrl.corpus import prompts
from musicrl.errors import UserError
from musicrl.evaluation import run as evaluation
from musicrl.evaluation.clips import draw
from musicrl.evaluation.report import read_metrics
from musicrl.feedback.store import PreferenceStore
from musicrl.finetuning import finetune, load_reward
from musicrl.musiclm.io import checksums
from musicrl.rewards import preference, quality
from musicrl.runs import LOCK, lock

MODELS = ("r", "u", "ru")


SETTINGS = "circle.toml"
"""Marks a folder as one of ours."""

MADE = ("base.json", "stages.json", "results.json", "report.html", "judgements.jsonl", "audio", "store")
"""What a circle makes besides its runs and its settings; `--fresh` deletes all of these and nothing else."""

BASE = ("codec", "semantic", "mulan", "musiclm", "fine", "tagger")
"""Parts that every stage builds on; a circle does not go on with others than it began with."""


@dataclass
class Circle:
    """A circle under way.

    Attributes:
        config: settings.
        folder: everything goes there.
        say: told in one line what begins and what took how long.
        seconds: spent in each stage, over all sittings.
        facts: what each finished stage leaves for the results.
        peak_rss_mb: most memory of any sitting, MB.
    """

    config: QuickstartConfig
    folder: Path
    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    peak_rss_mb: float = 0.0

    def stage(self, name: str, work: Callable[[], Any]) -> None:
        """Do a stage unless an earlier sitting finished it.

        Raises:
            UserError: what the stage raises; time and memory are kept all the same.
        """
        if name in self.facts:
            self.say(f"{name}: done before")
            return
        self.say(f"{name} …")
        start = time.monotonic()
        try:
            self.facts[name] = work()
        except UserError as error:
            # Single commands continue with a flag, a circle by itself.
            raise UserError(str(error).replace("run again with --resume", "run the same command again")) from error
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 1)
            self.peak_rss_mb = max(self.peak_rss_mb, devices.peak_rss_mb())
            done = {"seconds": self.seconds, "facts": self.facts, "peak_rss_mb": self.peak_rss_mb}
            files.write_atomic(self.folder / "stages.json", json.dumps(done, indent=2).encode())
        self.say(f"{name}: {self.seconds[name]:.0f} s")


def quickstart(config: QuickstartConfig, folder: Path, *, fresh: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the whole circle, or what is left of it.

    Finished stages are kept; of one that was interrupted, trainings continue from their checkpoints, while pairs and
    votes, and the comparison, begin again.

    Args:
        config: settings of all stages.
        folder: where everything goes. A circle that is there is continued.
        fresh: start anew, dropping what is there.
        say: told in one line what begins and what took how long.

    Returns:
        What `results.json` holds.

    Raises:
        UserError: weights are missing, the folder holds something else or a circle with other settings, or Ctrl-C was
            pressed (finished stages and checkpoints are kept).
    """
    devices.set_threads()
    folder = folder.resolve()
    _check(config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with closing(lock(folder)):
        circle = _open(config, folder, fresh, say)
        circle.stage("pairs and votes", lambda: _collect(circle))
        circle.stage("quality model", lambda: _train_quality(circle))
        circle.stage("preference model", lambda: _train_preference(circle))
        for name, settings in _finetunings(circle).items():
            circle.stage(f"finetune {name.upper()}", lambda n=name, s=settings: _finetune(circle, n, s))
        circle.stage("side by side", lambda: _compare(circle))
    return json.loads((circle.folder / "results.json").read_text(encoding="utf-8"))


def _open(config: QuickstartConfig, folder: Path, fresh: bool, say: Callable[[str], None]) -> Circle:
    settings = folder / SETTINGS
    if fresh and settings.exists():
        # The settings go last: they are what marks the folder as ours, should this be interrupted.
        for name in (*MADE, "quality", "preference", *MODELS, SETTINGS):
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    circle = Circle(config, folder, say)
    base, began = json.dumps(checksums(*BASE)).encode(), folder / "base.json"
    if settings.exists():
        if began.exists() and began.read_bytes() != base:
            raise UserError(
                f"{folder} holds a circle that began with other weights of the base model;"
                " start anew with --fresh or give another folder"
            )
        if load(QuickstartConfig, settings) != config:
            raise UserError(
                f"{folder} holds a circle with other settings;"
                " start anew with --fresh or give another folder with --out"
            )
        if (folder / "stages.json").exists():
            done = json.loads((folder / "stages.json").read_text(encoding="utf-8"))
            circle.seconds, circle.facts, circle.peak_rss_mb = done["seconds"], done["facts"], done["peak_rss_mb"]
        if not (folder / "results.json").exists():
            circle.facts.pop("side by side", None)
    else:
        files.write_atomic(settings, to_toml(config).encode())
    # After the settings: what stands in a folder without them is taken for something else.
    if not began.exists():
        files.write_atomic(began, base)
    return circle


def _check(config: QuickstartConfig, folder: Path) -> None:
    """Refuse settings that the circle would silently replace with its own paths, and a folder of something else."""
    holds = {path.name for path in folder.iterdir()} - {LOCK} if folder.is_dir() else set[str]()
    if holds and SETTINGS not in holds:
        raise UserError(f"{folder} holds something that is no circle; give another folder with --out")
    own = {"r": ("quality", "preference"), "u": ("quality", "preference"), "ru": ("policy", "quality", "preference")}
    for stage, keys in {**own, "evaluate": ("models",)}.items():
        settings = getattr(config, stage)
        for key in keys:
            if getattr(settings, key) != type(settings).model_fields[key].default:
                raise UserError(f"a circle sets {stage}.{key} itself; leave it out, or use the single commands")


def _collect(circle: Circle) -> dict[str, int]:
    config, folder = circle.config.collect, circle.folder / "store"
    # Half a set of pairs has no use of its own, and nobody but programs voted on it.
    shutil.rmtree(folder, ignore_errors=True)
    return simulate(config, folder)


def _train_quality(circle: Circle) -> dict[str, Any]:
    with PreferenceStore(circle.folder / "store") as store:
        rows = list(store.ratings_for_training())
    fitted = quality.train(circle.config.quality, rows, circle.folder / "quality", True)
    return {"steps": fitted.best_step, **fitted.held_out}


def _train_preference(circle: Circle) -> dict[str, Any]:
    with PreferenceStore(circle.folder / "store") as store:
        pairs = list(store.pairs_for_training())
    fitted = preference.train(circle.config.preference, pairs, circle.folder / "preference", True)
    return {"steps": fitted.best_step, **fitted.held_out}


def _finetunings(circle: Circle) -> dict[str, FinetuneConfig]:
    """Return the settings of R, U and RU with the paths that this circle gives them."""
    paths = {
        "quality": str(circle.folder / "quality" / "model"),
        "preference": str(circle.folder / "preference" / "model"),
    }
    return {
        "r": circle.config.r.model_copy(update=paths),
        "u": circle.config.u.model_copy(update=paths),
        "ru": circle.config.ru.model_copy(update=paths | {"policy": str(circle.folder / "r" / "policy")}),
    }


def _finetune(circle: Circle, name: str, settings: FinetuneConfig) -> dict[str, Any]:
    _, outcome = finetune(settings, circle.folder / name, resume=True)
    return {"steps": outcome.steps, "skipped": outcome.skipped, "stopped": outcome.stopped}


def _compare(circle: Circle) -> dict[str, Any]:
    config, start = circle.config.evaluate, time.monotonic()
    names = {"base": "base", **{name.upper(): str(circle.folder / name / "policy") for name in MODELS}}
    chosen = draw(prompts.load("test"), config.prompts, config.seed)
    rewards = {
        name: load_reward(name, _finetunings(circle)["r"]) for name in ("text_adherence", "quality", "preference")
    }
    compared, sample_rate = evaluation.compare_models(config, names, chosen, rewards)
    before = circle.seconds.get("side by side", 0.0)
    evaluation.write_results(
        circle.folder,
        compared,
        config,
        [prompt.text for prompt in chosen],
        sample_rate,
        title="The circle of MusicRL: base, R, U and RU side by side",
        stages={**circle.seconds, "side by side": round(before + time.monotonic() - start, 1)},
        runs={name: read_metrics(circle.folder / name) for name in MODELS},
        extra={
            "peak_rss_mb": max(circle.peak_rss_mb, devices.peak_rss_mb()),
            "settings": circle.config.model_dump(mode="json"),
            "collected": circle.facts["pairs and votes"],
            "finetunings": {name.upper(): circle.facts[f"finetune {name.upper()}"] for name in MODELS},
            "reward_models": {name: circle.facts[f"{name} model"] for name in ("quality", "preference")},
        },
    )
    return {"prompts": config.prompts}
