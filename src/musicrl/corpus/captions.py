"""Captions from a clip's attributes: nothing is said that is not in the clip."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from musicrl.corpus import phrases
from musicrl.corpus.phrases import Words

Manner = Literal["tags", "sentence", "sentences"]
MANNERS: tuple[Manner, ...] = ("tags", "sentence", "sentences")

_SLOT = re.compile(r"\{(\w+)\}")
_NAMES = {
    "style": "style",
    "noun": "style",
    "lead": "lead",
    "tempo": "tempo_class",
    "tempo_bare": "tempo_class",
    "bpm": "tempo_bpm",
    "mode": "mode",
    "mode_bare": "mode",
    "key": "mode",
    "drums": "drums",
    "drums_with": "drums",
    "backing": "instruments",
}
_VERBS = {
    "plays": "play",
    "carries": "carry",
    "leads": "lead",
    "sings": "sing",
    "has": "have",
    "takes": "take",
}


class Caption(NamedTuple):
    """A text and the attributes it names: style, lead, tempo_class, tempo_bpm, drums, mode, instruments."""

    text: str
    named: dict[str, Any]


def mood_of(attributes: Mapping[str, Any]) -> tuple[str, str]:
    """Return the row of `phrases.MOOD` a clip belongs to: its mode and tempo class."""
    return (attributes["mode"], attributes["tempo_class"])


def caption(
    attributes: Mapping[str, Any],
    manner: Manner | Sequence[str],
    rng: np.random.Generator,
    *,
    held_out: bool = False,
) -> Caption:
    """Write one caption of a clip.

    Args:
        attributes: as recorded in the corpus.
        manner: `tags` (comma-separated words), `sentence` (one), `sentences` (two or three); or templates to use.
        rng: chooses phrasing.
        held_out: use the phrasings kept for validation and test.

    Returns:
        The text and what it names.
    """
    speaker = _Speaker(attributes, rng, held_out)
    if manner == "tags":
        return speaker.say(phrases.TAGS)
    if manner == "sentence":
        return speaker.say(phrases.SENTENCE)
    if manner == "sentences":
        return speaker.paragraph()
    return speaker.say(Words(tuple(manner), tuple(manner)))


def captions(attributes: Mapping[str, Any], rng: np.random.Generator, *, held_out: bool = False) -> dict[str, str]:
    """Return a caption in every manner."""
    return {manner: caption(attributes, manner, rng, held_out=held_out).text for manner in MANNERS}


class _Speaker:
    def __init__(self, attributes: Mapping[str, Any], rng: np.random.Generator, held_out: bool) -> None:
        self._attributes = attributes
        self._rng = rng
        self._held_out = held_out
        self._named: dict[str, Any] = {}
        self._said: dict[str, str] = {}

    def say(self, templates: Words) -> Caption:
        template = self._template(templates)
        return Caption(_polish(self._fill(template)), self._named)

    def paragraph(self) -> Caption:
        parts = [self._fill(self._template(phrases.OPENERS))]
        if "lead" not in self._named:
            parts.append(self._fill(self._template(phrases.MELODY_CLAUSE)))
        details = [clause for clause, chance in self._details() if self._rng.random() < chance] or ["density"]
        room = 3 - len(parts)
        for i in sorted(self._rng.permutation(len(details))[:room].tolist()):
            parts.append(self._clause(details[i]))
        return Caption(_polish(" ".join(parts)), self._named)

    def _details(self) -> list[tuple[str, float]]:
        details = [("density", 0.25)]
        if "tempo_class" not in self._named:
            details.insert(0, ("tempo_class", 0.8))
        details.append(("backing", 0.6) if self._backing() else ("drums", 0.4))
        if self._backing():
            details.append(("drums", 0.25))
        if "mood" not in self._said:
            details.append(("mood", 0.6))
        return details

    def _clause(self, about: str) -> str:
        templates = {"backing": phrases.BACKING_CLAUSE, "mood": phrases.MOOD_CLAUSE}
        if about in templates:
            return self._fill(self._template(templates[about]))
        value = self._attributes[about]
        if about == "density":
            return self._pick(phrases.DENSITY_CLAUSE[value])
        self._named[about] = value
        return self._pick(phrases.DRUMS_CLAUSE[value] if about == "drums" else phrases.TEMPO_CLAUSE[value])

    def _pick(self, words: Words) -> str:
        options = words.held_out if self._held_out and self._rng.random() < 0.6 else words.train
        return options[int(self._rng.integers(len(options)))]

    def _template(self, words: Words) -> str:
        options = words.held_out if self._held_out else words.train
        heard = len(self._backing())
        fitting = [t for t in options if heard >= 2 or "{Backing}" not in t]
        if not heard:
            fitting = [t for t in fitting if "{backing}" not in t]
        return fitting[int(self._rng.integers(len(fitting)))]

    def _fill(self, template: str) -> str:
        return _SLOT.sub(lambda m: self._slot(m[1]), template)

    def _slot(self, slot: str) -> str:
        lower = slot.lower()
        plural = self._attributes["lead"] in phrases.PLURAL
        if lower in _VERBS:
            return _VERBS[lower] if plural else lower
        if lower == "the_lead":
            self._named["lead"] = self._attributes["lead"]
            word = f"the {self._attributes['lead']}"
        elif lower in self._said:
            word = self._said[lower]
        else:
            word = self._said[lower] = self._word(lower)
        if lower in _NAMES:
            name = _NAMES[lower]
            if name == "instruments":
                self._named[name] = self._backing()
                if "drums" in self._backing():
                    self._named["drums"] = True
            else:
                self._named[name] = self._attributes[name]
        return word[0].upper() + word[1:] if slot[0].isupper() else word

    def _word(self, slot: str) -> str:
        attributes = self._attributes
        simple = {"lead": attributes["lead"], "style": attributes["style"], "key": attributes["key"]}
        if slot in simple:
            return simple[slot]
        if slot == "noun":
            nouns = phrases.NOUNS.get(attributes["style"])
            return self._pick(nouns) if nouns else self._pick(phrases.GENERIC_NOUNS).format(style=attributes["style"])
        if slot == "tempo":
            return self._pick(phrases.TEMPO[attributes["tempo_class"]])
        if slot == "tempo_bare":
            return {"slow": "slow", "medium": "moderate", "fast": "fast"}[attributes["tempo_class"]]
        if slot == "mood":
            return self._pick(phrases.MOOD[mood_of(attributes)])
        if slot == "bpm":
            return f"{attributes['tempo_bpm']} bpm"
        if slot == "mode_bare":
            return attributes["mode"]
        if slot == "drums_with":
            return "drums" if attributes["drums"] else "no drums"
        if slot == "backing":
            return _listed(self._backing())
        tables = {"mode": phrases.MODE, "drums": phrases.DRUMS, "density": phrases.DENSITY}
        if slot in tables:
            return self._pick(tables[slot][attributes[slot]])
        return self._pick(phrases.BRIGHTNESS[attributes["brightness"]])

    def _backing(self) -> list[str]:
        return [name for name in self._attributes["instruments"] if name != self._attributes["lead"]][:3]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _polish(text: str) -> str:
    text = re.sub(r"@ (?=[aeiouAEIOU])", "an ", text)
    text = text.replace("@ ", "a ")
    text = re.sub(r"(^|[.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text) if text.endswith(".") else text
    return re.sub(r"\s+", " ", text).strip()
