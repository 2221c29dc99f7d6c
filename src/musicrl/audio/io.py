"""Reading and writing clips, and resampling."""

from __future__ import annotations

import os
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from musicrl.errors import UserError

_FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def read(path: Path | str, sample_rate: int = 24_000) -> Tensor:
    """Read an audio file as mono at the given rate.

    Channels are averaged. Any format libsndfile knows is read (WAV, FLAC, Ogg, MP3, AIFF).

    Args:
        path: the file.
        sample_rate: Hz of the result; the file is resampled if its own rate differs.

    Returns:
        [N] float32, nominally within [-1, 1].

    Raises:
        UserError: there is no such file, it is not audio, it is empty, or it holds values that are not finite.
    """
    try:
        samples, rate = cast("tuple[Any, int]", soundfile.read(str(path), dtype="float32", always_2d=True))
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        reason = "there is no such file" if not Path(path).exists() else str(error).rstrip(".")
        raise UserError(f"cannot read audio from {path}: {reason}; give a WAV, FLAC, Ogg or MP3 file") from error
    if samples.shape[0] == 0:
        raise UserError(f"{path} holds no audio samples; replace or remove the file")
    mono = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise UserError(f"{path} holds samples that are not finite numbers; export it again")
    return resample(torch.from_numpy(np.ascontiguousarray(mono)), rate, sample_rate)


def write(path: Path | str, audio: Tensor, sample_rate: int) -> None:
    """Write a mono clip as 16-bit WAV or FLAC, chosen by the suffix.

    The file is written beside its target and renamed, so a reader never sees half of it. Samples beyond full scale
    are clipped.

    Args:
        path: target ending in .wav or .flac; missing folders are made.
        audio: [N] float, full scale is [-1, 1].
        sample_rate: Hz.

    Raises:
        UserError: another suffix, or the file cannot be written (no permission, disk full).
        ValueError: audio is not one-dimensional or not finite.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"cannot write {path}: the name must end in .wav or .flac")
    if audio.dim() != 1:
        raise ValueError(f"audio must be [N], got {list(audio.shape)}")
    samples = audio.detach().to("cpu", torch.float32).clamp(-1.0, 1.0).numpy()
    if not np.isfinite(samples).all():
        raise ValueError("audio holds values that are not finite")
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as f:
            f.write(encode(samples, sample_rate, kind))
        # mkstemp makes files only their owner can read, whatever the user's umask allows.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; free some space or choose another folder") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def encode(samples: Any, sample_rate: int, kind: str) -> bytes:
    """Return the bytes of a 16-bit file of samples [N].

    They are made in memory: where libsndfile writes to a file itself, a full disk reaches the caller as no `OSError`.

    Args:
        samples: floats in [-1, 1], or int16.
        sample_rate: Hz.
        kind: "WAV" or "FLAC".
    """
    buffer = BytesIO()
    soundfile.write(buffer, samples, sample_rate, format=kind, subtype="PCM_16")
    return buffer.getvalue()


def resample(audio: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Change the sample rate with the SoX resampler (soxr, high quality).

    Args:
        audio: [..., N] float.
        source_rate: Hz of `audio`.
        target_rate: Hz of the result.

    Returns:
        [..., M] float32 on the device of `audio`, M = round(N * target_rate / source_rate).
    """
    if source_rate == target_rate:
        return audio.float()
    channels = audio.detach().reshape(-1, audio.shape[-1]).to("cpu", torch.float32).numpy()
    resampled = cast(Any, soxr.resample(np.ascontiguousarray(channels.T), source_rate, target_rate, quality="HQ"))
    result = torch.from_numpy(np.ascontiguousarray(resampled.T))
    return result.reshape(*audio.shape[:-1], -1).to(audio.device)
