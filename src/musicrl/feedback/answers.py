"""Appending votes and ratings: idempotent by key, and a newer answer replaces the older one without erasing it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, bindparam, insert, select, tuple_, update

from musicrl.feedback.ids import uuid7
from musicrl.feedback.records import ConflictError

_CHUNK = 500  # values in one statement; far below the limit of every database

T = TypeVar("T")


@dataclass(frozen=True)
class Appended:
    """Where an answer ended up: its id, its time in microseconds since 1970 (UTC), and the answer it replaced."""

    id: str
    server_time_us: int
    supersedes: str | None


def append(
    connection: Connection, table: Table, subject: Sequence[str], answers: Sequence[Mapping[str, Any]]
) -> list[Appended]:
    """Write answers in order; of one subject only the last stays current.

    Args:
        connection: inside a write transaction.
        table: `schema.vote` or `schema.rating`.
        subject: columns that say what is answered by whom; the table has one current row for each.
        answers: column values, with `idempotency_key`.

    Returns:
        One entry per answer. An answer that was stored before under its key gets the entry it got then.

    Raises:
        ConflictError: a key was used before for another answer.
    """
    sums = [_sum(answer) for answer in answers]
    stored = dict(_stored(connection, table, [answer["idempotency_key"] for answer in answers]))
    current = dict(_current(connection, table, subject, [tuple(answer[c] for c in subject) for answer in answers]))
    now = time.time_ns() // 1_000
    batch = _Batch(connection, table)
    outcomes: list[Appended] = []
    for answer, body_sha256 in zip(answers, sums, strict=True):
        key = answer["idempotency_key"]
        if key not in stored:
            about = tuple(answer[column] for column in subject)
            previous = current.get(about)
            if previous in batch.ids:
                batch.flush()
            new = Appended(uuid7(after=previous), now, previous)
            batch.add(new, {**answer, "id": new.id, "body_sha256": body_sha256, "server_time_us": now})
            stored[key] = (body_sha256, new)
            current[about] = new.id
        known_sha256, outcome = stored[key]
        if known_sha256 != body_sha256:
            raise ConflictError(
                f"the key {key!r} was used before for another {table.name}; make a new key for every new {table.name}"
            )
        outcomes.append(outcome)
    batch.flush()
    return outcomes


def in_chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield the distinct values, in their order, in lists short enough for one statement."""
    distinct = list(dict.fromkeys(values))
    for start in range(0, len(distinct), _CHUNK):
        yield distinct[start : start + _CHUNK]


class _Batch:
    """Rows and replacements collected for two statements; the foreign key between them is checked at the commit."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self.ids: set[str] = set()
        self._connection = connection
        self._table = table
        self._rows: list[dict[str, Any]] = []
        self._replaced: list[dict[str, str]] = []

    def add(self, new: Appended, row: dict[str, Any]) -> None:
        self.ids.add(new.id)
        self._rows.append(row)
        if new.supersedes is not None:
            self._replaced.append({"old": new.supersedes, "new": new.id})

    def flush(self) -> None:
        if self._replaced:
            # First: the index of current answers has room for one.
            replace = update(self._table).where(self._table.c.id == bindparam("old"))
            self._connection.execute(replace.values(superseded_by=bindparam("new")), self._replaced)
        if self._rows:
            self._connection.execute(insert(self._table), self._rows)
        self.ids, self._rows, self._replaced = set(), [], []


def _sum(answer: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()


def _stored(connection: Connection, table: Table, keys: list[str]) -> Iterator[tuple[str, tuple[str, Appended]]]:
    older = table.alias()
    columns = (table.c.idempotency_key, table.c.body_sha256, table.c.id, table.c.server_time_us, older.c.id)
    for chunk in in_chunks(keys):
        rows = select(*columns).select_from(table.outerjoin(older, older.c.superseded_by == table.c.id))
        for key, body, identifier, at, supersedes in connection.execute(rows.where(table.c.idempotency_key.in_(chunk))):
            yield key, (body, Appended(identifier, at, supersedes))


def _current(
    connection: Connection, table: Table, subject: Sequence[str], subjects: list[tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], str]]:
    columns = [table.c[name] for name in subject]
    for chunk in in_chunks(subjects):
        rows = select(table.c.id, *columns).where(table.c.superseded_by.is_(None), tuple_(*columns).in_(chunk))
        for identifier, *about in connection.execute(rows):
            yield tuple(about), identifier
