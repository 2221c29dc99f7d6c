"""From the settings of a finetuning to a finished policy: loads the policy and its rewards, runs, writes the result."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from musicrl import policies
from musicrl.config import FinetuneConfig, to_toml
from musicrl.corpus import prompts
from musicrl.errors import UserError
from musicrl.policies.protocol import Policy
from musicrl.rewards import callable as from_code
from musicrl.rewards import preference, quality
from musicrl.rewards.combine import WeightedSum
from musicrl.rewards.protocol import Reward
from musicrl.rewards.text_adherence import TextAdherence
from musicrl.rl.calibrate import calibrate
from musicrl.rl.loop import Outcome
from musicrl.rl.loop import finetune as run_loop
from musicrl.runs import open_run


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
    rewards = {name: load_reward(name, config) for name in config.rewards}
    texts = [prompt.text for prompt in prompts.load("train")]
    with open_run(path, "finetune", config, resume=resume) as run:
        policy = policies.load(config.policy, rank=None if config.full else config.lora_rank)
        scales = calibrate(policy, rewards, texts, config)
        outcome = run_loop(policy, WeightedSum(rewards, config.rewards, scales), texts, config, run)
        policy.save(path / "policy", _card(config, scales, outcome, policy))
    return path / "policy", outcome


def _imported(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"reward '{name}' cannot be imported: {error}; check the module and the function") from None


def _card(config: FinetuneConfig, scales: Mapping[str, tuple[float, float]], outcome: Outcome, policy: Policy) -> str:
    ended = "all steps were done" if outcome.stopped == "steps" else "the KL passed its limit"
    constants = ", ".join(f"{name} ({mean:.4g}, {deviation:.4g})" for name, (mean, deviation) in scales.items())
    tensors = sum(tensor.numel() for tensor in policy.trainable_state().values())
    return (
        f"# Finetuned from {config.policy}\n\n"
        f"A token model finetuned by reinforcement learning with `musicrl finetune` (MusicRL, section 3.2).\n\n"
        f"- Steps: {outcome.steps}, of which {outcome.skipped} were skipped; {ended}\n"
        f"- Trained numbers: {tensors:,}\n"
        f"- Mean and deviation that standardise each reward: {constants}\n\n"
        f"```toml\n{to_toml(config)}```\n"
    )
