"""The training loop of the learnt rewards: reshuffled passes, early stopping on held-out loss, exact resume."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from musicrl import runs
from musicrl.config import PreferenceConfig, QualityConfig
from musicrl.training_state import under

MAX_GRAD_NORM = 1.0
WARMUP = 20
"""Steps over which the learning rates rise from 0."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What is fitted.

    Attributes:
        name: shown beside the progress bar.
        count: training items.
        optimizer: over the trainable parameters, each group with its full learning rate.
        accumulate: `(items [n], generator) -> loss`; adds the gradient of the mean loss on these items.
        evaluate: held-out figures by name, "loss" among them.
        state: trainable tensors by name.
        load_state: puts them back.
    """

    name: str
    count: int
    optimizer: Optimizer
    accumulate: Callable[[Tensor, torch.Generator], float]
    evaluate: Callable[[], dict[str, float]]
    state: Callable[[], Mapping[str, Tensor]]
    load_state: Callable[[Mapping[str, Tensor]], object]


@dataclass(frozen=True)
class Fitted:
    """How the fit ended; the model holds the weights of `best_step`.

    Attributes:
        steps: steps done.
        best_step: evaluated step with the lowest held-out loss; never the untrained step 0.
        held_out: the held-out figures there, of the weights as they are stored (bf16).
    """

    steps: int
    best_step: int
    held_out: dict[str, float]


@dataclass
class _Progress:
    """Everything besides weights and optimizer that changes from step to step."""

    order: Tensor
    best: dict[str, Tensor]
    best_step: int
    held_out: dict[str, float]
    waiting: int


def fit(task: Task, schedule: QualityConfig | PreferenceConfig, run: runs.Run) -> Fitted:
    """Fit until the steps are done or the held-out loss has not fallen for `patience` evaluations.

    Continues from the newest checkpoint of the run, bit for bit on a CPU. Logs `loss` and `grad_norm` each step and
    `held_out.NAME` at each evaluation.

    Raises:
        UserError: Ctrl-C was pressed; what was learnt is saved.
    """
    generator = torch.Generator().manual_seed(schedule.seed)
    rates = [float(group["lr"]) for group in task.optimizer.param_groups]
    checkpoint = run.latest()
    if checkpoint is None:
        first, held_out = 0, task.evaluate()
        run.log(0, **_held_out(held_out))
        now = _Progress(torch.empty(0, dtype=torch.int64), _copy(task.state()), 0, held_out, 0)
    else:
        first, now = checkpoint.step, _restore(task, generator, checkpoint)
    with runs.progress(f"train {task.name}", schedule.steps) as bar, runs.interruptible() as stop:
        bar.advance(first)
        step = first
        while step < schedule.steps and now.waiting < schedule.patience:
            step += 1
            for group, rate in zip(task.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, step / WARMUP)
            metrics = _step(task, _take(now, schedule.batch_size, task.count, generator), generator)
            if step % schedule.eval_every == 0 or step == schedule.steps:
                held_out = task.evaluate()
                metrics |= _held_out(held_out)
                now.waiting += 1
                # An untrained preference model scores every clip the same, which no finetuning can use. It may have the
                # lowest loss all the same, where the votes are mostly noise.
                if now.best_step == 0 or held_out["loss"] < now.held_out["loss"]:
                    now.best, now.best_step, now.held_out, now.waiting = _copy(task.state()), step, held_out, 0
                bar.update(**{name: value for name, value in held_out.items()})
            run.log(step, **metrics)
            bar.advance()
            if stop():
                _save(run, step, task, generator, now)
                raise run.interrupted(step)
            if run.due(schedule.checkpoint_minutes):
                _save(run, step, task, generator, now)
    _save(run, step, task, generator, now)
    # What is written is bf16; the figures are those of exactly that.
    stored = {name: t.bfloat16().float() if t.is_floating_point() else t for name, t in now.best.items()}
    task.load_state(stored)
    return Fitted(steps=step, best_step=now.best_step, held_out=task.evaluate())


def held_out(key: str, share: float, seed: int) -> bool:
    """Return whether what has this key is held out; the same for a key in whatever order and company it comes.

    Args:
        key: what must not be split: a prompt, or a clip.
        share: share of the keys to hold out.
        seed: another seed holds out others.
    """
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _step(task: Task, items: Tensor, generator: torch.Generator) -> dict[str, float]:
    task.optimizer.zero_grad()
    loss = task.accumulate(items, generator)
    parameters = [p for group in task.optimizer.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM))
    if math.isfinite(loss) and math.isfinite(norm):
        task.optimizer.step()
    else:
        _log.warning("step skipped: loss %s, gradient norm %s", loss, norm)
    return {"loss": loss, "grad_norm": norm}


def _take(now: _Progress, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Return the next items of endless reshuffled passes; what is left of a pass is part of the checkpoint."""
    while len(now.order) < size:
        now.order = torch.cat([now.order, torch.randperm(count, generator=generator)])
    items, now.order = now.order[:size], now.order[size:]
    return items


def _save(run: runs.Run, step: int, task: Task, generator: torch.Generator, now: _Progress) -> None:
    tensors, state = runs.pack(optimizer=task.optimizer, generators={"items": generator})
    tensors |= {f"model.{name}": tensor for name, tensor in task.state().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in now.best.items()}
    tensors["order"] = now.order
    progress = {"best_step": now.best_step, "held_out": now.held_out, "waiting": now.waiting}
    run.save(step, tensors, {**state, "progress": progress})


def _restore(task: Task, generator: torch.Generator, checkpoint: runs.Checkpoint) -> _Progress:
    tensors = checkpoint.tensors
    runs.unpack(tensors, checkpoint.state, optimizer=task.optimizer, generators={"items": generator})
    task.load_state(under("model.", tensors))
    progress = checkpoint.state["progress"]
    return _Progress(tensors["order"], under("best.", tensors), **progress)


def _held_out(figures: Mapping[str, float]) -> dict[str, float]:
    return {f"held_out.{name}": value for name, value in figures.items()}


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
