"""The process that makes the clips: `python -m musicrl.server.worker`, started and watched by the server.

It says "ready" on standard output once the models are loaded, or "error: …", and ends when its standard input closes,
which happens also when the server is killed. Torch is imported here and not in the server.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, cast

from musicrl.errors import UserError
from musicrl.feedback.records import NewClip, StorageError
from musicrl.feedback.store import PreferenceStore
from musicrl.server.assignments import Assignments
from musicrl.server.clips import Generator, UnplayableError, prepare
from musicrl.server.database import PageDatabase
from musicrl.server.jobs import LEASE_SECONDS, Job, Jobs

READY = "ready"
ERROR = "error: "

_IDLE_SECONDS = 0.5
_DISK_SECONDS = 2.0
_TRIES = 3
_log = logging.getLogger(__name__)


def main() -> None:
    """Run the worker until standard input closes."""
    parser = argparse.ArgumentParser(prog="musicrl.server.worker")
    parser.add_argument("folder", type=Path, help="folder of the preference store")
    parser.add_argument("--url", help="SQLAlchemy URL of its database, if it does not lie in the folder")
    parser.add_argument("--owner", required=True, help="name under which jobs are leased")
    parser.add_argument("--generator", required=True, help="module:function that returns the generator")
    parser.add_argument("arguments", nargs="*", help="texts given to that function")
    options = parser.parse_args()
    logging.basicConfig(format="musicrl worker: %(message)s")
    threading.Thread(target=_end_with_server, daemon=True).start()
    try:
        generator = load_generator(options.generator, options.arguments)
        store = PreferenceStore(options.folder, options.url)
        database = PageDatabase(options.folder / "page.db")
    except UserError as error:
        print(f"{ERROR}{' '.join(str(error).split())}", flush=True)
        sys.exit(2)
    print(READY, flush=True)
    serve_jobs(store, database, generator, options.owner)


def load_generator(specification: str, arguments: list[str]) -> Generator:
    """Return what `module:function` returns for these arguments.

    Raises:
        UserError: there is no such module or function.
    """
    module, _, name = specification.partition(":")
    try:
        build = cast("Callable[..., Generator]", getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot load the generator {specification!r}: {error}; name it as module:function") from error
    return build(*arguments)


def serve_jobs(store: PreferenceStore, database: PageDatabase, generator: Generator, owner: str) -> NoReturn:
    """Lease jobs and do them, one at a time."""
    jobs = Jobs(database)
    threading.Thread(target=_keep_leases, args=(jobs, owner), daemon=True).start()
    job: Job | None = None
    while True:
        try:
            if job is not None:
                jobs.put_back(job, owner)
            job = jobs.lease(owner)
            if job is None:
                time.sleep(_IDLE_SECONDS)
                continue
            do_job(store, database, generator, job, owner)
            job = None
        except StorageError as error:
            _log.warning("%s", error)
            time.sleep(_DISK_SECONDS)


def do_job(store: PreferenceStore, database: PageDatabase, generator: Generator, job: Job, owner: str) -> None:
    """Make one pair, store it and assign it to who asked; or say in the job why not.

    Raises:
        StorageError: the disk refused; the job is still leased.
    """
    jobs = Jobs(database)
    try:
        clip_a, clip_b = store.add_clips(_playable(generator, job))
        pair = store.add_pair(clip_a.id, clip_b.id)
    except StorageError:
        raise
    except UnplayableError as error:
        jobs.fail(job, owner, f"no playable pair came out of {_TRIES} tries: {error}; try another prompt")
        return
    except Exception:
        # Its text may hold the name of a model, which the page must not show.
        _log.exception("pair %s failed", job.id)
        jobs.fail(job, owner, "the model failed on this prompt; try another one")
        return
    with database.write() as connection:
        if jobs.finish(connection, job, owner):
            Assignments.add(connection, job.id, job.rater_id, pair, clip_a.duration_s)


def _playable(generator: Generator, job: Job) -> list[NewClip]:
    for attempt in range(_TRIES):
        first = job.seed + 2 * attempt
        try:
            return prepare(job.prompt, job.seconds, generator(job.prompt, job.seconds, (first, first + 1)))
        except UnplayableError as error:
            if attempt == _TRIES - 1:
                raise
            _log.warning("pair %s is made again: %s", job.id, error)
    raise AssertionError("unreachable")


def _keep_leases(jobs: Jobs, owner: str) -> NoReturn:
    while True:
        time.sleep(LEASE_SECONDS / 4)
        try:
            jobs.renew(owner)
        except StorageError as error:
            _log.warning("%s", error)


def _end_with_server() -> NoReturn:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
