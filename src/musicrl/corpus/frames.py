"""Feature frames of a corpus, computed once and kept beside it, so that small networks train at the speed of a copy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from musicrl.audio import io
from musicrl.audio.frames import SAMPLE_RATE, WIDTH, frames
from musicrl.progress import progress

_BATCH_SECONDS = 160.0


def prepare(folder: Path, file_names: Sequence[str]) -> list[Path]:
    """Compute the frames of clips that have none yet, or older ones than their audio.

    Args:
        folder: the corpus folder; frames go to `.frames/NAME.npy` in it, float16 [T, 404].
        file_names: audio files relative to the folder.

    Returns:
        The file of frames of each clip, in order.

    Raises:
        UserError: a clip cannot be read.
    """
    paths = [folder / ".frames" / f"{name}.npy" for name in file_names]
    missing = [(name, path) for name, path in zip(file_names, paths, strict=True) if _stale(folder / name, path)]
    with progress("frames of the corpus", len(missing)) as bar:
        while missing:
            clips = [io.read(folder / missing[0][0], SAMPLE_RATE)]
            fit = max(1, int(_BATCH_SECONDS * SAMPLE_RATE / max(1, len(clips[0]))))
            part, missing = missing[:fit], missing[fit:]
            clips += [io.read(folder / name, SAMPLE_RATE) for name, _ in part[1:]]
            longest = max(len(clip) for clip in clips)
            padded = torch.stack([torch.nn.functional.pad(clip, (0, longest - len(clip))) for clip in clips])
            batch = frames(padded).half().numpy()
            for clip, (_, path), rows in zip(clips, part, batch, strict=True):
                _write(path, rows[: len(clip) * rows.shape[0] // longest])
            bar.advance(len(part))
    return paths


def crops(paths: Sequence[Path], length: int, generator: torch.Generator) -> tuple[Tensor, list[int]]:
    """Return one crop of each clip at a random place.

    Args:
        paths: files of frames, from `prepare`.
        length: frames of a crop (T).
        generator: source of the places.

    Returns:
        [B, T, 404] float32, and the first frame of each crop.
    """
    places = torch.rand(len(paths), generator=generator).tolist()
    rooms = [max(0, load(path).shape[0] - length) + 1 for path in paths]
    starts = [int(place * room) for place, room in zip(places, rooms, strict=True)]
    return torch.stack([crop(path, start, length) for path, start in zip(paths, starts, strict=True)]), starts


def crop(path: Path, start: int, length: int) -> Tensor:
    """Return `length` frames [length, 404] float32 from `start`; a clip that ends earlier is repeated."""
    stored = load(path)
    part = torch.from_numpy(np.array(stored[start : start + length])).float()
    if part.shape[0] < length:
        part = part.repeat(-(-length // max(1, part.shape[0])), 1)[:length]
    return part


def load(path: Path) -> np.ndarray:
    """Return the frames [T, 404] float16 of a clip, mapped into memory."""
    return cast("np.ndarray", np.load(path, mmap_mode="r"))


def _stale(audio: Path, path: Path) -> bool:
    try:
        stored = path.stat()
    except FileNotFoundError:
        return True
    # A missing clip is left to the reader, whose message names it.
    return not audio.exists() or stored.st_mtime < audio.stat().st_mtime or load(path).shape[1] != WIDTH


def _write(path: Path, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, rows)
    os.replace(temporary, path)
