"""From the settings of a finetuning to a finished policy: loads the policy and its rewards, runs, writes the result."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from musicrl import __version__, devices, files, policies, weights
from musicrl.config import FinetuneConfig, to_toml
from musicrl.corpus import prompts
from musicrl.errors import UserError
from musicrl.fitting import commit
from musicrl.policies.protocol import Policy
from musicrl.rewards import callable as from_code
from musicrl.rewards import kinds, preference, quality
from musicrl.rewards.combine import WeightedSum
from musicrl.rewards.protocol import Reward
from musicrl.rewards.text_adherence import TextAdherence
from musicrl.rl.calibrate import calibrate
from musicrl.rl.loop import Outcome
from musicrl.rl.loop import finetune as run_loop
from musicrl.runs import open_run

Scales = dict[str, tuple[float, float]]
"""Mean and deviation that standardise each reward, by name."""

_LAST = 10
"""Steps whose mean the card gives as the end of the run."""


def load_reward(name: str, config: FinetuneConfig) -> Reward:
    """Return a reward by its name in the settings.

    Args:
        name: text_adherence, quality, preference, or `module:function` of a callable
            `(prompts, audio [B, N], sample_rate) -> B floats` that can be imported.
        config: says where the trained models are.

    Raises:
        UserError: there is no such reward, or its weights are missing or corrupt.
    """
    if name == "text_adherence":
        from musicrl import mulan

        return TextAdherence(mulan.load())
    if name == "quality":
        return quality.load(config.quality)
    if name == "preference":
        return preference.load(config.preference)
    if ":" in name:
        return from_code.from_callable(_imported(name), name)
    raise UserError(
        f"there is no reward '{name}'; give text_adherence, quality, preference or module:function of your own"
    )


def finetune(config: FinetuneConfig, path: Path, *, resume: bool) -> tuple[Path, Outcome]:
    """Finetune a policy as the settings say.

    Args:
        config: settings.
        path: run folder; the finished policy goes to `policy` inside it.
        resume: continue the run that is there.

    Returns:
        The folder of the finished policy (what `--model` takes), and how the run ended.

    Raises:
        UserError: weights are missing, settings do not fit, or Ctrl-C was pressed (what was learnt is saved).
    """
    devices.set_threads()
    rewards = {name: load_reward(name, config) for name in config.rewards}
    texts = [prompt.text for prompt in prompts.load("train")]
    with open_run(path, "finetune", config, resume=resume, inputs=_inputs(config)) as run:
        policy = policies.load(config.policy, rank=None if config.full else config.lora_rank)
        if run.latest() is None:
            # Left by a run that never saved, perhaps with other rewards; this one starts anew.
            (path / "scales.json").unlink(missing_ok=True)
        scales = _scales(path / "scales.json", lambda: calibrate(policy, rewards, texts, config))
        outcome = run_loop(policy, WeightedSum(rewards, config.rewards, scales), texts, config, run)
        policy.save(path / "policy", _card(config, texts, scales, outcome, policy, _end(path)))
    return path / "policy", outcome


def _scales(path: Path, measure: Callable[[], Scales]) -> Scales:
    """Return what is in the file, measuring and writing it first if it is not there: a resumed run keeps its scales."""
    if not path.exists():
        files.write_atomic(path, json.dumps(measure()).encode())
    stored = json.loads(path.read_bytes())
    return {name: (mean, deviation) for name, (mean, deviation) in stored.items()}


def _inputs(config: FinetuneConfig) -> dict[str, str]:
    """Return the checksums of the policy to start from, of what decodes its codes, and of the rewards' weights."""
    used = {"text_adherence": "mulan", "quality": config.quality, "preference": config.preference}
    parts = {name: part for name, part in used.items() if name in config.rewards} | {"codec": "codec", "fine": "fine"}
    sums = {name: weights.read(part)[0]["sha256"] for name, part in parts.items()}
    return {"policy": policies.checkpoint_sha256(config.policy), **sums}


def _imported(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    # A console script does not look for modules where it is called.
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"reward '{name}' cannot be imported: {error}; check the module and the function") from None
    finally:
        sys.path.remove(here)


def _end(path: Path) -> dict[str, float]:
    """Return rewards, KL and diversity, each the mean over the last steps that were not skipped."""
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, float]] = [row for row in map(json.loads, lines) if "reward" in row][-_LAST:]
    names = [name for name in (rows[-1] if rows else ()) if name.partition(".")[0] in ("reward", "kl", "diversity")]
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


def _learnt_from(config: FinetuneConfig) -> str:
    """Return whose votes and ratings the reward models learnt from."""
    told: list[str] = []
    for name, folder, noun in (("quality", config.quality, "ratings"), ("preference", config.preference, "votes")):
        if name in config.rewards:
            told.append(f"{name} on {kinds.sentence(weights.read(folder)[0][noun], noun)}")
    return f"- Reward models trained: {', '.join(told)}\n" if told else ""


def _card(
    config: FinetuneConfig,
    texts: Sequence[str],
    scales: Mapping[str, tuple[float, float]],
    outcome: Outcome,
    policy: Policy,
    end: Mapping[str, float],
) -> str:
    ended = "all steps were done" if outcome.stopped == "steps" else "the KL passed its limit"
    constants = ", ".join(f"{name} ({mean:.4g}, {deviation:.4g})" for name, (mean, deviation) in scales.items())
    # A circle names its models by absolute paths; where it lay on this machine is nobody's business.
    settings = to_toml(config).replace(f"{Path.cwd()}/", "")
    tensors = sum(tensor.numel() for tensor in policy.trainable_state().values())
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in end.items())
    return (
        f"# Finetuned from {config.policy.removeprefix(f'{Path.cwd()}/')}\n\n"
        f"A token model finetuned by reinforcement learning with `musicrl finetune` (MusicRL, section 3.2).\n\n"
        f"- Command: `musicrl finetune FILE`, where FILE holds the settings below\n"
        f"- Version: musicrl {__version__}, commit {commit()}\n"
        f"- Licence: Apache-2.0\n"
        f"- Prompts: {config.prompts_per_step} a step, drawn from the {len(texts):,} packaged training prompts\n"
        f"{_learnt_from(config)}"
        f"- Steps: {outcome.steps}, of which {outcome.skipped} were skipped; {ended}\n"
        f"- Trained numbers: {tensors:,}\n"
        f"- Mean and deviation that standardise each reward: {constants}\n\n"
        f"## Settings\n\n```toml\n{settings}```\n\n"
        f"## Measured on training prompts\n\nMean of the last {_LAST} steps; `reward` is the weighted sum of the"
        f" standardised parts, KL is in nats a clip.\n\n| figure | value |\n| --- | --- |\n{rows}"
    )
