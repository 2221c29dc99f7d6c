"""Reading a corpus: one that `musicrl corpus build` made, or any folder of audio with a `metadata.jsonl`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicrl.audio import io
from musicrl.corpus.splits import split_of
from musicrl.errors import UserError
from musicrl.files import write_atomic
from musicrl.progress import progress

SAMPLE_RATE = 24_000
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Clip:
    """One row of `metadata.jsonl`.

    Attributes:
        index: place in the corpus, counting from 0 over all splits.
        file_name: audio file, relative to the corpus folder.
        text: one caption.
        captions: caption in each manner; only `{"text": text}` in a folder of the user's own.
        split: `train`, `validation` or `test`.
        tune: what is played; clips of one tune share a split.
        attributes: what is known of the clip; empty in a folder of the user's own.
    """

    index: int
    file_name: str
    text: str
    captions: Mapping[str, str]
    split: str
    tune: str
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Corpus:
    """A corpus folder; its audio is decoded once to a file of 16-bit samples beside it and mapped into memory."""

    def __init__(self, path: Path | str) -> None:
        """Read the list of clips.

        Args:
            path: folder with `metadata.jsonl`: one JSON object a line with `file_name` and `text` at least.

        Raises:
            UserError: no such folder or list, a line that is no such object, no clip at all, a missing audio file.
        """
        self.path = Path(path)
        self.clips = _read_rows(self.path)
        self._samples: NDArray[np.int16] | None = None
        self._offsets: NDArray[np.int64] | None = None
        self._notes: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Number of clips in all splits."""
        return len(self.clips)

    def rows(self, split: str | None = None) -> list[Clip]:
        """Return the clips of a split, or all, in the order of the list."""
        return [clip for clip in self.clips if split is None or clip.split == split]

    def audio(self, clip: Clip | int) -> Tensor:
        """Return a clip's samples, [N] float32 mono at 24 kHz."""
        index = clip if isinstance(clip, int) else clip.index
        samples, offsets = self._decoded()
        return _floats(samples[offsets[index] : offsets[index + 1]])

    def seconds(self, clip: Clip | int) -> float:
        """Return the length of a clip, seconds."""
        index = clip if isinstance(clip, int) else clip.index
        _, offsets = self._decoded()
        return int(offsets[index + 1] - offsets[index]) / SAMPLE_RATE

    def digest(self) -> str:
        """Return a SHA-256 of the list of clips and the sizes of their files; a copy elsewhere has the same."""
        state = hashlib.sha256((self.path / "metadata.jsonl").read_bytes())
        for clip in self.clips:
            state.update(f"{clip.file_name}\0{(self.path / clip.file_name).stat().st_size}\n".encode())
        return state.hexdigest()

    def notes(self, clip: Clip | int) -> NDArray[np.float32] | None:
        """Return a clip's notes, or None where the corpus knows none.

        Returns:
            [n, 5] float32: onset in seconds, duration in seconds, MIDI pitch, program (128 for percussion), velocity.
        """
        index = clip if isinstance(clip, int) else clip.index
        if self._notes is None:
            file = self.path / "notes.npz"
            if not file.exists():
                return None
            with np.load(file, allow_pickle=False) as stored:
                self._notes = (stored["notes"], stored["offsets"])
        notes, offsets = self._notes
        return notes[offsets[index] : offsets[index + 1]]

    def crops(self, split: str, seconds: float, batch: int, rng: np.random.Generator) -> tuple[Tensor, list[Clip]]:
        """Draw crops of random clips at random places.

        Args:
            split: which clips to draw from, each as likely as any other.
            seconds: length of a crop; a shorter clip is repeated until it is that long.
            batch: number of crops (B).
            rng: decides clips and places.

        Returns:
            [B, N] float32 audio with N = round(seconds * 24000), and the clip of each crop.

        Raises:
            UserError: the split has no clips, or a file cannot be read.
        """
        clips = self.rows(split)
        if not clips:
            raise UserError(f"{self.path} has no clips in its {split} split; add some, or choose another split")
        length = round(seconds * SAMPLE_RATE)
        samples, offsets = self._decoded()
        chosen = [clips[int(i)] for i in rng.integers(len(clips), size=batch)]
        out = np.empty((batch, length), np.int16)
        for row, clip in zip(out, chosen, strict=True):
            first, last = int(offsets[clip.index]), int(offsets[clip.index + 1])
            start = first + int(rng.integers(max(1, last - first - length + 1)))
            piece = samples[start : min(start + length, last)]
            row[:] = piece if len(piece) == length else np.resize(piece, length)
        return _floats(out), chosen

    def _decoded(self) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        if self._samples is None or self._offsets is None:
            self._offsets = _decode(self.path, self.clips)
            self._samples = np.memmap(self.path / ".samples.i16", np.int16, "r", shape=(int(self._offsets[-1]),))
        return self._samples, self._offsets


def _floats(samples: NDArray[np.int16]) -> Tensor:
    return torch.from_numpy(samples.astype(np.float32)) / 32768.0


def _read_rows(path: Path) -> list[Clip]:
    listing = path / "metadata.jsonl"
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(
            f"{path} is not a corpus: there is no metadata.jsonl in it; build one with `musicrl corpus build`, "
            'or write one line {"file_name": ..., "text": ...} for each audio file'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {listing}: {error}") from error
    clips: list[Clip] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            clips.append(_read_row(line, len(clips), f"{listing}, line {number}"))
    if not clips:
        raise UserError(f"{listing} lists no clips; add one line for each audio file")
    for clip in clips:
        if not (path / clip.file_name).is_file():
            raise UserError(f"{path / clip.file_name} is missing, but {listing} lists it; restore it or drop the line")
    return clips


def _read_row(line: str, index: int, place: str) -> Clip:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place} is not JSON ({error}); mend the line") from error
    if not isinstance(row, dict):
        raise UserError(f"{place} is no JSON object; write file_name and text")
    row = cast("dict[str, Any]", row)
    for name in ("file_name", "text"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise UserError(f"{place} has no {name}; every clip needs file_name and text")
    if Path(row["file_name"]).is_absolute() or ".." in Path(row["file_name"]).parts:
        raise UserError(f"{place} names a file outside of the corpus folder; give a path within it")
    tune = str(row.get("tune") or row["file_name"])
    split = row.get("split") or split_of(tune)
    if split not in _SPLITS:
        raise UserError(f"{place} has split {split!r}; use train, validation or test")
    captions = cast("dict[str, str]", row.get("captions") or {"text": row["text"]})
    return Clip(index, row["file_name"], row["text"], captions, split, tune, row.get("attributes") or {})


def _decode(path: Path, clips: list[Clip]) -> NDArray[np.int64]:
    """Write every clip's samples to one file unless an up-to-date one is there; return where each clip begins."""
    samples, index = path / ".samples.i16", path / ".samples.json"
    state = hashlib.sha256()
    for clip in clips:
        stat = (path / clip.file_name).stat()
        state.update(f"{clip.file_name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    try:
        known = json.loads(index.read_bytes())
        if known["files"] == state.hexdigest() and samples.stat().st_size == 2 * known["offsets"][-1]:
            return np.array(known["offsets"], np.int64)
    except (OSError, ValueError, KeyError):
        pass
    offsets = [0]
    temporary = path / f".samples.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file, progress("decoding the corpus", len(clips)) as bar:
            for clip in clips:
                audio = io.read(path / clip.file_name, SAMPLE_RATE).numpy()
                np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16).tofile(file)
                offsets.append(offsets[-1] + len(audio))
                bar.advance()
        os.replace(temporary, samples)
    except OSError as error:
        raise UserError(f"cannot write decoded audio to {path}: {error}; free some space or copy the folder") from error
    finally:
        temporary.unlink(missing_ok=True)
    write_atomic(index, json.dumps({"files": state.hexdigest(), "offsets": offsets}).encode())
    return np.array(offsets, np.int64)
