"""Which rater was shown which pair, in which order and under which addresses."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, insert, or_, select, update

from musicrl.feedback.records import Choice, Pair, Side
from musicrl.server.database import PageDatabase, assignment

_SWAPPED: Mapping[Choice, Choice] = {"a": "b", "b": "a"}


@dataclass(frozen=True)
class Assignment:
    """A pair as one rater sees it.

    Attributes:
        id: 128 random bits.
        pair_id: the pair in the preference store.
        shown_a: which clip of the stored pair the page calls A.
        token_a: 128 random bits, the address of the clip that the page calls A.
        token_b: likewise for B.
        duration_s: seconds of each clip.
        vote_key: idempotency key of the vote, None before it.
        choice: what was chosen, in the page's letters.
    """

    id: str
    job_id: str
    rater_id: str
    pair_id: str
    shown_a: Side
    token_a: str
    token_b: str
    duration_s: float
    vote_key: str | None
    choice: Choice | None

    def stored(self, choice: Choice) -> Choice:
        """Return a choice in the letters of the stored pair, given one in the page's letters (or the reverse)."""
        return choice if self.shown_a == "a" else _SWAPPED.get(choice, choice)


class Assignments:
    """The assignments, in the page's database."""

    def __init__(self, database: PageDatabase) -> None:
        """Work on this database."""
        self._database = database

    @staticmethod
    def add(connection: Connection, job_id: str, rater_id: str, pair: Pair, duration_s: float) -> None:
        """Assign a pair to a rater inside the caller's transaction, in an order drawn by chance."""
        connection.execute(
            insert(assignment).values(
                id=secrets.token_urlsafe(16),
                job_id=job_id,
                rater_id=rater_id,
                pair_id=pair.id,
                shown_a=secrets.choice(("a", "b")),
                token_a=secrets.token_urlsafe(16),
                token_b=secrets.token_urlsafe(16),
                duration_s=duration_s,
            )
        )

    def of_job(self, job_id: str, rater_id: str) -> Assignment | None:
        """Return the assignment that came out of a rater's job."""
        return self._one(assignment.c.job_id == job_id, rater_id)

    def find(self, identifier: str, rater_id: str) -> Assignment | None:
        """Return a rater's assignment, None if there is none or it is another rater's."""
        return self._one(assignment.c.id == identifier, rater_id)

    def of_token(self, token: str, rater_id: str) -> Assignment | None:
        """Return a rater's assignment by the address of one of its clips."""
        return self._one(or_(assignment.c.token_a == token, assignment.c.token_b == token), rater_id)

    def mark_voted(self, identifier: str, key: str, choice: Choice) -> None:
        """Remember which vote the store holds for this assignment.

        Raises:
            StorageError: the disk refused.
        """
        with self._database.write() as connection:
            connection.execute(
                update(assignment).where(assignment.c.id == identifier).values(vote_key=key, choice=choice)
            )

    def _one(self, condition: ColumnElement[bool], rater_id: str) -> Assignment | None:
        columns = select(*(assignment.c[name] for name in Assignment.__dataclass_fields__))
        with self._database.read() as connection:
            row = (
                connection.execute(columns.where(condition, assignment.c.rater_id == rater_id)).mappings().one_or_none()
            )
        return None if row is None else Assignment(**row)
