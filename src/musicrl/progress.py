"""Progress of long work, and a first Ctrl-C that lets it save."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol


class Progress(Protocol):
    """What `progress` yields."""

    def advance(self, n: float = 1) -> None:
        """Count n more units as done."""
        ...

    def update(self, **fields: float | str) -> None:
        """Show these values beside the bar, such as loss=1.2."""
        ...


@contextmanager
def progress(description: str, total: float | None) -> Generator[Progress, None, None]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line about every ten seconds.

    Args:
        description: what is being done.
        total: units in all; None if that is unknown.
    """
    if not sys.stderr.isatty():
        lines = _Lines(description, total)
        try:
            yield lines
        finally:
            lines.show()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, values="")

        class OnBar:
            def advance(self, n: float = 1) -> None:
                bar.advance(task, n)

            def update(self, **fields: float | str) -> None:
                bar.update(task, values=_text(fields))

        yield OnBar()


@contextmanager
def interruptible() -> Generator[Callable[[], bool], None, None]:
    """Yield `stop()`, which tells whether Ctrl-C was pressed; a loop then saves and ends.

    A second Ctrl-C interrupts at once. Outside the main thread signals cannot be caught, and `stop()` stays False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        print("\nstopping after this step; press Ctrl-C again to stop at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


class _Lines:
    """Progress as lines of text, for logs."""

    def __init__(self, description: str, total: float | None) -> None:
        self._description = description
        self._total = total
        self._done = 0.0
        self._values = ""
        self._start = self._shown = time.monotonic()

    def advance(self, n: float = 1) -> None:
        self._done += n
        if time.monotonic() - self._shown >= 10:
            self.show()

    def update(self, **fields: float | str) -> None:
        self._values = _text(fields)

    def show(self) -> None:
        self._shown = time.monotonic()
        of = f"/{self._total:g}" if self._total is not None else ""
        line = f"{self._description}: {self._done:g}{of}, {self._shown - self._start:.0f} s"
        print(f"{line}, {self._values}" if self._values else line, file=sys.stderr, flush=True)


def _text(fields: dict[str, float | str]) -> str:
    return " ".join(
        f"{name} {item:.4g}" if isinstance(item, float) else f"{name} {item}" for name, item in fields.items()
    )
