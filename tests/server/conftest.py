from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from musicrl.feedback.store import PreferenceStore
from musicrl.server import worker
from musicrl.server.app import create_app
from musicrl.server.clips import Generator
from musicrl.server.database import PageDatabase
from musicrl.server.jobs import Jobs

KEY = b"k" * 32
SUGGESTIONS = ("a slow waltz", "a fast jig", "a solemn chorale")
HEARD = [[0.0, 1.5], [1.0, 3.5]]


@dataclass
class Page:
    """The application over a fresh store, with a worker that runs when asked."""

    folder: Path
    store: PreferenceStore
    database: PageDatabase
    generator: Generator
    models: tuple[str, ...]

    @property
    def jobs(self) -> Jobs:
        return Jobs(self.database)

    def client(self, **headers: str) -> TestClient:
        """A new browser: it has opened the page, so it has a cookie of its own."""
        app = create_app(self.store, self.database, key=KEY, seconds=4.0, suggestions=SUGGESTIONS)
        client = TestClient(app, base_url="http://127.0.0.1:8000", headers=headers)
        client.cookies.update(client.get("/").cookies)
        return client

    def work(self) -> None:
        """Do every waiting job."""
        while (job := self.jobs.lease("tester")) is not None:
            worker.do_job(self.store, self.database, self.generator, job, "tester")

    def ready(self, client: TestClient, prompt: str = "a slow waltz") -> dict[str, Any]:
        """Ask for a pair, make it, and return its view."""
        answer = client.post("/api/pairs", json={"prompt": prompt})
        assert answer.status_code == 202, answer.text
        self.work()
        return client.get(f"/api/pairs/{answer.json()['id']}").json()

    def ballot(self, view: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The body of a valid vote on a pair."""
        body = {
            "assignment": view["assignment"]["id"],
            "choice": "a",
            "heard_a": HEARD,
            "heard_b": HEARD,
            "key": "k" * 32,
        }
        return body | changes


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the test double; workers in other processes import it too."""
    folder = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", folder)
    sys.modules.pop("tone_generator", None)
    return importlib.import_module("tone_generator")


@pytest.fixture
def page(tmp_path: Path, tones: Any) -> Iterator[Page]:
    with PreferenceStore(tmp_path) as store, closing(PageDatabase(tmp_path / "page.db")) as database:
        yield Page(tmp_path, store, database, tones.generator(), tones.MODELS)


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """Ask again and again until the answer is true; the bound is for a machine that is busy with other work."""
    import time

    def wait(ask: Callable[[], Any], seconds: float = 120.0) -> Any:
        end = time.monotonic() + seconds
        while not (answer := ask()):
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.05)
        return answer

    return wait
