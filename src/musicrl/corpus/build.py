"""`musicrl corpus build`: plan, arrange, render, caption, in parallel and resumable.

Clips come in groups of three that share a tune, a groove and one run of MMA; everything in a group follows from the
seed and the group's number, so neither the number of workers nor an interruption changes a byte.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from musicrl.audio import io
from musicrl.config import CorpusConfig
from musicrl.corpus import render, tunes
from musicrl.corpus.arrange import BEATS, AccompanimentError, Arrangement, arrange, chorale, fits
from musicrl.corpus.captions import MANNERS, captions
from musicrl.corpus.splits import split_of
from musicrl.corpus.styles import STYLES, WEIGHTS, Groove, Style
from musicrl.corpus.tune import Tune
from musicrl.corpus.variants import CLIP_SECONDS, Variant, bars_needed, pick_lead, vary
from musicrl.errors import UserError
from musicrl.files import write_atomic
from musicrl.progress import interruptible, progress

GROUP = 3
"""Clips that share one arrangement."""

_LEAST_FREE = 2**24
"""Bytes that must be free for what was rendered to be trusted."""

MINOR_SHARE = 0.4
"""Share of minor keys; fiddle books hold one tune in six, too few to learn what sad means."""


def build(config: CorpusConfig, folder: Path) -> dict[str, Any]:
    """Render a corpus.

    Args:
        config: how many clips, seed, soundfonts.
        folder: where it goes. An interrupted build of the same settings goes on; a finished one is kept.

    Returns:
        The report, as written to `report.json`.

    Raises:
        UserError: a program, soundfont or package is missing; the folder holds another corpus; Ctrl-C.
    """
    for program in ("mma", "fluidsynth"):
        if shutil.which(program) is None:
            raise UserError(f"the program {program} is missing; install it, e.g. `apt-get install mma fluidsynth`")
    soundfonts = render.find_soundfonts(config.soundfonts, config.soundfont_folder)
    _claim(folder, config)
    if (folder / "metadata.jsonl").exists():
        return json.loads((folder / "report.json").read_bytes())
    workers = config.workers or _cores()
    _, dropped = tunes.load(folder / "tunes.json", workers)
    groups = -(-config.clips // GROUP)
    parts = folder / "parts"
    missing = [g for g in range(groups) if not (parts / f"{g:06d}.npz").exists()]
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="musicrl-") as scratch,
        ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start_worker, initargs=(config, folder, soundfonts, scratch)
        ) as pool,
        progress("corpus", config.clips) as bar,
        interruptible() as stop,
    ):
        bar.advance((groups - len(missing)) * GROUP)
        try:
            for done in _spread(pool, missing, workers, stop):
                bar.advance(done)
        except BrokenProcessPool:
            raise UserError(
                f"a rendering process could not start or was killed (memory or disk full?); the clips so far are in"
                f" {folder}; mend that, or give fewer workers, and run the same command to go on"
            ) from None
        if stop():
            pool.shutdown(wait=True, cancel_futures=True)
            raise UserError(f"interrupted; the clips rendered so far are in {folder}; run the same command to go on")
    return _finish(folder, config, groups, dropped)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _claim(folder: Path, config: CorpusConfig) -> None:
    settings = config.model_dump_json(include={"clips", "seed", "soundfonts"})
    mark = folder / "build.json"
    if mark.exists():
        if mark.read_text(encoding="utf-8") != settings:
            raise UserError(f"{folder} holds a corpus of other settings ({mark}); choose another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no corpus build; choose another folder")
    for name in ("audio", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_atomic(mark, settings.encode())


def _spread(pool: ProcessPoolExecutor, groups: list[int], workers: int, stop: Callable[[], bool]) -> Iterator[int]:
    waiting: set[Future[int]] = set()
    queue = iter(groups)
    while not stop():
        while len(waiting) < 3 * workers and (group := next(queue, None)) is not None:
            waiting.add(pool.submit(_render_group, group))
        if not waiting:
            return
        finished, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


class _Worker:
    config: CorpusConfig
    folder: Path
    soundfonts: dict[str, Path]
    tunes: list[Tune]
    scratch: Path


_worker = _Worker()


def _start_worker(config: CorpusConfig, folder: Path, soundfonts: dict[str, Path], scratch: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker.config = config
    _worker.folder = folder
    _worker.soundfonts = soundfonts
    _worker.tunes = tunes.load(_worker.folder / "tunes.json")[0]
    _worker.scratch = Path(tempfile.mkdtemp(dir=scratch))


def style_of(group: int, seed: int) -> Style:
    """Return the style of a group: every style in turn, in an order drawn anew each round."""
    slots = [name for name in STYLES for _ in range(WEIGHTS.get(name, 1))]
    order = np.random.default_rng([seed, 1, group // len(slots)]).permutation(len(slots))
    return STYLES[slots[int(order[group % len(slots)])]]


def _render_group(group: int) -> int:
    seed = _worker.config.seed
    rng = np.random.default_rng([seed, 2, group])
    style = style_of(group, seed)
    rows: list[dict[str, Any]] = []
    notes: list[np.ndarray] = []
    rejected: Counter[str] = Counter()
    clips = range(group * GROUP, min((group + 1) * GROUP, _worker.config.clips))
    try:
        tune, piece = _arrange(style, rng)
    except AccompanimentError:
        rejected["no accompaniment"] += len(clips)
    else:
        taken: set[str] = set()
        for clip in clips:
            own = np.random.default_rng([seed, 3, clip])
            lead = pick_lead(style, own, taken)
            taken.add(lead.name)
            variant = vary(piece, lead, own)
            audio, extra = _sound(variant, own)
            fault = render.fault(audio)
            if fault is None and int(variant.is_lead.sum()) < 8:
                fault = "hardly any melody"
            if fault is not None:
                rejected[fault] += 1
                continue
            variant.attributes.update(extra)
            variant.attributes["seed"] = [seed, clip]
            rows.append(_row(clip, tune, variant, np.random.default_rng([seed, 4, clip])))
            notes.append(variant.notes[variant.notes[:, 0] < CLIP_SECONDS])
            _write_audio(_worker.folder / rows[-1]["file_name"], audio)
    # A full disk makes mma and fluidsynth fail like bad tunes do; such a rejection must not be kept for good.
    for place in (Path(_worker.scratch), _worker.folder):
        if shutil.disk_usage(place).free < _LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
    _write_part(group, rows, notes, rejected)
    return len(clips)


def _arrange(style: Style, rng: np.random.Generator) -> tuple[Tune, Arrangement]:
    groove = style.grooves[int(rng.integers(len(style.grooves)))] if style.grooves else None
    minor = bool(rng.random() < MINOR_SHARE)
    pool = _tunes_for(style, groove)
    pool = [t for t in pool if t.key.minor == minor] or pool
    tune = pool[int(rng.integers(len(pool)))]
    first = 8 * int(rng.integers(4))
    count = bars_needed(style, BEATS[groove.meter] if groove else tune.meter[0])
    if groove is None:
        return tune, chorale(tune, style, first=first, count=count)
    return tune, arrange(
        tune, style, groove, first=first, count=count, seed=int(rng.integers(1 << 16)), workdir=_worker.scratch
    )


def _tunes_for(style: Style, groove: Groove | None) -> list[Tune]:
    if groove is None:
        return [t for t in _worker.tunes if t.voices]
    return [t for t in _worker.tunes if fits(t, style, groove)]


def _sound(variant: Variant, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    names = sorted(_worker.soundfonts)
    soundfont = names[int(rng.integers(len(names)))]
    room = float(rng.uniform(0.1, 0.8))
    level = float(rng.normal(-19.0, 1.5))
    stems: list[np.ndarray] = []
    for part in (variant.notes[variant.is_lead], variant.notes[~variant.is_lead]):
        if len(part):
            path = _worker.soundfonts[soundfont]
            stems.append(render.synthesise(part, path, CLIP_SECONDS + 0.1, room, _worker.scratch))
    backing = stems[1] if len(stems) == 2 else None
    audio = render.mix(stems[0], backing, variant.lead_db, level)[: render.CLIP_SAMPLES]
    audio[-240:] *= np.linspace(1, 0, len(audio[-240:]), dtype=np.float32)
    hertz = render.centroid(audio)
    return audio, {
        "soundfont": soundfont,
        "centroid_hz": round(hertz),
        "brightness": render.brightness_class(hertz),
        "lead_db": round(variant.lead_db, 1),
    }


def _row(clip: int, tune: Tune, variant: Variant, rng: np.random.Generator) -> dict[str, Any]:
    split = split_of(tune.id)
    texts = captions(variant.attributes, rng, held_out=split != "train")
    return {
        "file_name": f"audio/{clip:06d}.flac",
        "text": texts[MANNERS[int(rng.integers(len(MANNERS)))]],
        "captions": texts,
        "split": split,
        "tune": tune.id,
        "title": tune.title,
        "attributes": variant.attributes,
    }


def _write_audio(path: Path, audio: np.ndarray) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(io.encode(audio, render.SAMPLE_RATE, "FLAC"))
    os.replace(temporary, path)


def _write_part(group: int, rows: list[dict[str, Any]], notes: list[np.ndarray], rejected: Counter[str]) -> None:
    path = _worker.folder / "parts" / f"{group:06d}.npz"
    temporary = path.with_suffix(".tmp")
    packed = np.concatenate(notes) if notes else np.zeros((0, 5), np.float32)
    counts = np.array([len(n) for n in notes], np.int64)
    with temporary.open("wb") as file:
        np.savez(file, notes=packed, counts=counts, rows=json.dumps(rows), rejected=json.dumps(rejected))
    os.replace(temporary, path)


def _finish(folder: Path, config: CorpusConfig, groups: int, dropped: dict[str, int]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    notes: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    rejected: Counter[str] = Counter()
    for group in range(groups):
        with np.load(folder / "parts" / f"{group:06d}.npz", allow_pickle=False) as part:
            rows += json.loads(str(part["rows"]))
            rejected.update(json.loads(str(part["rejected"])))
            notes.append(part["notes"])
            counts.append(part["counts"])
    if not rows:
        raise UserError(f"every clip was rejected ({dict(rejected)}); see {folder}")
    temporary = folder / "notes.tmp"
    with temporary.open("wb") as file:
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
        np.savez(file, notes=np.concatenate(notes), offsets=offsets)
    os.replace(temporary, folder / "notes.npz")
    report = _report(rows, config, rejected, dropped)
    write_atomic(folder / "report.json", json.dumps(report, indent=1).encode())
    write_atomic(folder / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    shutil.rmtree(folder / "parts")
    return report


def _report(
    rows: list[dict[str, Any]], config: CorpusConfig, rejected: Counter[str], dropped: dict[str, int]
) -> dict[str, Any]:
    def count(name: str) -> dict[str, int]:
        return dict(Counter(str(row["attributes"][name]) for row in rows).most_common())

    instruments = Counter(name for row in rows for name in row["attributes"]["instruments"])
    return {
        "clips": len(rows),
        "hours": round(len(rows) * CLIP_SECONDS / 3600, 3),
        "seed": config.seed,
        "tunes": len({row["tune"] for row in rows}),
        "tunes_dropped": dropped,
        "rejected": dict(rejected),
        "splits": dict(Counter(row["split"] for row in rows)),
        "instruments": dict(instruments.most_common()),
        **{
            f"by_{name}": count(name)
            for name in (
                "style",
                "lead",
                "tempo_class",
                "mode",
                "meter",
                "drums",
                "texture",
                "density",
                "brightness",
                "soundfont",
            )
        },
    }
