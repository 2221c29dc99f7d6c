"""The training loop of every part but the codec, and the card of what it made."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from musicrl import __version__
from musicrl.config import Stage, to_toml
from musicrl.runs import Run, interruptible, pack, progress, unpack
from musicrl.training_state import under

Loss = Callable[[int, torch.Generator], tuple[Tensor, Mapping[str, float]]]
"""From a step and its generator to the loss and the figures to log."""


def fit(
    run: Run,
    module: nn.Module,
    loss: Loss,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.05,
    seed: int,
    checkpoint_minutes: float,
    description: str,
) -> dict[str, float]:
    """Minimise `loss` over the parameters of `module` with AdamW, linear warm-up and cosine decay.

    All randomness of a step comes from a generator seeded by (seed, step), so a run resumed from any checkpoint repeats
    the uninterrupted one bit for bit. A step whose loss or gradient is not finite is skipped and counted.

    Args:
        run: where metrics and checkpoints go; a checkpoint in it is continued.
        module: parameters and buffers that a checkpoint keeps.
        loss: called with the step and its generator.
        steps: steps in all.
        learning_rate: peak, reached after 5 % of the steps; the last step has a twentieth of it.
        weight_decay: of matrices; vectors are not decayed.
        seed: of all steps.
        checkpoint_minutes: time between checkpoints.
        description: shown with the progress.

    Returns:
        `skipped` steps and `seconds` of training, summed over interruptions.

    Raises:
        UserError: Ctrl-C was pressed (the step is saved), or a checkpoint cannot be written.
    """
    matrices = [p for p in module.parameters() if p.requires_grad and p.dim() > 1]
    vectors = [p for p in module.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))
    first, counts = 0, {"skipped": 0.0, "seconds": 0.0}
    checkpoint = run.latest()
    if checkpoint is not None:
        module.load_state_dict(under("module.", checkpoint.tensors))
        unpack(checkpoint.tensors, checkpoint.state, optimizer=optimizer)
        first, counts = checkpoint.step, dict(checkpoint.state["counts"])

    def save(step: int) -> None:
        tensors, state = pack(optimizer=optimizer)
        weights = {f"module.{k}": v for k, v in module.state_dict().items()}
        run.save(step, {**weights, **tensors}, {**state, "counts": counts})

    module.train()
    with progress(description, steps) as bar, interruptible() as stop:
        bar.advance(first)
        for step in range(first, steps):
            started = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * _schedule(step, steps)
            value, figures = loss(step, torch.Generator().manual_seed(seed * 1_000_003 + step))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            norm = float(nn.utils.clip_grad_norm_(matrices + vectors, 1.0))
            level = float(value.detach())
            if math.isfinite(level) and math.isfinite(norm):
                optimizer.step()
            else:
                counts["skipped"] += 1
            counts["seconds"] += time.monotonic() - started
            run.log(step, loss=level, norm=norm, **figures)
            bar.update(loss=level, **figures)
            bar.advance(1)
            if stop():
                save(step + 1)
                raise run.interrupted(step + 1)
            if run.due(checkpoint_minutes):
                save(step + 1)
    if first < steps:
        save(steps)
    module.eval()
    return counts


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def card(
    title: str, summary: str, *, part: str, data: str, config: Stage, seconds: float, figures: Mapping[str, object]
) -> str:
    """Return a model card (Mitchell et al. 2019) in Markdown.

    Args:
        title: heading.
        summary: what the model is and what it is for.
        part: name of the stage in `musicrl pretrain`.
        data: what it was trained on.
        config: resolved settings.
        seconds: training time.
        figures: what was measured on held-out clips, by name.
    """
    rows = "\n".join(
        f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |"
        for name, value in figures.items()
    )
    return (
        f"# {title}\n\n{summary}\n\n"
        f"- Command: `musicrl pretrain {part}`\n- Data: {data}\n- Training time: {seconds / 60:.1f} minutes on"
        f" {torch.get_num_threads()} CPU threads\n- Version: musicrl {__version__}, commit {commit()}\n"
        f"- Licence: Apache-2.0\n\n## Settings\n\n```toml\n{to_toml(config).strip()}\n```\n\n"
        f"## Measured on held-out clips\n\n| figure | value |\n| --- | --- |\n{rows}\n"
    )


def commit() -> str:
    """Return the commit of the source tree this runs from, if it is one."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return asked.stdout.strip()
