"""Files named by the SHA-256 of their content: written once, never changed, shared by whoever holds the same bytes."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from musicrl import files
from musicrl.errors import UserError
from musicrl.feedback.ids import uuid7
from musicrl.feedback.records import StorageError

_WRITERS = 16


class ContentStore:
    """A folder of immutable files, `<sha256><suffix>`; a file that has its name is whole and on disk."""

    def __init__(self, folder: Path, suffix: str) -> None:
        """Open or make the folder.

        Args:
            folder: where the files lie.
            suffix: ending of every file, with the dot.

        Raises:
            StorageError: the folder cannot be made.
        """
        self.folder = folder
        self.suffix = suffix
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder {folder}: {error.strerror}; choose another place") from error

    def path(self, sha256: str) -> Path:
        """Return where the content with this hash lies."""
        return self.folder / f"{sha256}{self.suffix}"

    def put(self, contents: Sequence[bytes]) -> list[str]:
        """Store contents durably and return their SHA-256 sums; content that is there already is not written again.

        Raises:
            StorageError: the disk is full or refuses the write; no file with part of a content is left.
        """
        sums = [hashlib.sha256(content).hexdigest() for content in contents]
        try:
            missing = {sha256: c for sha256, c in zip(sums, contents, strict=True) if not self.path(sha256).exists()}
            # Threads wait for the disk together: its flushes of several files are merged into one.
            with ThreadPoolExecutor(_WRITERS) as pool:
                list(pool.map(self._write, missing, missing.values()))
            # One flush of the folder covers all renames; it is needed also when another writer made the file.
            files.sync_directory(self.folder)
        except OSError as error:
            raise StorageError(
                f"cannot write to {self.folder}: {error.strerror}; nothing was stored, free space and send it again"
            ) from error
        return sums

    def get(self, sha256: str) -> bytes:
        """Return the content with this hash.

        Raises:
            UserError: the file is missing or its bytes no longer match the hash.
        """
        try:
            content = self.path(sha256).read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read {self.path(sha256)}: {error.strerror}; restore it from a backup of the preference store"
            ) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(f"{self.path(sha256)} is damaged; restore it from a backup of the preference store")
        return content

    def _write(self, sha256: str, content: bytes) -> None:
        temporary = self.folder / f".{uuid7()}.tmp"
        try:
            files.write_bytes(temporary, content)
            os.replace(temporary, self.path(sha256))
        finally:
            temporary.unlink(missing_ok=True)


def encode_audio(audio: NDArray[np.floating[Any]], sample_rate: int) -> bytes:
    """Return a mono clip [N] as the bytes of a 16-bit FLAC file; samples beyond full scale are clipped.

    Raises:
        UserError: the clip is empty, not mono, or holds values that are not finite.
    """
    if audio.ndim != 1 or audio.size == 0 or not np.isfinite(audio).all():
        raise UserError(f"cannot store audio of shape {list(audio.shape)}: it must be mono, not empty and finite")
    # The rounding is done here so that the bytes do not depend on how a version of libsndfile rounds.
    samples = np.clip(np.round(audio.astype(np.float64) * 32_767), -32_768, 32_767).astype(np.int16)
    buffer = io.BytesIO()
    cast(Any, soundfile).write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def encode_codes(codes: NDArray[np.integer[Any]]) -> bytes:
    """Return codes [K, T] as the bytes of a .npy file of int32.

    Raises:
        UserError: the codes are not a table of whole numbers that fit.
    """
    if codes.ndim != 2 or codes.size == 0 or codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= 2**31:
        raise UserError(f"cannot store {codes.dtype} codes of shape {list(codes.shape)}: give [K, T] integers from 0")
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(codes, dtype="<i4"), allow_pickle=False)
    return buffer.getvalue()


def decode_codes(content: bytes) -> NDArray[np.int64]:
    """Return the codes [K, T] int64 that `encode_codes` wrote."""
    return np.load(io.BytesIO(content), allow_pickle=False).astype(np.int64)
