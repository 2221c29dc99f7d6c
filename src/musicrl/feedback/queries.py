"""The questions the preference store asks its database, and the records made of the answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable, FromClause, Table, select

from musicrl.feedback import schema
from musicrl.feedback.answers import in_chunks
from musicrl.feedback.records import Clip, Pair, Rater, Rating, Vote

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLIP = ("id", "model", "checkpoint_sha256", "seed", "sampler", "audio_sha256", "codes_sha256")
_SOUND = ("sample_rate", "duration_s", "lufs", "gain_db")
_ROWS_AT_ONCE = 1_000


def time_of(microseconds: int) -> datetime:
    """Return the UTC time of a number of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def clips(connection: Connection, column: str, values: Iterable[str]) -> dict[str, Clip]:
    """Return the clips whose `column` is one of `values`, by that value."""
    query = select(schema.clip.c[column], *_clip_columns(schema.clip, schema.prompt)).join_from(
        schema.clip, schema.prompt, schema.clip.c.prompt_id == schema.prompt.c.id
    )
    return {
        row[0]: _clip(row[1:])
        for chunk in in_chunks(values)
        for row in connection.execute(query.where(schema.clip.c[column].in_(chunk)))
    }


def pairs(connection: Connection, column: str, values: Iterable[str]) -> dict[str, Pair]:
    """Return the pairs whose `column` is one of `values`, by that value."""
    pair, prompt = schema.pair, schema.prompt
    query = select(pair.c[column], pair.c.id, prompt.c.text, pair.c.clip_a, pair.c.clip_b).join_from(
        pair, prompt, pair.c.prompt_id == prompt.c.id
    )
    return {
        row[0]: Pair(*row[1:])
        for chunk in in_chunks(values)
        for row in connection.execute(query.where(pair.c[column].in_(chunk)))
    }


def lookup(connection: Connection, table: Table, key: str, value: str, keys: Iterable[str]) -> dict[str, Any]:
    """Return column `value` by column `key` for the rows of a table whose key is one of `keys`."""
    return {
        row[0]: row[1]
        for chunk in in_chunks(keys)
        for row in connection.execute(select(table.c[key], table.c[value]).where(table.c[key].in_(chunk)))
    }


def votes(connection: Connection, *conditions: ColumnElement[bool]) -> Iterator[Vote]:
    """Yield votes that meet the conditions on `schema.vote`, oldest first."""
    vote, pair, prompt, rater = schema.vote, schema.pair, schema.prompt, schema.rater
    a, b = schema.clip.alias("a"), schema.clip.alias("b")
    own = (vote.c.id, vote.c.pair_id, vote.c.choice, vote.c.presented_first, vote.c.heard_a_seconds)
    rest = (vote.c.heard_b_seconds, vote.c.server_time_us, vote.c.superseded_by, rater.c.id, rater.c.kind)
    query = (
        select(*own, *rest, *_clip_columns(a, prompt), *_clip_columns(b, prompt))
        .select_from(vote)
        .join(pair, vote.c.pair_id == pair.c.id)
        .join(prompt, pair.c.prompt_id == prompt.c.id)
        .join(a, pair.c.clip_a == a.c.id)
        .join(b, pair.c.clip_b == b.c.id)
        .join(rater, vote.c.rater_id == rater.c.id)
        .where(*conditions)
    )
    width = len(_CLIP) + len(_SOUND) + 1
    for row in _rows(connection, query.order_by(vote.c.id)):
        identifier, pair_id, choice, first, heard_a, heard_b, at, later, rater_id, kind = row[:10]
        yield Vote(
            id=identifier,
            pair_id=pair_id,
            clip_a=_clip(row[10 : 10 + width]),
            clip_b=_clip(row[10 + width :]),
            rater=Rater(rater_id, kind),
            choice=choice,
            presented_first=first,
            heard_a_seconds=heard_a,
            heard_b_seconds=heard_b,
            server_time=time_of(at),
            superseded_by=later,
        )


def current_ratings(connection: Connection) -> Iterator[Rating]:
    """Yield the current ratings, oldest first."""
    rating, clip, prompt, rater = schema.rating, schema.clip, schema.prompt, schema.rater
    own = (rating.c.id, rating.c.axis, rating.c.value, rating.c.server_time_us, rater.c.id, rater.c.kind)
    query = (
        select(*own, *_clip_columns(clip, prompt))
        .select_from(rating)
        .join(clip, rating.c.clip_id == clip.c.id)
        .join(prompt, clip.c.prompt_id == prompt.c.id)
        .join(rater, rating.c.rater_id == rater.c.id)
        .where(rating.c.superseded_by.is_(None))
    )
    for row in _rows(connection, query.order_by(rating.c.id)):
        identifier, axis, value, at, rater_id, kind = row[:6]
        yield Rating(identifier, _clip(row[6:]), Rater(rater_id, kind), axis, value, time_of(at))


def _clip_columns(clip: FromClause, prompt: FromClause) -> list[ColumnElement[Any]]:
    return [prompt.c.text, *(clip.c[name] for name in (*_CLIP, *_SOUND))]


def _clip(values: Sequence[Any]) -> Clip:
    prompt, identifier, model, checkpoint, seed, sampler, *rest = values
    return Clip(identifier, prompt, model, checkpoint, seed, json.loads(sampler), *rest)


def _rows(connection: Connection, query: Executable) -> Iterator[tuple[Any, ...]]:
    for row in connection.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)):
        yield tuple(row)
