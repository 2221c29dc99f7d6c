"""Run folders: resolved settings, metrics, and checkpoints that survive a kill at any moment.

    run/config.toml          settings the run was started with
    run/run.json             stage, version, and checksums of what it was started from
    run/metrics.jsonl        one row a step
    run/checkpoints/000007-step-1200/{tensors.safetensors, state.json, manifest.json}

A checkpoint is written into a temporary folder beside its target, flushed, listed in a manifest of SHA-256 sums and
renamed in place; only then are older ones dropped. What does not match its manifest is never loaded.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from musicrl import __version__, files
from musicrl.config import Stage, load, to_toml
from musicrl.errors import UserError
from musicrl.progress import interruptible, progress
from musicrl.training_state import finite, pack, unpack

__all__ = ["Checkpoint", "Run", "finite", "interruptible", "open_run", "pack", "progress", "unpack"]

KEEP = 2
LOCK = ".lock"
TENSORS = "tensors.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"
_NAME = re.compile(r"(\d{6,})-step-(\d+)")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What `Run.save` was given.

    Attributes:
        step: the step the caller passed.
        tensors: tensors by name, on the CPU.
        state: JSON values by name.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Run:
    """One run folder, locked against other processes until it is closed; made by `open_run`."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        """Take over a prepared folder and its lock; callers use `open_run`."""
        self.path = path
        self._lock = lock
        self._metrics = path / "metrics.jsonl"
        self._checkpoints = path / "checkpoints"
        self._trusted: list[Path] = []
        self._last_save = time.monotonic()

    def __enter__(self) -> Run:
        """Return the run itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the run."""
        self.close()

    def close(self) -> None:
        """Let other processes open the run."""
        self._lock.close()

    def log(self, step: int, **metrics: float) -> None:
        """Append a row to metrics.jsonl. Call it before `save` of the same step: a resumed run keeps what was logged
        before its checkpoint and drops the rest.

        Raises:
            UserError: the row cannot be written, for example because the disk is full.
        """
        row = json.dumps({"step": step, **{name: _number(value) for name, value in metrics.items()}})
        try:
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(row + "\n")
        except OSError as error:
            raise self._failed(f"logging step {step}", error) from error

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint and drop all but the last two.

        Args:
            step: steps done so far.
            tensors: model weights and, from `pack`, optimizer and generators.
            state: JSON values: counters, and the other half of `pack`.

        Raises:
            UserError: the disk is full or refuses the write; earlier checkpoints stay as they were.
        """
        sequence = 1 + max((number for number, _ in self._saved()), default=0)
        target = self._checkpoints / f"{sequence:06d}-step-{step}"
        temporary = self._checkpoints / f".{target.name}.tmp"
        try:
            self._write(temporary, step, tensors, state)
            files.move(temporary, target)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise self._failed(f"saving step {step}", error) from error
        self._trust(target)
        self._last_save = time.monotonic()

    def due(self, minutes: float) -> bool:
        """Return whether more than `minutes` passed since the run was opened or last saved."""
        return time.monotonic() - self._last_save > 60 * minutes

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that matches its manifest, or None.

        A damaged one is passed over with a warning.
        """
        for _, folder in self._saved():
            problem = _problem(folder)
            if problem is None:
                stored = json.loads((folder / STATE).read_text(encoding="utf-8"))
                self._trust(folder)
                return Checkpoint(stored["step"], load_file(folder / TENSORS), stored["state"])
            _log.warning("checkpoint %s is damaged (%s); trying the one before it", folder, problem)
        return None

    def interrupted(self, step: int) -> UserError:
        """Return the error a loop raises after it was stopped by Ctrl-C and has saved `step`."""
        return UserError(f"interrupted at step {step}; saved in {self.path}; run again with --resume")

    def _write(self, folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with self._metrics.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())
            logged = file.tell()
        files.write_tensors(folder / TENSORS, tensors)
        stored = {"step": step, "metrics_bytes": logged, "state": state}
        files.write_bytes(folder / STATE, json.dumps(stored).encode())
        sums = {name: files.sha256(folder / name) for name in (TENSORS, STATE)}
        files.write_bytes(folder / MANIFEST, json.dumps({"sha256": sums}).encode())
        files.sync_directory(folder)

    def _saved(self) -> list[tuple[int, Path]]:
        """Return (sequence, folder) of finished checkpoints, the newest first."""
        if not self._checkpoints.is_dir():
            return []
        found = [(_NAME.fullmatch(folder.name), folder) for folder in self._checkpoints.iterdir()]
        return sorted(((int(match[1]), folder) for match, folder in found if match), reverse=True)

    def _trust(self, folder: Path) -> None:
        # Only checkpoints known to be whole count towards the two that stay: a damaged one never pushes out a good one.
        self._trusted = [*(other for other in self._trusted if other != folder), folder][-KEEP:]
        if len(self._trusted) == KEEP:
            for _, other in self._saved():
                if other not in self._trusted:
                    shutil.rmtree(other, ignore_errors=True)

    def _prepare(self, stage: str, config: Stage, resume: bool, inputs: Mapping[str, str]) -> None:
        self._checkpoints.mkdir(exist_ok=True)
        for rest in self._checkpoints.glob(".*.tmp"):
            shutil.rmtree(rest, ignore_errors=True)
        saved = [folder for _, folder in self._saved()]
        if saved and not resume:
            raise UserError(f"{self.path} already holds a run; continue it with --resume or give another folder")
        whole = next((folder for folder in saved if _problem(folder) is None), None)
        if saved and whole is None:
            raise UserError(f"no checkpoint in {self._checkpoints} matches its manifest; give another folder")
        if whole is not None:
            self._check_same(stage, config, inputs)
            logged: int = json.loads((whole / STATE).read_text(encoding="utf-8"))["metrics_bytes"]
        else:
            about = {"stage": stage, "musicrl": __version__, "inputs": dict(inputs)}
            files.write_atomic(self.path / "run.json", (json.dumps(about) + "\n").encode())
            files.write_atomic(self.path / "config.toml", to_toml(config).encode())
            logged = 0
        with self._metrics.open("ab") as file:
            file.truncate(min(logged, file.tell()))

    def _check_same(self, stage: str, config: Stage, inputs: Mapping[str, str]) -> None:
        try:
            about = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            started: str = about["stage"]
            from_weights: dict[str, str] = about["inputs"]
        except (OSError, ValueError, KeyError):
            raise UserError(f"{self.path / 'run.json'} cannot be read; give another folder") from None
        if started != stage:
            raise UserError(f"{self.path} holds a {started} run, not a {stage} run; give another folder")
        for name, digest in inputs.items():
            was = from_weights.get(name, "none")
            if was != digest:
                raise UserError(
                    f"{self.path} was started from another {name} ({was[:12]}, now it is {digest[:12]});"
                    " restore that or give another folder"
                )
        before = load(type(config), self.path / "config.toml")
        for key, now in config.model_dump().items():
            was = before.model_dump()[key]
            if was != now:
                raise UserError(
                    f"{self.path} was started with {key} = {was}, now it is {now};"
                    " resume with the same settings or give another folder"
                )

    def _failed(self, doing: str, error: OSError) -> UserError:
        reason = "disk full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        saved = self._saved()
        kept = f"last good checkpoint is {saved[0][1]}" if saved else "no checkpoint was there yet"
        mend = "free some space and run again with --resume" if reason == "disk full" else "run again with --resume"
        return UserError(f"{reason} while {doing} in {self.path}; nothing lost: {kept}; {mend}")


def lock(path: Path) -> IO[str]:
    """Lock a folder against other processes until the returned file is closed.

    Raises:
        UserError: another process has it.
    """
    file = (path / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"{path} is in use by another process; wait for it or give another folder") from None
    return file


def open_run(path: Path, stage: str, config: Stage, *, resume: bool, inputs: Mapping[str, str] | None = None) -> Run:
    """Open a run folder, making it if needed, and lock it; use it as a context manager or close it.

    With `resume`, rows of metrics.jsonl after the newest whole checkpoint are dropped, so that the finished log equals
    that of an uninterrupted run. A folder without any checkpoint is started anew either way.

    Args:
        path: run folder.
        stage: name of the stage, such as "codec".
        config: resolved settings; saved as config.toml.
        resume: continue a run that is there; without it such a run is an error.
        inputs: SHA-256 of the weights and data the run starts from, by name; it is not resumed on others.

    Raises:
        UserError: another process has the run open, a run is there and `resume` is False, or it was started with other
            settings, from other inputs or for another stage.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        run = Run(path, lock(path))
        try:
            run._prepare(stage, config, resume, inputs or {})  # pyright: ignore[reportPrivateUsage]
        except BaseException:
            run.close()
            raise
        return run
    except OSError as error:
        raise UserError(f"run folder {path} cannot be written: {error.strerror or error}; give another one") from None


def _problem(folder: Path) -> str | None:
    """Return why a checkpoint cannot be trusted, or None."""
    try:
        sums: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        for name in (TENSORS, STATE):
            if files.sha256(folder / name) != sums[name]:
                return f"{name} does not match its SHA-256"
        json.loads((folder / STATE).read_text(encoding="utf-8"))["metrics_bytes"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _number(value: float) -> float | None:
    # JSON knows no NaN; a reader of the log gets null instead of a file it cannot parse.
    return value if isinstance(value, int) or value - value == 0 else None
