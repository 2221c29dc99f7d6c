"""The queue of pairs to be made. A worker leases a job; when the worker dies, the job goes back into the queue."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from musicrl.errors import UserError
from musicrl.server.database import PageDatabase, job

State = Literal["queued", "running", "ready", "failed"]

LEASE_SECONDS = 20.0
"""A job whose worker gave no sign of life for this long is given to the next one."""

_MAX_ATTEMPTS = 3
_MAX_UNFINISHED_OF_RATER = 3
_MAX_UNFINISHED = 200
_RECENT = 9


class TooManyError(UserError):
    """The queue, or the rater's share of it, is full."""


@dataclass(frozen=True)
class Job:
    """One request for a pair.

    Attributes:
        id: 128 random bits, the name of the pair in the page's address.
        seed: the clips are a function of prompt, seconds and seed, so a repeated job makes the same ones.
        attempts: workers that began with it.
        error: why it failed, a sentence for the user.
    """

    number: int
    id: str
    rater_id: str
    prompt: str
    seconds: float
    seed: int
    state: State
    attempts: int
    error: str | None
    started_us: int | None


class Jobs:
    """The queue, in the page's database; server and workers open it each for themselves."""

    def __init__(self, database: PageDatabase) -> None:
        """Work on this database."""
        self._database = database

    def submit(self, rater_id: str, prompt: str, seconds: float) -> Job:
        """Put a request into the queue; it is on disk when this returns.

        Raises:
            TooManyError: the rater has three unfinished ones, or the queue is full.
            StorageError: the disk refused; nothing was stored.
        """
        identifier = secrets.token_urlsafe(16)
        with self._database.write() as connection:
            if _unfinished(connection, job.c.rater_id == rater_id) >= _MAX_UNFINISHED_OF_RATER:
                raise TooManyError("three of your pairs are being made already; wait for one of them")
            if _unfinished(connection) >= _MAX_UNFINISHED:
                raise TooManyError("too many pairs are waiting; try again in a few minutes")
            connection.execute(
                insert(job).values(
                    id=identifier,
                    rater_id=rater_id,
                    prompt=prompt,
                    seconds=seconds,
                    seed=secrets.randbits(48),
                    state="queued",
                    created_us=_now(),
                )
            )
            return _found(connection, identifier)

    def find(self, identifier: str, rater_id: str) -> Job | None:
        """Return a rater's job, None if there is no such job or it is another rater's."""
        with self._database.read() as connection:
            row = (
                connection.execute(_columns().where(job.c.id == identifier, job.c.rater_id == rater_id))
                .mappings()
                .one_or_none()
            )
        return None if row is None else Job(**row)

    def ahead(self, waiting: Job) -> int:
        """Return how many unfinished jobs come before this one."""
        with self._database.read() as connection:
            return _unfinished(connection, job.c.number < waiting.number)

    def expected_seconds(self) -> float | None:
        """Return the median time of the last pairs made, seconds; None before the first."""
        spent = select(job.c.finished_us - job.c.started_us).where(job.c.state == "ready")
        with self._database.read() as connection:
            recent = list(connection.scalars(spent.order_by(job.c.finished_us.desc()).limit(_RECENT)))
        return median(recent) / 1e6 if recent else None

    def lease(self, owner: str) -> Job | None:
        """Give the oldest waiting job to a worker, for `LEASE_SECONDS`; None if nothing waits.

        Args:
            owner: name of the worker, unique among all.
        """
        now = _now()
        lost = or_(
            job.c.lease_until_us < now,
            # The clock was set back: such a lease would else be kept for hours.
            job.c.lease_until_us > now + 2 * _LEASE_US,
        )
        with self._database.write() as connection:
            _requeue(connection, lost)
            oldest = select(job.c.id).where(job.c.state == "queued").order_by(job.c.number).limit(1)
            identifier = connection.scalar(oldest)
            if identifier is None:
                return None
            connection.execute(
                update(job)
                .where(job.c.id == identifier)
                .values(
                    state="running",
                    attempts=job.c.attempts + 1,
                    lease_owner=owner,
                    lease_until_us=now + _LEASE_US,
                    started_us=now,
                )
            )
            return _found(connection, identifier)

    def renew(self, owner: str) -> None:
        """Extend what a worker holds; called every few seconds while it works."""
        with self._database.write() as connection:
            connection.execute(update(job).where(job.c.lease_owner == owner).values(lease_until_us=_now() + _LEASE_US))

    def release(self, owner: str) -> None:
        """Take back what a worker holds: it goes to the next one, or fails after the third worker."""
        with self._database.write() as connection:
            _requeue(connection, job.c.lease_owner == owner)

    def put_back(self, leased: Job, owner: str) -> None:
        """Return a job that could not be tried, for instance because the disk is full; the attempt does not count."""
        with self._database.write() as connection:
            connection.execute(
                update(job).where(_held(leased, owner)).values(**_FREE, state="queued", attempts=job.c.attempts - 1)
            )

    def fail(self, leased: Job, owner: str, error: str) -> None:
        """End a job without a pair."""
        with self._database.write() as connection:
            connection.execute(
                update(job).where(_held(leased, owner)).values(**_FREE, state="failed", error=error, finished_us=_now())
            )

    def finish(self, connection: Connection, leased: Job, owner: str) -> bool:
        """End a job inside the caller's transaction; False if another worker took it over meanwhile."""
        ready = update(job).where(_held(leased, owner)).values(**_FREE, state="ready", finished_us=_now())
        return connection.execute(ready).rowcount == 1


_LEASE_US = int(LEASE_SECONDS * 1e6)
_FREE: Mapping[str, Any] = {"lease_owner": None, "lease_until_us": None}


def _requeue(connection: Connection, condition: Any) -> None:
    held = and_(job.c.state == "running", condition)
    sentence = f"the model stopped {_MAX_ATTEMPTS} times while making this pair; try another prompt"
    failed = {**_FREE, "state": "failed", "error": sentence, "finished_us": _now()}
    connection.execute(update(job).where(held, job.c.attempts >= _MAX_ATTEMPTS).values(**failed))
    connection.execute(update(job).where(held).values(**_FREE, state="queued"))


def _unfinished(connection: Connection, *conditions: Any) -> int:
    query = select(func.count()).select_from(job).where(job.c.state.in_(("queued", "running")), *conditions)
    return connection.execute(query).scalar_one()


def _held(leased: Job, owner: str) -> Any:
    return and_(job.c.id == leased.id, job.c.lease_owner == owner)


def _found(connection: Connection, identifier: str) -> Job:
    return Job(**connection.execute(_columns().where(job.c.id == identifier)).mappings().one())


def _columns() -> Any:
    return select(*(job.c[name] for name in Job.__dataclass_fields__))


def _now() -> int:
    return time.time_ns() // 1_000
