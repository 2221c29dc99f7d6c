"""Prompts for generation: what a user would type, with the attributes each prompt really names.

Training prompts use the training phrasings; test prompts use phrasings no caption of a training clip has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from musicrl.corpus.captions import MANNERS, caption
from musicrl.corpus.dataset import Clip, Corpus
from musicrl.errors import UserError
from musicrl.files import write_atomic

ATTRIBUTES = ("style", "lead", "tempo_class", "tempo_bpm", "drums", "mode", "instruments")
COUNTS = {"train": 2000, "test": 300}
_SHORT = {
    "train": (
        "{mood} {lead} {style}",
        "{tempo} {style}",
        "{tempo} {style} with {lead}",
        "{mood} {lead}",
        "{style} {lead}",
        "{tempo} {mood} {style}",
        "{lead} {style}",
        "{style} with {lead}, {drums}",
        "{style} at {bpm}",
    ),
    "test": (
        "give me {tempo} {style}",
        "some {mood} {style} with {lead}",
        "{lead} for a {mood} {style}",
        "{style}, {lead}, please {tempo}",
    ),
}


@dataclass(frozen=True)
class Prompt:
    """A prompt and what it names.

    Attributes:
        text: what a user would type.
        attributes: `style`, `lead`, `tempo_class`, `tempo_bpm`, `drums`, `mode`, `instruments`; None where the text
            does not say.
    """

    text: str
    attributes: dict[str, Any]


@lru_cache(maxsize=2)
def _packaged(split: str) -> tuple[Prompt, ...]:
    file = resources.files("musicrl.corpus") / f"prompts_{split}.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    return tuple(Prompt(row["text"], row["attributes"]) for row in rows)


def load(split: Literal["train", "test"]) -> list[Prompt]:
    """Return the packaged prompts: about 2,000 to train on, about 300 of held-out tunes in unseen phrasings."""
    return list(_packaged(split))


def write(corpus: Path, folder: Path, seed: int = 0) -> dict[str, int]:
    """Write `prompts_train.jsonl` and `prompts_test.jsonl` from the clips of a corpus (`musicrl corpus prompts`).

    Args:
        corpus: folder that `musicrl corpus build` made.
        folder: where the two files go.
        seed: of the choice of clips and phrasings.

    Returns:
        Prompts written, by split.

    Raises:
        UserError: the corpus has no attributes, or no clips of a split.
    """
    clips = Corpus(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, int] = {}
    splits: tuple[tuple[Literal["train", "test"], tuple[str, ...]], ...] = (
        ("train", ("train",)),
        ("test", ("validation", "test")),
    )
    for split, sources in splits:
        rows = [clip for source in sources for clip in clips.rows(source) if clip.attributes]
        if not rows:
            raise UserError(
                f"{corpus} has no {split} clips with attributes; build a corpus with `musicrl corpus build`"
            )
        prompts = compose(rows, split, COUNTS[split], np.random.default_rng([seed, len(split)]))
        text = "".join(json.dumps({"text": p.text, "attributes": p.attributes}) + "\n" for p in prompts)
        write_atomic(folder / f"prompts_{split}.jsonl", text.encode())
        written[split] = len(prompts)
    return written


def compose(clips: list[Clip], split: Literal["train", "test"], count: int, rng: np.random.Generator) -> list[Prompt]:
    """Write up to `count` different prompts about clips, half of them short, styles in turn."""
    by_style: dict[str, list[Clip]] = {}
    for clip in clips:
        by_style.setdefault(clip.attributes["style"], []).append(clip)
    styles = sorted(by_style)
    prompts: dict[str, Prompt] = {}
    for attempt in range(20 * count):
        if len(prompts) == count:
            break
        pool = by_style[styles[attempt % len(styles)]]
        attributes = pool[int(rng.integers(len(pool)))].attributes
        manner = ("short", *MANNERS)[int(rng.choice(4, p=[0.35, 0.2, 0.3, 0.15]))]
        if manner == "short":
            said = caption(attributes, _SHORT[split], rng, held_out=split == "test")
        else:
            said = caption(attributes, manner, rng, held_out=split == "test")
        named = {name: said.named.get(name) for name in ATTRIBUTES}
        if named["style"] is None and named["lead"] is None:
            continue
        prompts.setdefault(said.text, Prompt(said.text, named))
    return list(prompts.values())
