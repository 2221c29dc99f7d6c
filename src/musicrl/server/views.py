"""What the page and the server say to each other, as JSON.

What is sent before the vote has no field in which the name of a model would fit: `extra="forbid"` and closed types.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from musicrl.feedback.records import Choice

MAX_PROMPT = 2_000
_MAX_INTERVALS = 500

Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{22}$")]
MediaPath = Annotated[str, Field(pattern=r"^/m/[A-Za-z0-9_-]{22}$")]


def _checked_prompt(prompt: str) -> str:
    text = " ".join(unicodedata.normalize("NFC", prompt).split())
    if not text:
        raise ValueError("the prompt is empty; write a few words about the music")
    if len(text) > MAX_PROMPT:
        raise ValueError(f"the prompt has {len(text):,} characters; at most {MAX_PROMPT:,} are allowed")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("the prompt holds control characters; write plain text")
    return text


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PairRequest(_View):
    """Body of `POST /api/pairs`; white space is collapsed and the text brought to Unicode form NFC."""

    prompt: Annotated[str, AfterValidator(_checked_prompt)]


class Suggestions(_View):
    """Prompts to start from."""

    prompts: list[str]


class AssignmentView(_View):
    """Two clips to be compared. Addresses are random; nothing says which model made which clip."""

    id: Token
    a: MediaPath
    b: MediaPath
    duration: float
    min_heard: float


class PairView(_View):
    """A pair before the vote: where it stands, then the assignment.

    Attributes:
        position: pairs ahead of it in the queue.
        elapsed: seconds since a worker began with it.
        expected: seconds that recent pairs took.
    """

    id: Token
    prompt: str
    state: Literal["queued", "running", "ready", "failed"]
    position: int | None = None
    elapsed: float | None = None
    expected: float | None = None
    error: str | None = None
    assignment: AssignmentView | None = None


class Models(_View):
    """Who made the clips."""

    a: str
    b: str


class VoteView(_View):
    """A vote that is on disk, and the names it reveals."""

    choice: Choice
    models: Models


class VotedPairView(PairView):
    """A pair after the vote."""

    vote: VoteView


def _interval(interval: tuple[float, float]) -> tuple[float, float]:
    start, end = interval
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start <= end):
        raise ValueError("an interval is not [start, end] in seconds with 0 ≤ start ≤ end")
    return interval


Intervals = Annotated[list[Annotated[tuple[float, float], AfterValidator(_interval)]], Field(max_length=_MAX_INTERVALS)]


class VoteRequest(_View):
    """Body of `POST /api/votes`.

    Attributes:
        choice: in the page's letters.
        heard_a: [start, end] in seconds of every part of clip A that sounded; they may overlap.
        heard_b: likewise for B.
        key: idempotency key, made once per vote by the page.
    """

    assignment: Token
    choice: Choice
    heard_a: Intervals
    heard_b: Intervals
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]


class Problem(_View):
    """Why a request was refused, a sentence for the user."""

    error: str


def unique_seconds(intervals: list[tuple[float, float]], duration: float) -> float:
    """Return the seconds that the intervals cover within [0, duration]; what is covered twice counts once."""
    covered, reached = 0.0, 0.0
    for start, end in sorted(intervals):
        end = min(end, duration)
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return round(covered, 3)
