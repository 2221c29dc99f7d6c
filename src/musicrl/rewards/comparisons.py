"""Votes between two clips of one prompt, as a preference model learns from them."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from musicrl.errors import UserError
from musicrl.rewards import kinds


@dataclass(frozen=True)
class Comparison:
    """One vote.

    Attributes:
        prompt: what both clips were generated from.
        codes_a: [K, T] int64.
        codes_b: [K, T] int64; T may differ.
        label: probability that a is better: 1, 0, or 0.5 for a tie.
        kind: who voted: person, simulated or unknown.
    """

    prompt: str
    codes_a: Tensor
    codes_b: Tensor
    label: float
    kind: str = kinds.UNKNOWN


def gather(records: Iterable[Mapping[str, Any]]) -> list[Comparison]:
    """Return comparisons from records with `prompt`, `codes_a`, `codes_b` ([K, T] integers), `label` and, where
    known, `rater_kind`.

    `PreferenceStore.pairs_for_training` yields such records.

    Raises:
        UserError: a record lacks a field, its codes are not [K, T] with the same K, or its label is not 0, 0.5 or 1.
    """
    found: list[Comparison] = []
    for number, record in enumerate(records, 1):
        try:
            codes_a = torch.as_tensor(record["codes_a"], dtype=torch.int64)
            codes_b = torch.as_tensor(record["codes_b"], dtype=torch.int64)
            prompt, label = str(record["prompt"]), float(record["label"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"preference {number} is not usable ({error}); give prompt, codes_a, codes_b, label"
            ) from None
        if codes_a.dim() != 2 or codes_b.dim() != 2 or len(codes_a) != len(codes_b) or label not in (0.0, 0.5, 1.0):
            raise UserError(
                f"preference {number} has codes {list(codes_a.shape)} and {list(codes_b.shape)} and label {label};"
                " give codes [K, T] and a label of 0, 0.5 or 1"
            )
        found.append(Comparison(prompt, codes_a, codes_b, label, kinds.kind(record)))
    return found


def digest(votes: Sequence[Comparison]) -> str:
    """Return a SHA-256 of the votes and their order; a training is resumed on the same ones only."""
    state = hashlib.sha256()
    for vote in votes:
        state.update(f"{vote.prompt}\0{vote.label}\0".encode())
        for codes in (vote.codes_a, vote.codes_b):
            state.update(codes.contiguous().numpy().tobytes())
    return state.hexdigest()


def agreement(votes: Sequence[Comparison]) -> tuple[float, int] | None:
    """Return how often two votes on the same two clips agree, and over how many such pairs of votes; ties left out.

    Returns:
        (share, count), or None where no two clips were compared twice.
    """
    by_clips: defaultdict[tuple[str, bytes], list[bool]] = defaultdict(list)
    for vote in votes:
        if vote.label == 0.5:
            continue
        first, second = (hashlib.sha256(codes.numpy().tobytes()).digest() for codes in (vote.codes_a, vote.codes_b))
        # Seen the other way round it is still the same question.
        swapped = first > second
        by_clips[vote.prompt, max(first, second) + min(first, second)].append((vote.label == 1.0) != swapped)
    same = [a == b for answers in by_clips.values() for a, b in itertools.combinations(answers, 2)]
    return (sum(same) / len(same), len(same)) if same else None


def ceiling(agreed: float) -> float:
    """Return the accuracy on votes that a perfect model of the consensus reaches, given how often two votes agree.

    If each vote flips the consensus with probability p, two agree with p² + (1 − p)², and the consensus is right about
    a vote with 1 − p: listeners who agree on 60 % of pairs (MusicRL, section 3.3) leave 72 %.

    Args:
        agreed: share of agreeing votes (`agreement`); below 0.5 there is no consensus, which counts as 0.5.
    """
    return (1.0 + max(0.0, 2.0 * agreed - 1.0) ** 0.5) / 2.0
