"""Model weights as folders of `config.json`, `model.safetensors` and `README.md` (the model card).

The default models ship inside this package, one folder each; a trained model has the same form anywhere else.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from musicrl import files
from musicrl.errors import UserError

CONFIG = "config.json"
MODEL = "model.safetensors"
CARD = "README.md"


OWN = "MUSICRL_WEIGHTS"
"""Environment variable that names a folder of `musicrl pretrain`; its parts take the place of the shipped ones."""


def embedded(part: str) -> Path:
    """Return the folder of a part's weights, whether they are there or not: the user's own if `OWN` has it."""
    own = os.environ.get(OWN)
    if own and (Path(own) / part / "model" / CONFIG).is_file():
        return Path(own) / part / "model"
    return Path(__file__).parent / part


def read(name_or_path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return configuration and tensors of a model, checked against their SHA-256 and for NaN or infinity.

    Args:
        name_or_path: an embedded part ("codec") or a folder written by `write`.

    Returns:
        The configuration, and the tensors by name on the CPU; floating point tensors in float32.

    Raises:
        UserError: the weights are missing, do not match their checksum, or hold values that are not finite.
    """
    folder = embedded(str(name_or_path))
    if not (folder / CONFIG).is_file():
        folder = _folder_of_user(name_or_path)
    config = _read_config(folder)
    model = folder / MODEL
    mend = "restore the file, reinstall, or train it again"
    try:
        digest = files.sha256(model)
        if digest != config["sha256"]:
            raise UserError(
                f"weights {model} are corrupt: SHA-256 is {digest}, {CONFIG} says {config['sha256']}; {mend}"
            )
        tensors = load_file(model)
    except OSError as error:
        raise UserError(f"weights {model} cannot be read: {error.strerror or error}; {mend}") from None
    except SafetensorError as error:
        raise UserError(f"weights {model} are not safetensors: {error}; {mend}") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            if not bool(torch.isfinite(tensor).all()):
                raise UserError(f"weights {model} hold NaN or infinity in '{name}'; train them again")
            tensors[name] = tensor.float()
    return config, tensors


@contextmanager
def building(what: str, name_or_path: str | Path) -> Generator[None, None, None]:
    """Inside, a configuration that lacks something or does not fit its tensors becomes a sentence.

    Args:
        what: kind of model that is built.
        name_or_path: what `read` was given.

    Raises:
        UserError: the weights are of another kind, or their configuration is damaged.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"no {what} can be built from weights {name_or_path} ({reason}); give others, reinstall, or train it again"
        ) from error


def write(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    card: str,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write a model so that `read` gives it back; a failure leaves the old model or the new one, never a mixture.

    Args:
        path: folder to write; replaced if it is there.
        config: what a builder needs to make the model, JSON values; `sha256` and `dtype` are added.
        tensors: state by name; floating point tensors are stored as `dtype`.
        card: text of the model card (Markdown): data, steps, seed, measured figures.
        dtype: type of the stored floating point tensors.

    Raises:
        UserError: the folder cannot be written, for example because the disk is full.
    """
    stored = {name: t.detach().to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        temporary.chmod(0o755)
        files.write_tensors(temporary / MODEL, stored)
        full = {**config, "dtype": str(dtype).removeprefix("torch."), "sha256": files.sha256(temporary / MODEL)}
        files.write_bytes(temporary / CARD, card.encode())
        files.write_bytes(temporary / CONFIG, (json.dumps(full, indent=2, ensure_ascii=False) + "\n").encode())
        files.sync_directory(temporary)
        _swap(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"weights {path} cannot be written: {reason}; mend that and run again") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, path: Path) -> None:
    if not path.exists():
        files.move(temporary, path)
        return
    # No portable call exchanges two folders; a kill between the renames leaves the old one beside its place.
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.replace(path, old)
    try:
        files.move(temporary, path)
    finally:
        if not path.exists():
            os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)


def _folder_of_user(name_or_path: str | Path) -> Path:
    folder = Path(name_or_path)
    if (folder / CONFIG).is_file():
        return folder
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or len(folder.parts) > 1 or folder.exists():
        raise UserError(f"no weights at {folder}: {CONFIG} is missing there; give a folder that musicrl wrote")
    if name in ("r", "u", "ru"):
        mend = f"finetune with `musicrl finetune recipes/{name}.toml` and give runs/{name}/policy"
    elif name in ("quality", "preference"):
        mend = f"train them with `musicrl reward train {name}` and give runs/{name}/model"
    else:
        mend = f"train them with `musicrl pretrain {name}`"
    raise UserError(f"no weights for '{name}' at {embedded(name)}; {mend}, or reinstall")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; reinstall or train the model again") from None
    if not isinstance(config, dict) or "sha256" not in config:
        raise UserError(f"{path} names no sha256 of {MODEL}; reinstall or train the model again")
    return config  # pyright: ignore[reportUnknownVariableType]
