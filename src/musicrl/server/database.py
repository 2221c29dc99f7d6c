"""The page's own tables: pairs being made, and which rater was shown which pair in which order.

They lie in `page.db` beside the preference store and hold nothing a study needs: what was heard and chosen is in the
store.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.exc import DBAPIError

from musicrl.feedback.records import StorageError

_BUSY_SECONDS = 10

metadata = MetaData()

job = Table(
    "job",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("rater_id", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("lease_owner", Text),
    Column("lease_until_us", BigInteger),
    Column("error", Text),
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("finished_us", BigInteger),
    CheckConstraint("state IN ('queued', 'running', 'ready', 'failed')", name="ck_job_state"),
    CheckConstraint("(state = 'running') = (lease_owner IS NOT NULL)", name="ck_job_lease"),
    Index("ix_job_state", "state", "number"),
)

assignment = Table(
    "assignment",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("job.id"), nullable=False, unique=True),
    Column("rater_id", Text, nullable=False),
    Column("pair_id", Text, nullable=False),
    Column("shown_a", Text, nullable=False),
    Column("token_a", Text, nullable=False, unique=True),
    Column("token_b", Text, nullable=False, unique=True),
    Column("duration_s", Float, nullable=False),
    Column("vote_key", Text),
    Column("choice", Text),
    CheckConstraint("shown_a IN ('a', 'b')", name="ck_assignment_shown_a"),
    CheckConstraint("(vote_key IS NULL) = (choice IS NULL)", name="ck_assignment_vote"),
)


class PageDatabase:
    """SQLite connections whose writes are on disk when they return and never interleave, across processes too."""

    def __init__(self, path: Path) -> None:
        """Open the database, or make it.

        Raises:
            StorageError: the file cannot be opened or written.
        """
        self._path = path
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _make_durable)
        with self.write() as connection:
            metadata.create_all(connection)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Generator[Connection]:
        """Yield a connection that sees one consistent state."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def write(self) -> Generator[Connection]:
        """Yield a connection inside a transaction that no other writer shares.

        Raises:
            StorageError: the disk is full or fails, or the file stayed locked; nothing was stored.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Generator[Connection]:
        try:
            with self._engine.connect() as connection, connection.begin():
                connection.exec_driver_sql(begin)
                yield connection
        except DBAPIError as error:
            raise StorageError(
                f"cannot use {self._path}: {error.orig}; nothing was stored, free space or mend the disk"
            ) from error


def _make_durable(connection: Any, _: Any) -> None:
    # The driver would open transactions on its own, and only before some statements; `_transaction` does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
