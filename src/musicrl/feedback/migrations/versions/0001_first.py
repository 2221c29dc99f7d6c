"""The first schema: prompts, clips, pairs, raters, votes, ratings; all of them append-only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_CURRENT = sa.text("superseded_by IS NULL")


def upgrade() -> None:
    """Create the tables and the triggers that keep their rows as they were written."""
    _create_things_heard()
    _create_answers()
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        op.execute(
            "CREATE FUNCTION musicrl_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
    for table in ("prompt", "clip", "pair", "rater"):
        _refuse(table, "no_delete", "BEFORE DELETE")
        _refuse(table, "no_change", "BEFORE UPDATE")
    answer = ("id", "rater_id", "idempotency_key", "body_sha256", "server_time_us")
    vote = (*answer, "pair_id", "choice", "presented_first", "heard_a_seconds", "heard_b_seconds")
    for table, facts in {"vote": vote, "rating": (*answer, "clip_id", "axis", "value")}.items():
        differs = "IS NOT" if dialect == "sqlite" else "IS DISTINCT FROM"
        changed = " OR ".join(f"OLD.{column} {differs} NEW.{column}" for column in facts)
        _refuse(table, "no_delete", "BEFORE DELETE")
        _refuse(table, "starts_current", "BEFORE INSERT", "NEW.superseded_by IS NOT NULL")
        # The one change allowed: a current answer is marked as replaced, once.
        _refuse(
            table,
            "no_change",
            "BEFORE UPDATE",
            f"OLD.superseded_by IS NOT NULL OR NEW.superseded_by IS NULL OR {changed}",
        )


def _refuse(table: str, name: str, moment: str, when: str | None = None) -> None:
    condition = f" WHEN ({when})" if when else ""
    if op.get_bind().dialect.name == "postgresql":
        body = "EXECUTE FUNCTION musicrl_append_only()"
    else:
        body = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    op.execute(f"CREATE TRIGGER {table}_{name} {moment} ON {table} FOR EACH ROW{condition} {body}")


def _create_things_heard() -> None:
    op.create_table(
        "prompt",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False, unique=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.CheckConstraint("length(text) > 0", name="not_empty"),
    )
    op.create_table(
        "clip",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("prompt_id", sa.Text, sa.ForeignKey("prompt.id"), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("checkpoint_sha256", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("sampler", sa.Text, nullable=False),
        sa.Column("audio_sha256", sa.Text, nullable=False),
        sa.Column("codes_sha256", sa.Text),
        sa.Column("sample_rate", sa.Integer, nullable=False),
        sa.Column("duration_s", sa.Float, nullable=False),
        sa.Column("lufs", sa.Float),
        sa.Column("gain_db", sa.Float, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False, unique=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("id", "prompt_id"),
        sa.CheckConstraint("duration_s > 0", name="has_sound"),
    )
    op.create_table(
        "pair",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("prompt_id", sa.Text, nullable=False),
        sa.Column("clip_a", sa.Text, nullable=False),
        sa.Column("clip_b", sa.Text, nullable=False),
        sa.Column("clips", sa.Text, nullable=False, unique=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["clip_a", "prompt_id"], ["clip.id", "clip.prompt_id"]),
        sa.ForeignKeyConstraint(["clip_b", "prompt_id"], ["clip.id", "clip.prompt_id"]),
        sa.CheckConstraint("clip_a <> clip_b", name="two_clips"),
    )
    op.create_table(
        "rater",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.CheckConstraint("kind IN ('person', 'simulated')", name="kind"),
    )


def _create_answers() -> None:
    op.create_table(
        "vote",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("pair_id", sa.Text, sa.ForeignKey("pair.id"), nullable=False),
        sa.Column("rater_id", sa.Text, sa.ForeignKey("rater.id"), nullable=False),
        sa.Column("choice", sa.Text, nullable=False),
        sa.Column("presented_first", sa.Text, nullable=False),
        sa.Column("heard_a_seconds", sa.Float, nullable=False),
        sa.Column("heard_b_seconds", sa.Float, nullable=False),
        sa.Column("idempotency_key", sa.Text, nullable=False, unique=True),
        sa.Column("body_sha256", sa.Text, nullable=False),
        sa.Column("server_time_us", sa.BigInteger, nullable=False),
        sa.Column("superseded_by", sa.Text, unique=True),
        sa.UniqueConstraint("id", "pair_id", "rater_id"),
        sa.ForeignKeyConstraint(
            ["superseded_by", "pair_id", "rater_id"],
            ["vote.id", "vote.pair_id", "vote.rater_id"],
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.CheckConstraint("choice IN ('a', 'b', 'tie', 'both_bad', 'cannot_play')", name="choice"),
        sa.CheckConstraint("presented_first IN ('a', 'b')", name="presented_first"),
        sa.CheckConstraint("heard_a_seconds >= 0 AND heard_b_seconds >= 0", name="heard"),
        sa.CheckConstraint("superseded_by > id", name="replaced_later"),
    )
    op.create_index(
        "uq_vote_current",
        "vote",
        ["pair_id", "rater_id"],
        unique=True,
        sqlite_where=_CURRENT,
        postgresql_where=_CURRENT,
    )
    op.create_table(
        "rating",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("clip_id", sa.Text, sa.ForeignKey("clip.id"), nullable=False),
        sa.Column("rater_id", sa.Text, sa.ForeignKey("rater.id"), nullable=False),
        sa.Column("axis", sa.Text, nullable=False),
        sa.Column("value", sa.Integer, nullable=False),
        sa.Column("idempotency_key", sa.Text, nullable=False, unique=True),
        sa.Column("body_sha256", sa.Text, nullable=False),
        sa.Column("server_time_us", sa.BigInteger, nullable=False),
        sa.Column("superseded_by", sa.Text, unique=True),
        sa.UniqueConstraint("id", "clip_id", "rater_id", "axis"),
        sa.ForeignKeyConstraint(
            ["superseded_by", "clip_id", "rater_id", "axis"],
            ["rating.id", "rating.clip_id", "rating.rater_id", "rating.axis"],
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.CheckConstraint("axis IN ('quality', 'adherence', 'appeal')", name="axis"),
        sa.CheckConstraint("value BETWEEN 1 AND 5", name="value"),
        sa.CheckConstraint("superseded_by > id", name="replaced_later"),
    )
    op.create_index(
        "uq_rating_current",
        "rating",
        ["clip_id", "rater_id", "axis"],
        unique=True,
        sqlite_where=_CURRENT,
        postgresql_where=_CURRENT,
    )
