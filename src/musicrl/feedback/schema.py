"""The tables of the preference store. Migrations create them; a test keeps both equal.

Facts are written once: triggers refuse every UPDATE and DELETE, with one exception. `superseded_by` of a vote or
rating may be set once, and the deferred foreign key makes the commit fail unless the answer that replaces it is there.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

HEAD = "0001"
"""Revision of the schema this package reads and writes (the newest file in `migrations/versions`)."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

prompt = Table(
    "prompt",
    metadata,
    Column("id", Text, primary_key=True),
    Column("text", Text, nullable=False),
    # The hash is unique in place of the text: PostgreSQL indexes no text beyond 2.7 kB.
    Column("sha256", Text, nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    CheckConstraint("length(text) > 0", name="not_empty"),
)

clip = Table(
    "clip",
    metadata,
    Column("id", Text, primary_key=True),
    Column("prompt_id", Text, ForeignKey("prompt.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("checkpoint_sha256", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("sampler", Text, nullable=False),
    Column("audio_sha256", Text, nullable=False),
    Column("codes_sha256", Text),
    Column("sample_rate", Integer, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("lufs", Float),
    Column("gain_db", Float, nullable=False),
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("id", "prompt_id"),
    CheckConstraint("duration_s > 0", name="has_sound"),
)

pair = Table(
    "pair",
    metadata,
    Column("id", Text, primary_key=True),
    Column("prompt_id", Text, nullable=False),
    Column("clip_a", Text, nullable=False),
    Column("clip_b", Text, nullable=False),
    # The two clip ids in sorted order: (x, y) and (y, x) are one comparison.
    Column("clips", Text, nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    # Both clips must answer the pair's own prompt.
    ForeignKeyConstraint(["clip_a", "prompt_id"], ["clip.id", "clip.prompt_id"]),
    ForeignKeyConstraint(["clip_b", "prompt_id"], ["clip.id", "clip.prompt_id"]),
    CheckConstraint("clip_a <> clip_b", name="two_clips"),
)

rater = Table(
    "rater",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    CheckConstraint("kind IN ('person', 'simulated')", name="kind"),
)

vote = Table(
    "vote",
    metadata,
    Column("id", Text, primary_key=True),
    Column("pair_id", Text, ForeignKey("pair.id"), nullable=False),
    Column("rater_id", Text, ForeignKey("rater.id"), nullable=False),
    Column("choice", Text, nullable=False),
    Column("presented_first", Text, nullable=False),
    Column("heard_a_seconds", Float, nullable=False),
    Column("heard_b_seconds", Float, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("body_sha256", Text, nullable=False),
    Column("server_time_us", BigInteger, nullable=False),
    Column("superseded_by", Text, unique=True),
    UniqueConstraint("id", "pair_id", "rater_id"),
    ForeignKeyConstraint(
        ["superseded_by", "pair_id", "rater_id"],
        ["vote.id", "vote.pair_id", "vote.rater_id"],
        deferrable=True,
        initially="DEFERRED",
    ),
    CheckConstraint("choice IN ('a', 'b', 'tie', 'both_bad', 'cannot_play')", name="choice"),
    CheckConstraint("presented_first IN ('a', 'b')", name="presented_first"),
    CheckConstraint("heard_a_seconds >= 0 AND heard_b_seconds >= 0", name="heard"),
    # Ids rise with time, so a chain of replacements cannot close into a ring without a current vote.
    CheckConstraint("superseded_by > id", name="replaced_later"),
    Index(
        "uq_vote_current",
        "pair_id",
        "rater_id",
        unique=True,
        sqlite_where=text("superseded_by IS NULL"),
        postgresql_where=text("superseded_by IS NULL"),
    ),
)

rating = Table(
    "rating",
    metadata,
    Column("id", Text, primary_key=True),
    Column("clip_id", Text, ForeignKey("clip.id"), nullable=False),
    Column("rater_id", Text, ForeignKey("rater.id"), nullable=False),
    Column("axis", Text, nullable=False),
    Column("value", Integer, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("body_sha256", Text, nullable=False),
    Column("server_time_us", BigInteger, nullable=False),
    Column("superseded_by", Text, unique=True),
    UniqueConstraint("id", "clip_id", "rater_id", "axis"),
    ForeignKeyConstraint(
        ["superseded_by", "clip_id", "rater_id", "axis"],
        ["rating.id", "rating.clip_id", "rating.rater_id", "rating.axis"],
        deferrable=True,
        initially="DEFERRED",
    ),
    CheckConstraint("axis IN ('quality', 'adherence', 'appeal')", name="axis"),
    CheckConstraint("value BETWEEN 1 AND 5", name="value"),
    CheckConstraint("superseded_by > id", name="replaced_later"),
    Index(
        "uq_rating_current",
        "clip_id",
        "rater_id",
        "axis",
        unique=True,
        sqlite_where=text("superseded_by IS NULL"),
        postgresql_where=text("superseded_by IS NULL"),
    ),
)
