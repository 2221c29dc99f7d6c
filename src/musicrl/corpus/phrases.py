"""The words captions are made of. Our own wording; the held-out ones appear in validation and test texts only.

A template's slots in braces are filled by `captions`; `@` becomes the right indefinite article.
"""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """Phrasings for training texts and phrasings kept for validation and test texts."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


TEMPO: dict[str, Words] = {
    "slow": Words(("slow", "slow", "slow-paced", "slow tempo", "unhurried"), ("leisurely", "slow-moving")),
    "medium": Words(("mid-tempo", "medium tempo", "moderate", "medium-paced"), ("moderately paced", "middle-tempo")),
    "fast": Words(("fast", "fast", "fast-paced", "quick", "up-tempo"), ("rapid", "high-tempo")),
}
TEMPO_CLAUSE: dict[str, Words] = {
    "slow": Words(
        ("The tempo is slow.", "It moves slowly.", "It takes its time."), ("The pace is slow.", "It is played slowly.")
    ),
    "medium": Words(
        ("The tempo is moderate.", "It keeps a medium tempo.", "It moves at a walking pace."),
        ("The pace is moderate.",),
    ),
    "fast": Words(
        ("The tempo is fast.", "It moves quickly.", "It is played at a fast tempo."),
        ("The pace is fast.", "It races along."),
    ),
}
MOOD: dict[tuple[str, str], Words] = {
    ("minor", "slow"): Words(("sad", "melancholic", "mournful", "wistful", "sorrowful"), ("gloomy", "plaintive")),
    ("minor", "medium"): Words(("moody", "serious", "brooding", "bittersweet"), ("pensive", "sombre")),
    ("minor", "fast"): Words(("intense", "dramatic", "restless", "fiery"), ("urgent", "stormy")),
    ("major", "slow"): Words(("calm", "peaceful", "tender", "relaxing", "gentle"), ("serene", "soothing")),
    ("major", "medium"): Words(("pleasant", "easygoing", "light-hearted", "friendly", "warm"), ("carefree", "sunny")),
    ("major", "fast"): Words(("cheerful", "happy", "lively", "joyful", "energetic"), ("jolly", "exuberant")),
}
MODE: dict[str, Words] = {
    "minor": Words(("minor key", "in a minor key"), ("minor mode",)),
    "major": Words(("major key", "in a major key"), ("major mode",)),
}
DRUMS: dict[bool, Words] = {
    True: Words(("with drums", "drums", "drum beat"), ("drum kit",)),
    False: Words(("no drums", "without drums"), ("drumless",)),
}
DRUMS_CLAUSE: dict[bool, Words] = {
    True: Words(
        ("The drums keep the beat.", "A drum kit holds the rhythm.", "Drums drive it along."),
        ("The rhythm comes from the drums.",),
    ),
    False: Words(("There are no drums.", "It does without drums.", "No drums are heard."), ("The drums stay silent.",)),
}
DENSITY: dict[str, Words] = {
    "sparse": Words(("sparse", "few notes", "minimal"), ("uncluttered",)),
    "moderate": Words(("steady", "even flow"), ("balanced",)),
    "busy": Words(("busy", "many notes", "dense"), ("packed with notes",)),
}
DENSITY_CLAUSE: dict[str, Words] = {
    "sparse": Words(
        ("There is a lot of space between the notes.", "The arrangement is sparse."), ("Few notes are played.",)
    ),
    "moderate": Words(
        ("The notes flow evenly.", "The arrangement is neither thin nor crowded."), ("The notes come at an even rate.",)
    ),
    "busy": Words(
        ("The notes come thick and fast.", "The arrangement is busy."), ("There is hardly a gap between notes.",)
    ),
}
BRIGHTNESS: dict[str, Words] = {
    "dark": Words(("dark tone", "mellow sound", "soft sound"), ("muted tone",)),
    "warm": Words(("warm tone", "warm sound"), ("rounded tone",)),
    "bright": Words(("bright tone", "bright sound", "crisp sound"), ("brilliant tone",)),
}
TEXTURE: dict[str, Words] = {
    "solo": Words(("solo", "unaccompanied"), ("alone",)),
    "duo": Words(("duo", "two instruments"), ("duet",)),
}

NOUNS: dict[str, Words] = {
    "solo": Words(("solo", "solo melody", "unaccompanied melody"), ("unaccompanied tune",)),
    "waltz": Words(("waltz",), ("waltz tune",)),
    "march": Words(("march",), ("marching tune",)),
    "polka": Words(("polka",), ("polka tune",)),
    "tango": Words(("tango",), ("tango piece",)),
    "rumba": Words(("rumba",), ("rumba piece",)),
    "samba": Words(("samba",), ("samba piece",)),
    "bossa nova": Words(("bossa nova", "bossa nova tune"), ("bossa nova piece",)),
    "hymn": Words(("hymn",), ("church hymn",)),
    "chorale": Words(("chorale", "four-part chorale"), ("chorale setting",)),
    "lullaby": Words(("lullaby",), ("cradle song",)),
    "ballad": Words(("ballad",), ("ballad tune",)),
    "jazz ballad": Words(("jazz ballad",), ("ballad in jazz style",)),
    "jazz waltz": Words(("jazz waltz",), ("waltz in jazz style",)),
    "blues": Words(("blues", "blues tune"), ("blues number",)),
}
GENERIC_NOUNS = Words(("{style} tune", "{style} piece", "{style} track"), ("{style} number", "piece of {style}"))
"""For styles that are adjectives in speech: "a techno track"."""

PLURAL = frozenset(("strings", "pizzicato strings", "bagpipes", "steel drums", "brass"))
"""Instrument names that take a plural verb."""

TAGS = Words(
    (
        "{lead}, {tempo} {style}, {mood}, {mode}, {drums}",
        "{style}, {lead}, {tempo}",
        "{tempo}, {mood}, {style}, {lead} melody",
        "{style}, {mood}, {lead}, {backing}, {tempo}",
        "instrumental, {style}, {lead} lead, {tempo}, {mode}",
        "{tempo} {style}, {lead}, {density}, {brightness}",
        "{mood}, {tempo}, {lead}, {style}, {drums}",
        "{lead}, {style}, {bpm}, {key}",
        "{style}, {tempo}, {bpm}, {lead}, {mood}",
        "{mood} {style}, {lead}, {tempo}, {drums}",
        "{lead} melody, {backing}, {style}, {tempo}, {mode}",
        "{tempo} {mood} {style} {lead}",
        "{mood} {lead} {style}, {tempo}",
        "{style} with {lead}, {tempo}",
        "{tempo} {lead} {style}",
    ),
    (
        "{style} / {lead} / {tempo} / {mood}",
        "{lead} playing {style}, {mood}, {tempo}",
        "{tempo}, {style}, featuring {lead}, {drums}",
    ),
)

SENTENCE = Words(
    (
        "@ {tempo} {mood} {noun} on {the_lead}.",
        "@ {tempo} {noun} with {the_lead} playing the melody.",
        "{The_lead} {plays} @ {mood} {noun} at a {tempo_bare} tempo.",
        "@ {mood} {noun} led by {the_lead}, {tempo}.",
        "@ {tempo} {noun} where {the_lead} {carries} the tune over {backing}.",
        "This is @ {tempo} {noun} for {lead}.",
        "@ {mood} {mode_bare}-key {noun} played on {the_lead}, {tempo} and with {drums_with}.",
        "@ {tempo} {noun} featuring {lead} and {backing}.",
        "{Mood} {style} music with {lead}, {tempo}.",
        "@ {noun} in {key}, {tempo}, with {the_lead} in front.",
        "@ {tempo} {noun} at {bpm}, melody on {the_lead}.",
        "An instrumental {noun}: {tempo}, {mood}, {lead} in the lead.",
        "{The_lead} {sings} out over @ {tempo} {noun}.",
        "@ {lead} melody in @ {mood}, {tempo} {noun}.",
    ),
    (
        "Imagine @ {tempo} {mood} {noun} with {lead}.",
        "{Tempo} and {mood}, this {noun} gives the melody to {the_lead}.",
        "I would like to hear @ {tempo} {noun} with {lead} on top.",
    ),
)

OPENERS = Words(
    (
        "This is @ {tempo} {noun}.",
        "This instrumental is @ {mood} {noun}.",
        "The recording features @ {tempo} {noun}.",
        "@ {tempo} {noun} with {lead}.",
        "{The_lead} {leads} @ {tempo} {noun}.",
        "In this {noun}, {the_lead} {plays} the main melody.",
        "We hear @ {mood} {noun} with {the_lead} in front.",
        "An instrumental {noun} built around {the_lead}.",
        "This {noun} is {tempo} and {mood}.",
        "Here {the_lead} {plays} @ {noun}.",
        "@ {mood}, {tempo} {noun} begins right away.",
        "The music is @ {noun} played on {the_lead}.",
        "A clip of @ {tempo} {noun}.",
    ),
    (
        "What we hear is @ {tempo} {noun}.",
        "{The_lead} {takes} the front seat in this {noun}.",
        "Here comes @ {mood} {noun}.",
    ),
)
MELODY_CLAUSE = Words(
    (
        "{The_lead} {plays} the melody.",
        "The melody is carried by {the_lead}.",
        "The lead instrument is {the_lead}.",
        "The tune is played on {the_lead}.",
        "The main voice is {the_lead}.",
    ),
    ("{The_lead} {has} the tune.",),
)
BACKING_CLAUSE = Words(
    (
        "It is backed by {backing}.",
        "The accompaniment is {backing}.",
        "Behind it we hear {backing}.",
        "{Backing} fill the background.",
        "{Backing} play along.",
    ),
    ("Support comes from {backing}.",),
)
MOOD_CLAUSE = Words(
    (
        "The mood is {mood}.",
        "It feels {mood}.",
        "It sounds {mood} and is in a {mode_bare} key.",
        "The overall feeling is {mood}.",
        "The piece is in {key} and sounds {mood}.",
    ),
    ("It leaves @ {mood} impression.",),
)
