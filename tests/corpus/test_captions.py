"""Captions say nothing that is not in the clip, and held-out phrasings stay held out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from musicrl.corpus import phrases, prompts
from musicrl.corpus.captions import MANNERS, caption
from musicrl.corpus.dataset import Clip
from musicrl.corpus.instruments import LEADS
from musicrl.corpus.phrases import Words
from musicrl.corpus.styles import STYLES

NO_DRUMS = re.compile(r"no drums|without drums|drumless|drums stay silent", re.IGNORECASE)
TEMPO_WORDS = {
    "slow": r"\bslow|unhurried|leisurely|takes its time",
    "fast": r"\bfast(?!,? and)|\bquick|up-tempo|rapid|high-tempo|races",
}


@st.composite
def clips(draw: st.DrawFn) -> dict[str, Any]:
    lead = draw(st.sampled_from(sorted(LEADS)))
    drums = draw(st.booleans())
    backing = [n for n in draw(st.lists(st.sampled_from(["piano", "double bass", "harp"]), unique=True)) if n != lead]
    tempo = draw(st.integers(54, 200))
    mode = draw(st.sampled_from(["major", "minor"]))
    return {
        "style": draw(st.sampled_from([*STYLES, "solo"])),
        "lead": lead,
        "instruments": [lead, *backing, *(["drums"] if drums else [])],
        "drums": drums,
        "tempo_bpm": tempo,
        "tempo_class": "slow" if tempo < 85 else "fast" if tempo >= 125 else "medium",
        "key": f"Eb {mode}",
        "mode": mode,
        "density": draw(st.sampled_from(["sparse", "moderate", "busy"])),
        "brightness": draw(st.sampled_from(["dark", "warm", "bright"])),
    }


@given(clips(), st.sampled_from(MANNERS), st.integers(0, 2**32), st.booleans())
def test_captions_are_true(clip: dict[str, Any], manner: Any, seed: int, held_out: bool):
    text, named = caption(clip, manner, np.random.default_rng(seed), held_out=held_out)
    assert "{" not in text
    assert "@" not in text
    if NO_DRUMS.search(text):
        assert not clip["drums"]
        assert named["drums"] is False
    elif re.search(r"\bdrum", text.replace("steel drums", ""), re.IGNORECASE):
        assert clip["drums"]
        assert named["drums"] is True
    for mode in ("major", "minor"):
        if re.search(rf"\b{mode}\b", text):
            assert clip["mode"] == named["mode"] == mode
    for tempo, words in TEMPO_WORDS.items():
        if re.search(words, text.replace("thick and fast", ""), re.IGNORECASE):
            assert clip["tempo_class"] == tempo
    for bpm in re.findall(r"(\d+) bpm", text):
        assert clip["tempo_bpm"] == int(bpm)
    for name, value in named.items():
        if name == "instruments":
            assert set(value) <= set(clip["instruments"])
            assert all(part.lower() in text.lower() for part in value)
        else:
            assert clip[name] == value
    if "lead" in named:
        assert clip["lead"].lower() in text.lower()
    assert len(re.findall(r"[.!]( |$)", text)) == {"tags": 0, "sentence": 1}.get(manner, len(re.findall(r"\.", text)))


@given(clips(), st.integers(0, 2**32))
def test_paragraphs_have_two_or_three_sentences(clip: dict[str, Any], seed: int):
    text, _ = caption(clip, "sentences", np.random.default_rng(seed))
    assert 2 <= text.count(".") <= 3


def test_articles_agree():
    clip = {"style": "waltz", "lead": "accordion", "instruments": ["accordion"], "drums": False, "tempo_bpm": 60}
    clip |= {"tempo_class": "slow", "mode": "minor", "key": "A minor", "density": "sparse", "brightness": "dark"}
    said = {caption(clip, ["@ {tempo} {noun}."], np.random.default_rng(i)).text for i in range(40)}
    assert "An unhurried waltz." in said
    assert "A slow waltz." in said


def test_enough_phrasings_and_none_in_both_sets():
    for words in (phrases.TAGS, phrases.SENTENCE, phrases.OPENERS):
        assert len(words.train) >= 12
    tables = [v for v in vars(phrases).values() if isinstance(v, dict)]
    every = [v for v in vars(phrases).values() if isinstance(v, Words)]
    every += [words for table in tables for words in table.values() if isinstance(words, Words)]
    assert every
    for words in every:
        assert words.held_out
        assert not set(words.train) & set(words.held_out)


def test_packaged_prompts_name_only_what_they_say():
    for split, count in prompts.COUNTS.items():
        loaded = prompts.load(split)  # pyright: ignore[reportArgumentType]
        assert len(loaded) == len({p.text for p in loaded}) == count
        for prompt in loaded:
            assert set(prompt.attributes) == set(prompts.ATTRIBUTES)
            lead, bpm = prompt.attributes["lead"], prompt.attributes["tempo_bpm"]
            assert lead is None or lead.lower() in prompt.text.lower()
            assert bpm is None or f"{bpm} bpm" in prompt.text
            assert prompt.attributes["drums"] is not True or "drum" in prompt.text.lower()


def test_test_prompts_are_not_training_prompts():
    train = {p.text.lower() for p in prompts.load("train")}
    assert not train & {p.text.lower() for p in prompts.load("test")}


def test_prompts_take_styles_in_turn():
    base = {"lead": "flute", "instruments": ["flute"], "drums": False, "tempo_bpm": 60, "tempo_class": "slow"}
    base |= {"mode": "minor", "key": "A minor", "density": "sparse", "brightness": "dark"}
    rows = [Clip(i, "", "", {}, "train", "", {**base, "style": s}) for i, s in enumerate(["waltz"] * 9 + ["rock"])]
    composed = prompts.compose(rows, "train", 40, np.random.default_rng(0))
    rock = sum("rock" in p.text for p in composed)
    assert 8 <= rock <= 30
