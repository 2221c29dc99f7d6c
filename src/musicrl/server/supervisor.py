"""Starts the worker process, and starts it again when it dies."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from musicrl.errors import UserError
from musicrl.feedback.records import StorageError
from musicrl.server import worker
from musicrl.server.jobs import Jobs

_STOP_SECONDS = 5.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_log = logging.getLogger(__name__)


class Supervisor:
    """A worker that is always there: inside `with` there is one process, or the next one is on its way."""

    def __init__(self, jobs: Jobs, folder: Path, generator: str, arguments: Sequence[str] = (), url: str | None = None):
        """Describe the worker.

        Args:
            jobs: the queue; what a dead worker held goes back into it.
            folder: folder of the preference store.
            generator: `module:function` that returns the generator.
            arguments: texts given to that function.
            url: SQLAlchemy URL of the store's database, None if it lies in the folder.
        """
        self._jobs = jobs
        options = ["--generator", generator, *([] if url is None else ["--url", url])]
        self._command = [sys.executable, "-m", "musicrl.server.worker", *options]
        self._arguments = [str(folder), *arguments]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> Supervisor:
        """Start the first worker and wait until its models are loaded.

        Raises:
            UserError: they cannot be loaded.
        """
        owner, process = self._spawn()
        problem = _wait_until_ready(process)
        if problem is not None:
            self._end(process)
            raise UserError(problem)
        self._watcher = threading.Thread(target=self._watch, args=(owner, process), daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            self._end(process)
        if self._watcher is not None:
            self._watcher.join(_STOP_SECONDS)

    @property
    def process_id(self) -> int | None:
        """The worker's process id, None while there is no worker."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def _spawn(self) -> tuple[str, subprocess.Popen[str]]:
        owner = uuid.uuid4().hex
        # A session of its own: Ctrl-C in the terminal reaches the server only, which then ends the worker.
        process = subprocess.Popen(
            [*self._command, "--owner", owner, "--", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with self._lock:
            self._process = process
        return owner, process

    def _watch(self, owner: str, process: subprocess.Popen[str]) -> None:
        pause = _FIRST_PAUSE
        while True:
            status = process.wait()
            with self._lock:
                self._process = None
            try:
                self._jobs.release(owner)
            except StorageError as error:
                # The lease runs out by itself.
                _log.warning("%s", error)
            if self._stopping.is_set():
                return
            _log.warning("the worker ended with status %d; starting another", status)
            if self._stopping.wait(pause):
                return
            owner, process = self._spawn()
            if self._stopping.is_set():
                self._end(process)
            problem = _wait_until_ready(process)
            if problem is None:
                pause = _FIRST_PAUSE
            else:
                _log.warning("%s", problem)
                pause = min(2 * pause, _LONGEST_PAUSE)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[str]) -> str | None:
    """Return None once the worker is ready, or why it is not; what a library prints meanwhile is passed over."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == worker.READY:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return None
        if line.startswith(worker.ERROR):
            return line.removeprefix(worker.ERROR).strip()
    return f"the worker ended with status {process.wait()} while loading the models; see its messages above"
