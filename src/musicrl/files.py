"""Durable files: what these functions wrote survives a crash of the process or the machine."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from musicrl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and flush it to disk; not atomic, for files inside a folder that is renamed later."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors and flush them to disk; not atomic. Tensors that share memory are stored apart.

    Raises:
        OSError: the disk is full or refuses the write.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    seen: set[int] = set()
    flat: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        flat[name] = tensor.detach().cpu().contiguous()
        storage = flat[name].untyped_storage().data_ptr()
        if storage in seen:
            flat[name] = flat[name].clone()
        seen.add(storage)
    try:
        save_file(flat, path)
    except SafetensorError as error:
        # The Rust writer reports the operating system's error as text only.
        found = re.search(r"os error (\d+)", str(error))
        code = int(found[1]) if found else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    # It also makes files that only their owner can read.
    path.chmod(0o644)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Flush a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(temporary: Path, target: Path) -> None:
    """Rename a finished file or folder onto its target and flush the parent folder."""
    os.replace(temporary, target)
    sync_directory(target.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_bytes(temporary, data)
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder for results, before the work whose results go there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {path} cannot be made: {error.strerror or error}; give another one") from None
