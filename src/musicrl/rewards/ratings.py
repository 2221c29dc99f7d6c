"""Clips that people, or simulated listeners, rated from 1 to 5."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musicrl.errors import UserError
from musicrl.rewards import kinds

AXIS = "quality"


@dataclass(frozen=True)
class RatedClip:
    """A clip and every rating of its quality.

    Attributes:
        audio: path of the clip.
        group: clips of one group are held out together: those of one prompt, for damaged versions of a clip share it.
        ratings: one number from 1 to 5 a rater.
        kinds: who gave each: person, simulated or unknown.
    """

    audio: str
    group: str
    ratings: tuple[float, ...]
    kinds: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean opinion score of the clip."""
        return sum(self.ratings) / len(self.ratings)


def gather(rows: Iterable[Mapping[str, Any]]) -> list[RatedClip]:
    """Return rated clips from one row a rating, in the order the clips first appear.

    Args:
        rows: `audio` (path), `value` (1 to 5) and, where known, `prompt`, `axis` and `rater_kind`; rows of another
            axis than "quality" are left out. `PreferenceStore.ratings_for_training` yields such rows.

    Raises:
        UserError: a row lacks a field, or its value is not from 1 to 5.
    """
    values: dict[str, list[float]] = {}
    raters: dict[str, list[str]] = {}
    groups: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if row.get("axis", AXIS) != AXIS:
            continue
        audio, value = row.get("audio"), row.get("value")
        if not isinstance(audio, str) or not isinstance(value, int | float) or not 1 <= value <= 5:
            raise UserError(f"rating {number} has audio {audio!r} and value {value!r}; give a path and 1 to 5")
        values.setdefault(audio, []).append(float(value))
        raters.setdefault(audio, []).append(kinds.kind(row))
        groups.setdefault(audio, str(row.get("prompt") or audio))
    return [RatedClip(audio, groups[audio], tuple(given), tuple(raters[audio])) for audio, given in values.items()]


def digest(clips: Sequence[RatedClip]) -> str:
    """Return a SHA-256 of the ratings and their order; a training is resumed on the same ones only."""
    rows = [(Path(clip.audio).name, clip.group, clip.ratings) for clip in clips]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a ratings file: JSON lines with `audio`, `value`, and `prompt`, `axis` and `rater_kind`
    where known.

    The ratings.jsonl of `musicrl preferences export` is such a file. Paths are relative to it.

    Raises:
        UserError: the file cannot be read, or a line is not such an object.
    """
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"ratings {path} cannot be read: {error}; give a file of JSON lines") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            # An export keeps the clip's path with what else is known of the clip.
            audio = row["clip"]["audio"] if isinstance(row.get("clip"), dict) else row["audio"]
            rows.append({**row, "audio": str(path.parent / audio)})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"line {number} of {path} is not a rating with 'audio' and 'value'; mend that line"
            ) from None
    return rows


def ceiling(clips: Sequence[RatedClip]) -> float | None:
    """Return the correlation that a perfect model of the listeners' consensus has with these mean ratings.

    With k ratings a clip, the mean's variance is that of the consensus plus that of single ratings over k; the root of
    the consensus's share (the reliability of classical test theory) bounds the correlation.

    Args:
        clips: rated clips; those rated once tell nothing about the noise and are left out.

    Returns:
        0 to 1, or None where fewer than two clips were rated twice.
    """
    repeated = [np.array(clip.ratings) for clip in clips if len(clip.ratings) > 1]
    if len(repeated) < 2:
        return None
    spread = float(np.var([ratings.mean() for ratings in repeated], ddof=1))
    error = float(np.mean([ratings.var(ddof=1) / len(ratings) for ratings in repeated]))
    return max(0.0, 1.0 - error / spread) ** 0.5 if spread > 0 else 0.0
