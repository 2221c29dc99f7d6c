"""`musicrl serve`: the worker, the web server, and a tidy end."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import signal
import socket
import sys
import webbrowser
from contextlib import closing
from importlib import resources
from pathlib import Path

import uvicorn

from musicrl.config import ServeConfig
from musicrl.errors import UserError
from musicrl.feedback.store import PreferenceStore
from musicrl.server.app import create_app
from musicrl.server.database import PageDatabase
from musicrl.server.jobs import Jobs
from musicrl.server.raters import load_key
from musicrl.server.supervisor import Supervisor

_POLICIES = "musicrl.server.sampling:generator"
_LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
_GRACE_SECONDS = 5


def serve(config: ServeConfig, *, generator: str = _POLICIES) -> None:
    """Serve the feedback page until Ctrl-C or SIGTERM.

    Args:
        config: where to listen, which models make the clips, where they and the votes are kept.
        generator: `module:function` that builds a `Generator` from the names of the models.

    Raises:
        UserError: the address is taken or public without consent, or the store or the models cannot be opened.
    """
    if not config.public and not _is_loopback(config.host):
        raise UserError(
            f"host {config.host} can be reached from other machines and the page has no login; "
            "keep host=127.0.0.1 and forward the port, or set public=true to let everyone in"
        )
    logging.basicConfig(format="musicrl: %(message)s")
    folder = Path(config.store)
    with (
        closing(_bind(config.host, config.port)) as listener,
        PreferenceStore(folder) as store,
        closing(PageDatabase(folder / "page.db")) as database,
    ):
        key = load_key(folder)
        print(f"Loading {', '.join(config.models)} …", flush=True)
        with Supervisor(Jobs(database), folder, generator, config.models):
            app = create_app(
                store,
                database,
                key=key,
                seconds=config.seconds,
                suggestions=_suggestions(),
                hosts=None if config.public else {*_LOCAL_NAMES, config.host},
            )
            _run(app, listener)
    print("Stopped. Every vote that was confirmed is saved.")


def _run(app: object, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    print(f"Listen and vote at {url} (Ctrl-C stops)", flush=True)
    if _has_display():
        webbrowser.open(url)
    # uvicorn ends gracefully on these signals and then raises them again; by then there is nothing left to stop.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        settings = uvicorn.Config(
            app,  # pyright: ignore[reportArgumentType]
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        uvicorn.Server(settings).run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot listen on {host} port {port}: {reason}; choose another, for example port=0") from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _suggestions() -> list[str]:
    # Read as a file: the module that writes the prompts imports torch, which this process does without.
    lines = resources.files("musicrl.corpus").joinpath("prompts_train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]
