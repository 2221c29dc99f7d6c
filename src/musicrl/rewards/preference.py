"""User preference: a Bradley–Terry model over caption and codes, started from MusicLM (MusicRL, section 3.3).

MusicRL found a model started at random no better than chance.

Shapes: **B** clips, **K** codebooks, **T** frames, **D** width of the backbone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from musicrl import runs, weights
from musicrl.config import PreferenceConfig
from musicrl.errors import UserError
from musicrl.feedback.statistics import clustered_share
from musicrl.rewards import comparisons, kinds
from musicrl.rewards.comparisons import Comparison
from musicrl.rewards.fitting import Fitted, Task, fit, held_out
from musicrl.rewards.protocol import Generations
from musicrl.training_state import under

CENTERING = 0.01
"""Weight of (r_a + r_b)² in the loss: votes fix only differences within a prompt, this keeps their level from drifting
(Eisenstein et al. 2023)."""

_SCALE_CLIPS = 256


class Backbone(Protocol):
    """A token model that gives one state a frame; `musicrl.rewards.backbone.MusicLMBackbone` is one."""

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def max_frames(self) -> int:
        """Most frames it was trained on."""
        ...

    @property
    def base_sha256(self) -> str:
        """SHA-256 of the weights it was loaded from."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        ...

    def hidden(self, prompts: Sequence[str], codes: Tensor) -> Tensor:
        """Return [B, T, D] for codes [B, K, T]; entry t has seen the prompt and the codes up to and with frame t."""
        ...

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what is trained; nothing where the backbone is frozen."""
        ...

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the tensors training changes, by name."""
        ...

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `trainable_state` returned."""
        ...


class Head(nn.Module):
    """A linear score of pooled states, standardised by constants so that all of them learn at one rate.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        # Zero weights: every clip starts with the same reward, whatever the seed.
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(()))

    def standardise(self, pooled: Tensor) -> None:
        """Take the constants from pooled states [B, D]."""
        self.mean.copy_(pooled.mean(dim=0))
        self.deviation.copy_(pooled.std(dim=0).clamp_min(1e-4))

    def forward(self, pooled: Tensor) -> Tensor:
        """Return scores [...] of pooled states [..., D]."""
        standard = (pooled - self.mean) / self.deviation
        # The root keeps the score's spread near that of one weight, whatever D is.
        return (standard * self.weight).sum(dim=-1) / self.weight.shape[0] ** 0.5 + self.bias


class Preference:
    """Reward: the log-odds scale of the Bradley–Terry model; it reads codes and needs no audio."""

    name = "preference"
    needs_audio = False

    def __init__(self, backbone: Backbone, head: Head, batch_size: int = 16) -> None:
        self._backbone = backbone
        self._head = head.eval().requires_grad_(False)
        self._batch_size = batch_size

    def __call__(self, batch: Generations) -> Tensor:
        """Return scores [B]; only differences within a prompt have a meaning.

        Raises:
            UserError: the clips carry no codes.
        """
        if batch.codes is None:
            raise UserError("the preference reward reads codes, and these clips have none; use clips of a policy")
        scores: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, len(batch.prompts), self._batch_size):
                rows = slice(start, start + self._batch_size)
                scores.append(self._head(pooled(self._backbone, batch.prompts[rows], list(batch.codes[rows]))))
        return torch.cat(scores).float().to(batch.codes.device)


def pooled(backbone: Backbone, prompts: Sequence[str], clips: Sequence[Tensor]) -> Tensor:
    """Return the mean state over time of each clip.

    Of a clip longer than the backbone's `max_frames`, the first and the last window of that length are read and
    averaged, as MusicRL does with the first and last 20 s of its 30 s clips.

    Args:
        backbone: gives the states.
        prompts: B texts.
        clips: B codes [K, T]; T may differ.

    Returns:
        [B, D].
    """
    most = backbone.max_frames
    owners: list[int] = []
    windows: list[Tensor] = []
    for i, codes in enumerate(clips):
        parts = [codes] if codes.shape[1] <= most else [codes[:, :most], codes[:, -most:]]
        windows += parts
        owners += [i] * len(parts)
    device = backbone.device
    lengths = torch.tensor([window.shape[1] for window in windows], device=device)
    longest = int(lengths.max())
    # States see only earlier frames, so what stands after the end of a shorter clip changes none of its own.
    codes = torch.stack([F.pad(window, (0, longest - window.shape[1])) for window in windows]).to(device)
    hidden = backbone.hidden([prompts[i] for i in owners], codes).float()
    inside = torch.arange(longest, device=device) < lengths[:, None]
    means = (hidden * inside[..., None]).sum(dim=1) / lengths[:, None]
    index = torch.tensor(owners, device=device)
    sums = torch.zeros(len(clips), backbone.width, device=device).index_add(0, index, means)
    return sums / torch.bincount(index, minlength=len(clips))[:, None]


def bradley_terry(scores_a: Tensor, scores_b: Tensor, labels: Tensor) -> Tensor:
    """Return −[p log σ(r_a − r_b) + (1 − p) log σ(r_b − r_a)] of each comparison (Bradley and Terry 1952).

    Args:
        scores_a: [B].
        scores_b: [B].
        labels: [B] p: 1 where a was preferred, 0 where b was, 0.5 for a tie.

    Returns:
        [B] nats.
    """
    return F.binary_cross_entropy_with_logits(scores_a - scores_b, labels, reduction="none")


def load(name_or_path: str | Path = "preference", *, backbone: Backbone | None = None) -> Preference:
    """Return the preference reward of a trained model.

    Args:
        name_or_path: an embedded part, or the folder `model` of a training run.
        backbone: untuned backbone it was trained on; None loads the one its configuration names.

    Raises:
        UserError: weights are missing or corrupt, or were trained on another base than the one installed.
    """
    config, tensors = weights.read(name_or_path)
    with weights.building("preference model", name_or_path):
        if backbone is None:
            backbone = _backbone(config["base"], config["tune"], config["lora_rank"])
        if config["base_sha256"] != backbone.base_sha256:
            raise UserError(
                f"{name_or_path} was trained on another base ({config['base_sha256'][:12]}, there is"
                f" {backbone.base_sha256[:12]}); train it again with `musicrl reward train preference`"
            )
        head = Head(backbone.width).to(backbone.device)
        _load_state(backbone, head, tensors)
    return Preference(backbone, head)


def train(
    config: PreferenceConfig,
    pairs: Iterable[Mapping[str, Any]],
    run_path: Path,
    resume: bool,
    *,
    backbone: Backbone | None = None,
) -> Fitted:
    """Train a preference model on votes and write it to `run_path / "model"`.

    Pairs of one prompt are held out together. Logged beside `loss`: `held_out.loss`, `.accuracy` over votes that are
    not ties, `.accuracy_low` and `.accuracy_high` (95 %, clustered by prompt), `.votes`, and `.ceiling`, the accuracy a
    perfect model would have on labels as noisy as these, where clips were compared by several raters.

    Args:
        config: settings.
        pairs: records with `prompt`, `codes_a`, `codes_b` ([K, T] integers), `label` and, where known, `rater_kind`
            (`comparisons.gather`).
        run_path: run folder.
        resume: continue the run that is there.
        backbone: what to start from; None loads `config.base`.

    Raises:
        UserError: a record is not usable, there are too few votes, or Ctrl-C was pressed.
    """
    votes = comparisons.gather(pairs)
    kept_out = [held_out(vote.prompt, config.validation, config.seed) for vote in votes]
    training = [vote for vote, out in zip(votes, kept_out, strict=True) if not out]
    validation = [vote for vote, out in zip(votes, kept_out, strict=True) if out]
    if not training or all(vote.label == 0.5 for vote in validation):
        raise UserError(
            f"{len(votes)} votes leave {len(training)} to train on and {len(validation)} held out, of which one must"
            " not be a tie; collect more"
        )
    if backbone is None:
        backbone = _backbone(config.base, config.tune, config.lora_rank)
    agreed = comparisons.agreement(votes)
    bound = comparisons.ceiling(agreed[0]) if agreed is not None else None
    head = Head(backbone.width).to(backbone.device)
    inputs = {"base": backbone.base_sha256, "set of votes": comparisons.digest(votes)}
    with runs.open_run(run_path, "preference", config, resume=resume, inputs=inputs) as run:
        fitted = fit(_task(backbone, head, config, training, validation, bound), config, run)
    counts = kinds.count(vote.kind for vote in votes)
    about = {
        "base": config.base,
        "base_sha256": backbone.base_sha256,
        "tune": config.tune,
        "lora_rank": config.lora_rank,
        "votes": counts,
    }
    card = _card(config, training, validation, fitted, kinds.sentence(counts, "votes"))
    weights.write(run_path / "model", about, _state(backbone, head), card)
    return fitted


def _backbone(base: str, tune: Literal["head", "lora", "full"], lora_rank: int) -> Backbone:
    from musicrl.rewards.backbone import load as load_backbone

    return load_backbone(base, tune, lora_rank)


def _task(
    backbone: Backbone,
    head: Head,
    config: PreferenceConfig,
    training: Sequence[Comparison],
    validation: Sequence[Comparison],
    bound: float | None,
) -> Task:
    labels = torch.tensor([vote.label for vote in training], device=backbone.device)
    held_prompts = [vote.prompt for vote in validation]
    held_labels = torch.tensor([vote.label for vote in validation], device=backbone.device)
    tuned = backbone.trainable_parameters()
    size = config.device_batch_size
    with torch.no_grad():
        seen = _pool_pairs(backbone, training[: None if not tuned else _SCALE_CLIPS // 2], size)
        head.standardise(seen.flatten(0, 1))
        held = None if tuned else _pool_pairs(backbone, validation, size)

    # The states of a frozen backbone never change: they are computed once.
    def training_scores(items: Tensor) -> Tensor:
        if not tuned:
            return head(seen[items])
        return head(_pool_pairs(backbone, [training[int(i)] for i in items], size))

    def accumulate(items: Tensor, generator: torch.Generator) -> float:
        total = 0.0
        for part in items.split(size):
            scores = training_scores(part)
            losses = bradley_terry(scores[:, 0], scores[:, 1], labels[part]) + CENTERING * scores.sum(dim=1).square()
            loss = losses.sum() / len(items)
            loss.backward()
            total += loss.item()
        return total

    def evaluate() -> dict[str, float]:
        with torch.no_grad():
            scores = head(held if held is not None else _pool_pairs(backbone, validation, size))
        return figures(scores, held_labels, held_prompts) | ({} if bound is None else {"ceiling": bound})

    groups: list[dict[str, Any]] = [{"params": list(head.parameters()), "lr": config.head_learning_rate}]
    if tuned:
        groups.append({"params": tuned, "lr": config.learning_rate})
    optimizer = AdamW(groups, weight_decay=config.weight_decay)
    return Task(
        name="preference",
        count=len(training),
        optimizer=optimizer,
        accumulate=accumulate,
        evaluate=evaluate,
        state=lambda: _state(backbone, head),
        load_state=_loader(backbone, head),
    )


def figures(scores: Tensor, labels: Tensor, prompts: Sequence[str]) -> dict[str, float]:
    """Return loss, accuracy over votes that are not ties, and its interval, clustered by prompt.

    Args:
        scores: [B, 2] of clips a and b.
        labels: [B] probability that a is better, not all 0.5.
        prompts: B texts; votes on clips of one prompt are not independent.
    """
    decided = labels != 0.5
    lead = (scores[:, 0] - scores[:, 1])[decided]
    right = ((lead > 0) == (labels[decided] == 1.0)).float()
    # Equal scores are a coin toss.
    right[lead == 0] = 0.5
    by_prompt: defaultdict[str, list[float]] = defaultdict(list)
    for row, value in zip(decided.nonzero()[:, 0].tolist(), right.tolist(), strict=True):
        by_prompt[prompts[int(row)]].append(value)
    share = clustered_share(list(by_prompt.values()))
    bounds = {} if share["ci95"] is None else dict(zip(("accuracy_low", "accuracy_high"), share["ci95"], strict=True))
    return {
        "loss": float(bradley_terry(scores[:, 0], scores[:, 1], labels).mean()),
        "accuracy": share["share"],
        **bounds,
        "votes": float(share["n"]),
    }


def _pool_pairs(backbone: Backbone, votes: Sequence[Comparison], size: int) -> Tensor:
    """Return pooled states [B, 2, D] of both clips of each vote."""
    parts: list[Tensor] = []
    for start in range(0, len(votes), size):
        part = votes[start : start + size]
        clips = [codes for vote in part for codes in (vote.codes_a, vote.codes_b)]
        states = pooled(backbone, [vote.prompt for vote in part for _ in range(2)], clips)
        parts.append(states.unflatten(0, (-1, 2)))
    return torch.cat(parts)


def _state(backbone: Backbone, head: Head) -> dict[str, Tensor]:
    state = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    return state | {f"backbone.{name}": tensor for name, tensor in backbone.trainable_state().items()}


def _loader(backbone: Backbone, head: Head) -> Callable[[Mapping[str, Tensor]], None]:
    return lambda state: _load_state(backbone, head, state)


def _load_state(backbone: Backbone, head: Head, state: Mapping[str, Tensor]) -> None:
    head.load_state_dict(under("head.", state))
    backbone.load_trainable_state(under("backbone.", state))


def _card(
    config: PreferenceConfig,
    training: Sequence[Comparison],
    validation: Sequence[Comparison],
    fitted: Fitted,
    data: str,
) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in fitted.held_out.items())
    return f"""# Preference model

Scores a clip's codes, given its prompt, on the log-odds scale of a Bradley–Terry model, as in MusicRL (Cideron et al.
2024), section 3.3. Only differences between clips of one prompt have a meaning.

Data: {data}; {len(training)} to train on and {len(validation)} held out by prompt.
Base: {config.base}, tuned: {config.tune}.
Training: {fitted.steps} steps of {config.batch_size} pairs, seed {config.seed}; these are the weights of step
{fitted.best_step}, where the held-out loss was lowest, so the held-out figures flatter a little.

| held out | |
| --- | --- |
{rows}
"""
