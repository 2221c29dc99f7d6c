"""What goes into the preference store and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from musicrl.errors import UserError

Choice = Literal["a", "b", "tie", "both_bad", "cannot_play"]
Side = Literal["a", "b"]
RaterKind = Literal["person", "simulated"]
Axis = Literal["quality", "adherence", "appeal"]

CHOICES: tuple[Choice, ...] = ("a", "b", "tie", "both_bad", "cannot_play")
SIDES: tuple[Side, ...] = ("a", "b")
RATER_KINDS: tuple[RaterKind, ...] = ("person", "simulated")
AXES: tuple[Axis, ...] = ("quality", "adherence", "appeal")
_MAX_KEY = 200


class ConflictError(UserError):
    """The store already holds something else under the same identity; nothing was written."""


class StorageError(UserError):
    """The database or the disk refused the write; nothing was acknowledged and nothing was stored."""


@dataclass(frozen=True)
class NewClip:
    """A generated clip to be stored.

    Attributes:
        prompt: the text the clip was generated from.
        model: name of the model ("base", "r", "u", "ru" or the user's own).
        checkpoint_sha256: SHA-256 of the model's weights, hexadecimal.
        seed: seed of the sample.
        sampler: settings of the sampler (temperature, top_k, ...), as JSON values.
        audio: [N] float in [-1, 1], mono, as listeners hear it (after `gain_db`).
        sample_rate: Hz.
        codes: [K, T] integer tokens of the policy, or None for a clip that has none.
        lufs: integrated loudness of `audio` in LUFS, None when it is too short or silent.
        gain_db: gain already applied to reach that loudness.
    """

    prompt: str
    model: str
    checkpoint_sha256: str
    seed: int
    audio: NDArray[np.floating[Any]]
    sample_rate: int
    codes: NDArray[np.integer[Any]] | None = None
    sampler: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lufs: float | None = None
    gain_db: float = 0.0


@dataclass(frozen=True)
class Clip:
    """A stored clip; `audio_sha256` and `codes_sha256` name its files in the content store."""

    id: str
    prompt: str
    model: str
    checkpoint_sha256: str
    seed: int
    sampler: Mapping[str, Any]
    audio_sha256: str
    codes_sha256: str | None
    sample_rate: int
    duration_s: float
    lufs: float | None
    gain_db: float


@dataclass(frozen=True)
class Pair:
    """Two stored clips of one prompt, to be compared. Which one a listener meets first belongs to the vote."""

    id: str
    prompt: str
    clip_a: str
    clip_b: str


@dataclass(frozen=True)
class Rater:
    """Who listens: `kind` says whether it is a person or a simulated listener."""

    id: str
    kind: RaterKind

    def __post_init__(self) -> None:
        if not self.id or self.kind not in RATER_KINDS:
            raise UserError(f"rater {self.id!r} of kind {self.kind!r}: give an id, and one of {', '.join(RATER_KINDS)}")


@dataclass(frozen=True)
class NewVote:
    """One answer to "which of the two?".

    Attributes:
        pair_id: the pair that was heard.
        rater_id: who answers; registered before with `add_rater`.
        choice: "a", "b", "tie", "both_bad" or "cannot_play".
        presented_first: which clip stood first (left on the page, or heard first).
        heard_a_seconds: seconds of clip a that really sounded.
        heard_b_seconds: seconds of clip b that really sounded.
        key: idempotency key made by the caller, at most 200 characters; sending a vote again with it is harmless.
    """

    pair_id: str
    rater_id: str
    choice: Choice
    presented_first: Side
    heard_a_seconds: float
    heard_b_seconds: float
    key: str

    def __post_init__(self) -> None:
        if self.choice not in CHOICES or self.presented_first not in SIDES:
            raise UserError(
                f"vote {self.choice!r} with {self.presented_first!r} first: give {', '.join(CHOICES)}, and a or b"
            )
        heard = (self.heard_a_seconds, self.heard_b_seconds)
        if not all(math.isfinite(seconds) and seconds >= 0 for seconds in heard):
            raise UserError(f"vote after {heard} seconds of listening: give finite seconds from 0")
        _check_key(self.key)


@dataclass(frozen=True)
class VoteReceipt:
    """Proof that a vote is on disk; the same key and body always give the same receipt."""

    vote_id: str
    pair_id: str
    rater_id: str
    choice: Choice
    server_time: datetime
    supersedes: str | None


@dataclass(frozen=True)
class NewRating:
    """One answer on a scale from 1 to 5 for a single clip; `key` as in `NewVote`."""

    clip_id: str
    rater_id: str
    axis: Axis
    value: int
    key: str

    def __post_init__(self) -> None:
        if self.axis not in AXES or self.value not in range(1, 6):
            raise UserError(f"rating {self.axis!r} = {self.value!r}: give one of {', '.join(AXES)}, and 1 to 5")
        _check_key(self.key)


@dataclass(frozen=True)
class RatingReceipt:
    """Proof that a rating is on disk."""

    rating_id: str
    clip_id: str
    rater_id: str
    axis: Axis
    value: int
    server_time: datetime
    supersedes: str | None


@dataclass(frozen=True)
class Vote:
    """A stored vote with its pair, clips and rater."""

    id: str
    pair_id: str
    clip_a: Clip
    clip_b: Clip
    rater: Rater
    choice: Choice
    presented_first: Side
    heard_a_seconds: float
    heard_b_seconds: float
    server_time: datetime
    superseded_by: str | None

    @property
    def is_current(self) -> bool:
        """Whether the rater has not changed this vote since."""
        return self.superseded_by is None


@dataclass(frozen=True)
class Rating:
    """A stored rating with its clip and rater."""

    id: str
    clip: Clip
    rater: Rater
    axis: Axis
    value: int
    server_time: datetime


class TrainingPair(TypedDict):
    """One comparison for a Bradley-Terry reward model.

    `codes_a`, `codes_b`: [K, T] int64; `label`: probability that a is preferred (1: a, 0: b, 0.5: tie or both bad).
    """

    prompt: str
    codes_a: NDArray[np.int64]
    codes_b: NDArray[np.int64]
    label: float
    rater: str
    rater_kind: RaterKind


class TrainingRating(TypedDict):
    """One rating for a mean-opinion-score regressor; `audio`: path of the clip's FLAC file, `value`: 1 to 5."""

    prompt: str
    audio: str
    codes: NDArray[np.int64] | None
    axis: Axis
    value: int
    rater: str
    rater_kind: RaterKind
    clip: str


def _check_key(key: str) -> None:
    if not 0 < len(key) <= _MAX_KEY:
        raise UserError(f"idempotency key of {len(key)} characters: give 1 to {_MAX_KEY}, for instance a fresh UUID")
