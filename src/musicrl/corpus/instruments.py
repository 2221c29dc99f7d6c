"""General MIDI programs under the names a listener would use, and which of them can lead or accompany."""

from __future__ import annotations

from typing import NamedTuple

DRUMS = 128
"""Program number the corpus writes for percussion notes."""

_NAMES: tuple[tuple[range | tuple[int, ...], str], ...] = (
    (range(0, 4), "piano"),
    (range(4, 6), "electric piano"),
    ((6,), "harpsichord"),
    ((7,), "clavinet"),
    ((8,), "celesta"),
    ((9,), "glockenspiel"),
    ((10,), "music box"),
    ((11,), "vibraphone"),
    ((12,), "marimba"),
    ((13,), "xylophone"),
    ((14,), "tubular bells"),
    ((15,), "dulcimer"),
    ((16, 17, 18), "electric organ"),
    ((19, 20), "church organ"),
    ((21, 23), "accordion"),
    ((22,), "harmonica"),
    ((24, 25), "acoustic guitar"),
    ((26, 27, 28, 31), "electric guitar"),
    ((29, 30), "distorted guitar"),
    ((32,), "double bass"),
    (range(33, 38), "electric bass"),
    ((38, 39), "synth bass"),
    ((40,), "violin"),
    ((41,), "viola"),
    ((42,), "cello"),
    ((43,), "double bass"),
    ((44, 48, 49), "strings"),
    ((45,), "pizzicato strings"),
    ((46,), "harp"),
    ((47,), "timpani"),
    ((50, 51), "synth strings"),
    ((52, 53, 54), "choir"),
    ((55,), "orchestra hit"),
    ((56,), "trumpet"),
    ((57,), "trombone"),
    ((58,), "tuba"),
    ((59,), "muted trumpet"),
    ((60,), "French horn"),
    ((61, 62, 63), "brass"),
    (range(64, 68), "saxophone"),
    ((68,), "oboe"),
    ((69,), "English horn"),
    ((70,), "bassoon"),
    ((71,), "clarinet"),
    ((72,), "piccolo"),
    ((73,), "flute"),
    ((74,), "recorder"),
    ((75,), "pan flute"),
    ((76,), "bottle flute"),
    ((77,), "shakuhachi"),
    ((78,), "whistle"),
    ((79,), "ocarina"),
    (range(80, 88), "synth lead"),
    (range(88, 104), "synth pad"),
    ((104,), "sitar"),
    ((105,), "banjo"),
    ((106,), "shamisen"),
    ((107,), "koto"),
    ((108,), "kalimba"),
    ((109,), "bagpipes"),
    ((110,), "fiddle"),
    ((111,), "shawm"),
    ((114,), "steel drums"),
    ((DRUMS,), "drums"),
)
NAME_OF: dict[int, str] = {program: name for programs, name in _NAMES for program in programs}
"""Listener's name of each program that appears in the corpus; sound effects have none."""


class Lead(NamedTuple):
    """A lead instrument: its name, the programs that sound like it, and the MIDI pitches it sings best at."""

    name: str
    programs: tuple[int, ...]
    low: int
    high: int


LEADS: dict[str, Lead] = {
    lead.name: lead
    for lead in (
        Lead("piano", (0, 1), 60, 91),
        Lead("electric piano", (4, 5), 55, 86),
        Lead("harpsichord", (6,), 55, 84),
        Lead("celesta", (8,), 67, 98),
        Lead("music box", (10,), 67, 98),
        Lead("vibraphone", (11,), 60, 89),
        Lead("marimba", (12,), 55, 86),
        Lead("xylophone", (13,), 67, 98),
        Lead("dulcimer", (15,), 57, 86),
        Lead("electric organ", (16, 17, 18), 55, 88),
        Lead("church organ", (19,), 55, 88),
        Lead("accordion", (21, 23), 57, 88),
        Lead("harmonica", (22,), 60, 88),
        Lead("acoustic guitar", (24, 25), 52, 81),
        Lead("electric guitar", (26, 27), 52, 83),
        Lead("distorted guitar", (29, 30), 50, 81),
        Lead("violin", (40,), 60, 93),
        Lead("cello", (42,), 43, 72),
        Lead("strings", (48, 49), 55, 88),
        Lead("pizzicato strings", (45,), 57, 86),
        Lead("harp", (46,), 55, 88),
        Lead("choir", (52, 53), 53, 79),
        Lead("trumpet", (56,), 57, 84),
        Lead("muted trumpet", (59,), 57, 84),
        Lead("trombone", (57,), 45, 70),
        Lead("French horn", (60,), 48, 74),
        Lead("brass", (61, 62), 52, 79),
        Lead("saxophone", (64, 65, 66), 52, 81),
        Lead("oboe", (68,), 59, 86),
        Lead("bassoon", (70,), 41, 67),
        Lead("clarinet", (71,), 53, 84),
        Lead("piccolo", (72,), 74, 103),
        Lead("flute", (73,), 62, 93),
        Lead("recorder", (74,), 65, 93),
        Lead("pan flute", (75,), 60, 89),
        Lead("whistle", (78,), 69, 96),
        Lead("ocarina", (79,), 65, 93),
        Lead("synth lead", (80, 81), 55, 88),
        Lead("sitar", (104,), 52, 79),
        Lead("banjo", (105,), 55, 84),
        Lead("koto", (107,), 55, 84),
        Lead("kalimba", (108,), 60, 88),
        Lead("bagpipes", (109,), 57, 81),
        Lead("fiddle", (110,), 57, 90),
        Lead("steel drums", (114,), 57, 86),
    )
}

FAMILIES: dict[str, tuple[str, ...]] = {
    "keys": ("piano", "electric piano", "electric organ", "accordion"),
    "plucked": ("acoustic guitar", "electric guitar", "harp", "banjo", "koto", "sitar", "harpsichord"),
    "winds": ("flute", "clarinet", "oboe", "saxophone", "recorder", "pan flute", "whistle", "ocarina", "harmonica"),
    "brass": ("trumpet", "muted trumpet", "trombone", "French horn", "brass"),
    "bowed": ("violin", "fiddle", "cello", "strings"),
    "mallets": ("vibraphone", "marimba", "xylophone", "celesta", "music box", "kalimba", "steel drums", "dulcimer"),
    "electric": ("synth lead", "distorted guitar", "electric guitar", "electric organ", "electric piano"),
    "folk": (
        "fiddle",
        "accordion",
        "banjo",
        "harmonica",
        "whistle",
        "bagpipes",
        "dulcimer",
        "acoustic guitar",
        "flute",
    ),
    "church": ("church organ", "choir", "strings", "brass", "piano", "bassoon"),
}
"""Groups of lead instruments that styles name as typical."""

CHORDAL: tuple[int, ...] = (0, 1, 4, 5, 6, 11, 12, 16, 17, 19, 21, 24, 25, 26, 27, 46, 48, 49, 50, 52, 61, 88, 89, 90)
"""Programs that may take over an accompaniment that plays chords or broken chords."""

BASSES: tuple[int, ...] = (32, 33, 34, 35, 38, 39, 42, 58)
"""Programs that may take over a bass line."""
