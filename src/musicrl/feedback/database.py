"""The database under the preference store: durable connections, serialised writes, migrations."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from musicrl.errors import UserError
from musicrl.feedback import schema
from musicrl.feedback.records import StorageError

_BUSY_SECONDS = 30
_URLS = "a sqlite:/// or postgresql+psycopg:// URL"
_ADVISORY_LOCK = 0x6D757369  # "musi": one number that every writer of a PostgreSQL store agrees on


class Database:
    """An engine whose writes are durable when they return and never interleave.

    SQLite: write-ahead log, `synchronous=FULL`, foreign keys on, `BEGIN IMMEDIATE` for writes. PostgreSQL: its
    defaults, and an advisory lock instead of `BEGIN IMMEDIATE`.
    """

    def __init__(self, url: str) -> None:
        """Open the database and bring its schema up to date.

        Args:
            url: SQLAlchemy URL of a SQLite or PostgreSQL database.

        Raises:
            UserError: the URL or the file is not such a database, or a newer musicrl made it.
            StorageError: the database cannot be opened or written.
        """
        try:
            self.engine = create_engine(url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise UserError(f"cannot open the preference store at {_shown(url)}: {error}; give {_URLS}") from error
        if self.engine.dialect.name not in ("sqlite", "postgresql"):
            raise UserError(
                f"cannot keep preferences in {self.engine.dialect.name}, which lacks partial unique indexes or "
                f"deferred foreign keys; give {_URLS}"
            )
        self._name = _shown(url)
        # SQLite lets one writer in at a time; waiting here is fair and cheap, waiting in its busy handler is neither.
        self._turn = threading.Lock()
        if self.engine.dialect.name == "sqlite":
            _make_durable(self.engine)
        self._migrate()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Generator[Connection]:
        """Yield a connection that sees one consistent state."""
        try:
            with self.engine.connect() as connection, connection.begin():
                yield connection
        except DBAPIError as error:
            raise self._translated(error, "read") from error

    @contextmanager
    def write(self) -> Generator[Connection]:
        """Yield a connection inside a transaction that no other writer shares; committed and on disk at the end.

        Raises:
            StorageError: the disk is full or fails, or the database stayed locked; nothing was stored.
        """
        try:
            with (
                self._turn,
                self.engine.connect().execution_options(musicrl_write=True) as connection,
                connection.begin(),
            ):
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
                yield connection
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise self._translated(error, "write") from error

    def _translated(self, error: DBAPIError, action: str) -> StorageError:
        return StorageError(
            f"cannot {action} the preference store {self._name}: {error.orig}; nothing was stored, free space or mend "
            "the disk and send it again"
        )

    def _migrate(self) -> None:
        with self.read() as connection:
            if _revision(connection) == schema.HEAD:
                return
        # Alembic takes 0.2 s to import, so a store that is up to date never does.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        with self.write() as connection:
            revision = _revision(connection)
            if revision is not None and revision not in known:
                raise UserError(
                    f"the preference store {self._name} was written by a newer musicrl (schema {revision}); upgrade "
                    "musicrl to open it"
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def _make_durable(engine: Engine) -> None:
    def on_connect(connection: Any, _: Any) -> None:
        # The driver would open transactions on its own, and only before some statements; `on_begin` does it instead.
        connection.isolation_level = None
        cursor = connection.cursor()
        # busy_timeout first: changing the journal mode needs a lock another process may hold.
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        # Without this, INSERT OR REPLACE deletes rows behind the back of the delete triggers.
        cursor.execute("PRAGMA recursive_triggers = ON")
        cursor.close()

    def on_begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("musicrl_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
