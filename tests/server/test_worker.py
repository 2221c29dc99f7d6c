"""The worker is a real process here, and it is really killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from musicrl.config import ServeConfig
from musicrl.errors import UserError
from musicrl.server import run
from musicrl.server.supervisor import Supervisor

GENERATOR = "tone_generator:generator"
SERVE = """
import sys
from musicrl.config import ServeConfig
from musicrl.errors import UserError
from musicrl.server.run import serve
serve(ServeConfig(port=0, store=sys.argv[1], seconds=4), generator="tone_generator:generator")
"""


def test_a_killed_worker_loses_no_job(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., Any]
) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setenv("TONES_GATE", str(gate))
    client = page.client()

    def view() -> dict[str, Any]:
        return client.get(f"/api/pairs/{identifier}").json()

    with Supervisor(page.jobs, page.folder, GENERATOR) as supervisor:
        identifier = client.post("/api/pairs", json={"prompt": "wait for me"}).json()["id"]
        wait_for(lambda: view()["state"] == "running")
        first = supervisor.process_id
        assert first is not None
        os.kill(first, signal.SIGKILL)
        gate.touch()
        wait_for(lambda: view()["state"] == "ready")
        assert supervisor.process_id != first
        job = page.jobs.find(identifier, _rater(page, identifier))
        assert job.attempts == 2
        assert client.post("/api/votes", json=page.ballot(view())).status_code == 201
        last = supervisor.process_id
    assert len(list(page.store.current_votes())) == 1
    assert last is not None
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


def test_models_that_cannot_be_loaded_stop_the_start(page: Any) -> None:
    with pytest.raises(UserError, match="no_such_module"), Supervisor(page.jobs, page.folder, "no_such_module:x"):
        pass


def test_a_worker_that_dies_at_once_stops_the_start(page: Any) -> None:
    with pytest.raises(UserError, match="ended with status"), Supervisor(page.jobs, page.folder, "sys:exit", ["3"]):
        pass


def test_serve_prints_its_address_answers_and_ends_gracefully(tones: Any, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        address = next(line for line in process.stdout if "http://" in line).split()[4]
        import httpx

        answer = httpx.get(address, timeout=60)
        assert answer.status_code == 200
        assert "musicrl" in answer.text
        assert "server" not in answer.headers
        assert len(httpx.get(address + "api/suggestions", timeout=60).json()["prompts"]) == 24
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(60) == 0
        assert "Every vote that was confirmed is saved" in rest
    finally:
        process.kill()
        process.wait()


def test_a_taken_port_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1 port {port}"):
            run.serve(ServeConfig(port=port, store=str(tmp_path)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_a_public_address_needs_consent(tmp_path: Path, host: str) -> None:
    with pytest.raises(UserError, match="set public=true"):
        run.serve(ServeConfig(host=host, store=str(tmp_path / "store")))
    assert not (tmp_path / "store").exists()


def _rater(page: Any, identifier: str) -> str:
    from sqlalchemy import select

    from musicrl.server.database import job

    with page.database.read() as connection:
        return connection.execute(select(job.c.rater_id).where(job.c.id == identifier)).scalar_one()
