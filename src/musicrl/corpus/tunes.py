"""The tunes: music21's public-domain fiddle books and Bach's chorales, read once and kept beside the corpus.

Ryan's Mammoth Collection (1883), O'Neill's Music of Ireland (1850 tunes, 1903), Aird's Airs (1782-1803), chorales of
J. S. Bach. The files come with the installed music21; nothing of them is part of this package.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from musicrl.corpus.abc import read_book
from musicrl.corpus.tune import Key, Note, Tune, TuneError
from musicrl.errors import UserError
from musicrl.files import write_atomic
from musicrl.progress import progress

_BOOKS = {"ryansMammoth": "ryan", "oneills1850": "oneill", "airdsAirs": "aird"}
_VERSION = 2


def load(cache: Path, workers: int = 1) -> tuple[list[Tune], dict[str, int]]:
    """Return every usable tune, in a fixed order, and how many were dropped for which reason.

    Args:
        cache: JSON file the compact form is kept in; written where it is missing or of another version.
        workers: processes that read the chorales, which takes music21 a while.

    Raises:
        UserError: music21 is not installed.
    """
    stored = _stored(cache)
    if stored is not None:
        return stored
    tunes: list[Tune] = []
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for found in _read_all(workers):
        if isinstance(found, TuneError):
            dropped[found.reason] += 1
            continue
        body = repr((found.meter, found.notes))
        if body in seen:
            dropped["printed twice"] += 1
            continue
        seen.add(body)
        tunes.append(found)
    cache.parent.mkdir(parents=True, exist_ok=True)
    document = {"version": _VERSION, "dropped": dict(dropped), "tunes": [asdict(tune) for tune in tunes]}
    write_atomic(cache, json.dumps(document, separators=(",", ":")).encode())
    return tunes, dict(dropped)


def _stored(cache: Path) -> tuple[list[Tune], dict[str, int]] | None:
    try:
        document = json.loads(cache.read_bytes())
        if document["version"] != _VERSION:
            return None
        return [_from_json(item) for item in document["tunes"]], document["dropped"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _from_json(item: dict[str, Any]) -> Tune:
    return Tune(
        id=item["id"],
        title=item["title"],
        meter=(item["meter"][0], item["meter"][1]),
        key=Key(item["key"]["tonic"], item["key"]["mode"]),
        bars=item["bars"],
        notes=tuple(Note(*note) for note in item["notes"]),
        voices=tuple(tuple(Note(*note) for note in voice) for voice in item["voices"]),
    )


def _read_all(workers: int) -> Iterator[Tune | TuneError]:
    spec = importlib.util.find_spec("music21")
    if spec is None or spec.origin is None:
        raise UserError("music21, which brings the tunes, is not installed; run `pip install 'musicrl[pretrain]'`")
    root = Path(spec.origin).parent / "corpus"
    for folder, short in _BOOKS.items():
        for file in sorted((root / folder).glob("*.abc")):
            book = f"{short}/{file.stem}"
            yield from read_book(file.read_text(encoding="utf-8", errors="replace"), book)
    files = sorted((root / "bach").glob("bwv*.mxl"))
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts) as pool,
        progress("reading chorales", len(files)) as bar,
    ):
        for found in pool.map(_chorale_or_error, files, chunksize=8):
            bar.advance()
            yield found


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chorale_or_error(file: Path) -> Tune | TuneError:
    try:
        return _read_chorale(file)
    except TuneError as error:
        return error


def _read_chorale(file: Path) -> Tune:
    from music21 import converter

    name = f"bach/{file.stem}"
    score: Any = converter.parse(str(file))
    parts = list(score.parts)
    if len(parts) != 4:
        raise TuneError(name, "not in four parts")
    signatures = {t.ratioString for t in score.recurse().getElementsByClass("TimeSignature")}
    if len(signatures) != 1 or not signatures <= {"4/4", "3/4"}:
        raise TuneError(name, "metre changes")
    meter = (int(next(iter(signatures))[0]), 4)
    first = next(iter(parts[0].getElementsByClass("Measure")))
    pickup = float(first.barDuration.quarterLength) - float(first.duration.quarterLength)
    voices: list[tuple[Note, ...]] = []
    for part in parts:
        flat = part.stripTies().flatten().notes
        voices.append(
            tuple(
                Note(float(n.offset) + pickup, float(n.quarterLength), max(p.midi for p in n.pitches))
                for n in flat
                if float(n.quarterLength) > 0
            )
        )
    if any(not voice for voice in voices):
        raise TuneError(name, "too short")
    analysed = score.analyze("key")
    end = max(n.onset + n.duration for n in voices[0])
    bars = round(end / meter[0] + 0.49)
    if bars < 8:
        raise TuneError(name, "too short")
    key = Key(analysed.tonic.pitchClass, "minor" if analysed.mode == "minor" else "major")
    return Tune(name, str(score.metadata.title or file.stem), meter, key, bars, voices[0], tuple(voices[1:]))
