"""Writing the preferences of a store as plain files that other tools read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from musicrl import files
from musicrl.errors import UserError
from musicrl.feedback.ids import uuid7
from musicrl.feedback.records import Clip, Rater, Rating, StorageError, Vote
from musicrl.feedback.statistics import summarise
from musicrl.feedback.store import PreferenceStore

FORMAT = 1
"""Version of the exported layout, in the manifest."""


def export(store: PreferenceStore, path: Path | str) -> dict[str, Any]:
    """Write the current votes and ratings with their clips into a new folder.

    `preferences.jsonl` has a row per preference in TRL's explicit-prompt layout (`prompt`, `chosen`, `rejected`);
    `ties.jsonl` has the votes without one (tie, both bad, cannot play); `ratings.jsonl` the ratings; `audio/` and
    `codes/` the files the rows name; `manifest.json` the counts and SHA-256 sums. Raters are numbered in the order of
    their answers, so their ids do not leave the store. The same answers give the same bytes.

    Args:
        store: what to export.
        path: folder to make; it must not exist yet, or be empty.

    Returns:
        The manifest.

    Raises:
        UserError: the folder is in use, or a clip's file is missing or damaged.
        StorageError: the disk is full or refuses the write; the folder was not made.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"cannot export to {target}: it is not empty; choose a new folder")
    temporary = target.with_name(f".{target.name}.{uuid7()}.tmp")
    try:
        (temporary / "audio").mkdir(parents=True)
        (temporary / "codes").mkdir()
        manifest = _write(store, temporary)
        files.move(temporary, target)
    except OSError as error:
        raise StorageError(
            f"cannot export to {target}: {error.strerror}; free space or choose another place"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


class _Folder:
    """An export being written: pseudonyms given so far, and clips copied so far."""

    def __init__(self, store: PreferenceStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._pseudonyms: dict[str, str] = {}
        self.copied: set[str] = set()

    def rater(self, rater: Rater) -> dict[str, str]:
        name = self._pseudonyms.setdefault(rater.id, f"{rater.kind}-{len(self._pseudonyms) + 1:05d}")
        return {"rater": name, "rater_kind": rater.kind}

    def clip(self, clip: Clip) -> dict[str, Any]:
        audio = f"audio/{clip.audio_sha256}.flac"
        self._copy(self._store.audio_path(clip), audio, clip.audio_sha256)
        codes = self._store.codes_path(clip)
        if codes is not None and clip.codes_sha256 is not None:
            self._copy(codes, f"codes/{clip.codes_sha256}.npy", clip.codes_sha256)
        return {
            "audio": audio,
            "codes": None if codes is None else f"codes/{codes.name}",
            "generation_id": clip.id,
            "model": clip.model,
            "checkpoint_sha256": clip.checkpoint_sha256,
            "seed": clip.seed,
            "sampler": clip.sampler,
            "sample_rate": clip.sample_rate,
            "duration_s": clip.duration_s,
            "lufs": clip.lufs,
            "gain_db": clip.gain_db,
        }

    def _copy(self, source: Path, name: str, sha256: str) -> None:
        if name in self.copied:
            return
        try:
            content = source.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{source} is missing; restore it from a backup of the preference store") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(f"{source} is damaged; restore it from a backup of the preference store")
        # Not flushed one by one: a file is named by its sum, so one that a power cut spoiled is noticed.
        (self._folder / name).write_bytes(content)
        self.copied.add(name)


class _Lines:
    """A file of JSON lines that knows its length and SHA-256."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._rows = 0

    def write(self, row: dict[str, Any]) -> None:
        line = (json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n").encode()
        self._file.write(line)
        self._digest.update(line)
        self._rows += 1

    def close(self) -> dict[str, Any]:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {"rows": self._rows, "sha256": self._digest.hexdigest()}


def _write(store: PreferenceStore, folder: Path) -> dict[str, Any]:
    out = _Folder(store, folder)
    names = ("preferences.jsonl", "ties.jsonl", "ratings.jsonl")
    preferences, ties, ratings = (_Lines(folder / name) for name in names)
    # The statistics read the rows while they are written: one pass, so that a vote coming in meanwhile cannot be in
    # one and not in the other.
    statistics = summarise(
        _written_votes(store.current_votes(), out, preferences, ties),
        _written_ratings(store.current_ratings(), out, ratings),
    )
    manifest = {
        "format": FORMAT,
        "files": {name: lines.close() for name, lines in zip(names, (preferences, ties, ratings), strict=True)},
        "clips": sum(name.startswith("audio/") for name in out.copied),
        "statistics": statistics,
        "note": "Answers of raters of kind 'simulated' come from simulated listeners, not from people.",
    }
    files.write_bytes(folder / "manifest.json", (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
    return manifest


def _written_votes(votes: Iterable[Vote], out: _Folder, preferences: _Lines, ties: _Lines) -> Iterator[Vote]:
    for vote in votes:
        if vote.choice in ("a", "b"):
            preferences.write(_preference(vote, out))
        else:
            ties.write(_undecided(vote, out))
        yield vote


def _written_ratings(ratings: Iterable[Rating], out: _Folder, lines: _Lines) -> Iterator[Rating]:
    for rating in ratings:
        lines.write(_rating(rating, out))
        yield rating


def _preference(vote: Vote, out: _Folder) -> dict[str, Any]:
    a = {**out.clip(vote.clip_a), "heard_seconds": vote.heard_a_seconds}
    b = {**out.clip(vote.clip_b), "heard_seconds": vote.heard_b_seconds}
    chosen, rejected = (a, b) if vote.choice == "a" else (b, a)
    first = "chosen" if vote.presented_first == vote.choice else "rejected"
    return {"chosen": chosen, "rejected": rejected, "presented_first": first, **_common(vote, out)}


def _undecided(vote: Vote, out: _Folder) -> dict[str, Any]:
    a = {**out.clip(vote.clip_a), "heard_seconds": vote.heard_a_seconds}
    b = {**out.clip(vote.clip_b), "heard_seconds": vote.heard_b_seconds}
    return {"clip_a": a, "clip_b": b, "presented_first": vote.presented_first, **_common(vote, out)}


def _common(vote: Vote, out: _Folder) -> dict[str, Any]:
    return {
        "prompt": vote.clip_a.prompt,
        "choice": vote.choice,
        "vote_id": vote.id,
        "pair_id": vote.pair_id,
        "server_time": vote.server_time.isoformat(),
        **out.rater(vote.rater),
    }


def _rating(rating: Rating, out: _Folder) -> dict[str, Any]:
    return {
        "prompt": rating.clip.prompt,
        "clip": out.clip(rating.clip),
        "axis": rating.axis,
        "value": rating.value,
        "rating_id": rating.id,
        "server_time": rating.server_time.isoformat(),
        **out.rater(rating.rater),
    }
