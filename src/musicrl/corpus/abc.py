"""A reader of ABC tune books: melody, metre and key, nothing else.

It covers what the public-domain fiddle books use (keys with modes, broken rhythm, tuplets, ties, chords, repeats,
first and second endings) and drops ornaments. A tune whose bars do not add up is refused, not repaired.
Syntax: the ABC standard 2.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from musicrl.corpus.tune import Key, Note, Tune, TuneError, assemble

_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SHARPS = "FCGDAEB"
_MODES = {"maj": 0, "ion": 0, "mix": 1, "dor": 2, "m": 3, "min": 3, "aeo": 3, "phr": 4, "loc": 5, "lyd": -1}
_MODE_NAMES = {0: "major", 1: "mixolydian", 2: "dorian", 3: "minor", 4: "phrygian", 5: "locrian", -1: "lydian"}
_ACCIDENTALS = {"^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}
_TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}

_TOKEN = re.compile(
    r"""(?P<field>\[[A-Za-z]:[^\]]*\])
      | (?P<bar>\[\||:*\|+\]?:*|::+)
      | (?P<ending>\[?(?<![\d/])(?<=[\[|:\s])[1-4](?=[\s\w"(\[{^_=,.-]))
      | \((?P<tuplet>[2-9])(?::(?P<q>\d*))?(?::(?P<r>\d*))?
      | (?P<chord>\[[^\]|]*\])(?P<clen>\d*(?:/+\d*)?)
      | (?P<acc>\^{1,2}|_{1,2}|=)?(?P<step>[A-Ga-g])(?P<octave>[,']*)(?P<len>\d*(?:/+\d*)?)
      | (?P<rest>[zx])(?P<rlen>\d*(?:/+\d*)?)
      | (?P<broken><+|>+)
      | (?P<tie>-)""",
    re.VERBOSE,
)
# Inline fields are matched first and kept: their letters are among the shorthand ornaments.
_NOISE = re.compile(r'(\[[A-Za-z]:[^\]]*\])|"[^"]*"|![^!\n]*!|\+[a-z]+\+|\{[^}]*\}|[`\\~uvTHJKLMOPRSWy.]|%.*')


def read_book(text: str, book: str) -> Iterator[Tune | TuneError]:
    """Read every tune of an ABC book.

    Args:
        text: content of the file.
        book: short name the tune ids begin with.

    Returns:
        One `Tune` per readable tune, one `TuneError` with its reason for the others, in the book's order.
    """
    for number, part in enumerate(re.split(r"(?m)^(?=X:)", text.replace("\r", ""))):
        if part.startswith("X:"):
            index = re.match(r"X:\s*(\d+)", part)
            name = f"{book}/{index.group(1) if index else number}"
            try:
                yield read_tune(part, name)
            except TuneError as broken:
                yield broken


def read_key(text: str) -> Key | None:
    """Return the key an ABC `K:` field names, or None where it names none (bagpipe keys, `none`)."""
    match = re.match(r"\s*([A-G])([#b]?)\s*([A-Za-z]{0,3})", text)
    if match is None:
        return None
    tonic = (_STEPS[match[1]] + {"#": 1, "b": -1, "": 0}[match[2]]) % 12
    shift = _MODES.get(match[3].lower(), 0)
    return Key(tonic, _MODE_NAMES[shift])


def read_tune(text: str, name: str) -> Tune:
    """Read one ABC tune.

    Args:
        text: header fields and body.
        name: id of the tune.

    Returns:
        The tune, played once through without repeats, second endings taken.

    Raises:
        TuneError: metre or key missing or changing, several voices, bars that do not add up, too few notes.
    """
    title, meter, unit, key = "", None, None, None
    body: list[str] = []
    for line in text.split("\n"):
        field = re.match(r"([A-Za-z]):(.*)", line)
        if field and not body:
            letter, value = field[1], field[2].split("%")[0].strip()
            if letter == "T" and not title:
                title = value
            elif letter == "M":
                meter = _meter(value)
            elif letter == "L" and (fraction := re.match(r"(\d+)/(\d+)", value)):
                unit = Fraction(int(fraction[1]), int(fraction[2]))
            elif letter == "K":
                key = read_key(value)
                body.append("")
        elif field and field[1] in "KMLV":
            body.append(f"[{field[1]}:{field[2].split('%')[0].strip()}]")
        elif not field:
            body.append(line)
    if meter is None or key is None:
        raise TuneError(name, "no metre or key")
    unit = unit or (Fraction(1, 16) if Fraction(*meter) < Fraction(3, 4) else Fraction(1, 8))
    return assemble(name, title, meter, key, _bars("\n".join(body), meter, unit, key, name))


def _meter(text: str) -> tuple[int, int] | None:
    if text in ("C", "C|"):
        return (4, 4)
    match = re.match(r"(\d+)/(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _length(text: str) -> Fraction:
    if not text:
        return Fraction(1)
    head, slash, tail = text.partition("/")
    numerator = int(head) if head else 1
    if not slash:
        return Fraction(numerator)
    halvings = len(tail) - len(tail.lstrip("/"))
    tail = tail.lstrip("/")
    return Fraction(numerator, int(tail) if tail else 2 ** (1 + halvings))


def _signature(key: Key) -> dict[str, int]:
    scale = set(key.scale)
    for count in range(-7, 8):
        letters = _SHARPS[:count] if count >= 0 else _SHARPS[count:]
        accidental = 1 if count > 0 else -1
        signature = {letter: accidental if letter in letters else 0 for letter in _STEPS}
        if {(_STEPS[s] + a) % 12 for s, a in signature.items()} == scale:
            return signature
    raise AssertionError("every mode of every tonic has a key signature")


def _bars(
    body: str, meter: tuple[int, int], unit: Fraction, key: Key, name: str
) -> list[tuple[list[Note], Fraction, bool]]:
    signature = _signature(key)
    bars: list[tuple[list[Note], Fraction, bool]] = []
    notes: list[Note] = []
    now = Fraction(0)
    altered: dict[tuple[str, str], int] = {}
    tuplet_left, tuplet_scale = 0, Fraction(1)
    pending = Fraction(1)
    tied = skipping = closed = False
    text = _NOISE.sub(lambda noise: noise[1] or "", body)

    def pitch(accidental: str | None, step: str, octave: str) -> int:
        place = (step, octave)
        if accidental is not None:
            altered[place] = _ACCIDENTALS[accidental]
        alter = altered.get(place, signature[step.upper()])
        octaves = octave.count("'") - octave.count(",") + (1 if step.islower() else 0)
        return 60 + _STEPS[step.upper()] + alter + 12 * octaves

    def add(pitches: list[int], length: Fraction) -> None:
        nonlocal now, tuplet_left, pending, tied
        length *= 4 * unit * pending
        pending = Fraction(1)
        if tuplet_left:
            length *= tuplet_scale
            tuplet_left -= 1
        if not skipping:
            if pitches:
                top = max(pitches)
                tie_from = notes[-1] if notes else (bars[-1][0][-1] if bars and bars[-1][0] else None)
                if tied and tie_from is not None and tie_from.pitch == top and notes:
                    notes[-1] = Note(notes[-1].onset, notes[-1].duration + float(length), top)
                else:
                    notes.append(Note(float(now), float(length), top))
            now += length
        tied = False

    def close_bar(double: bool) -> None:
        nonlocal notes, now
        if now > 0:
            bars.append((notes, now, double))
        elif double and bars:
            bars[-1] = (*bars[-1][:2], True)
        notes, now = [], Fraction(0)
        altered.clear()

    for match in _TOKEN.finditer(text):
        if match["field"]:
            letter, value = match["field"][1], match["field"][3:-1].strip()
            if letter == "K" and (changed := read_key(value)):
                signature = _signature(changed)
            elif letter == "L" and (fraction := re.match(r"(\d+)/(\d+)", value)):
                unit = Fraction(int(fraction[1]), int(fraction[2]))
            elif letter == "V" or (letter == "M" and _meter(value) != meter):
                raise TuneError(name, "several voices" if letter == "V" else "metre changes")
        elif match["ending"]:
            skipping = "1" in match["ending"]
            closed = False
        elif match["bar"]:
            double = ":" in match["bar"] or "||" in match["bar"] or "]" in match["bar"]
            if skipping:
                if closed:
                    skipping = closed = False
                closed = closed or double
            close_bar(double)
        elif match["tuplet"]:
            count = int(match["tuplet"])
            ratio = int(match["q"]) if match["q"] else _TUPLETS.get(count, 3 if meter[0] % 3 == 0 else 2)
            tuplet_scale = Fraction(ratio, count)
            tuplet_left = int(match["r"]) if match["r"] else count
        elif match["chord"]:
            inner = [
                pitch(m["acc"], m["step"], m["octave"]) for m in _TOKEN.finditer(match["chord"][1:-1]) if m["step"]
            ]
            lengths = [m["len"] for m in _TOKEN.finditer(match["chord"][1:-1]) if m["step"]]
            add(inner, _length(match["clen"] or (lengths[0] if lengths else "")))
        elif match["step"]:
            if skipping and closed:
                skipping = closed = False
            add([pitch(match["acc"], match["step"], match["octave"])], _length(match["len"]))
        elif match["rest"]:
            add([], _length(match["rlen"]))
        elif match["broken"]:
            dots = len(match["broken"])
            short, long = Fraction(1, 2**dots), 2 - Fraction(1, 2**dots)
            first, pending = (long, short) if match["broken"][0] == ">" else (short, long)
            if notes and not skipping:
                last = notes[-1]
                extra = Fraction(last.duration).limit_denominator(192) * (first - 1)
                notes[-1] = Note(last.onset, float(Fraction(last.duration).limit_denominator(192) + extra), last.pitch)
                now += extra
        elif match["tie"]:
            tied = True
    close_bar(True)
    return bars
