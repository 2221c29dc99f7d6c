"""The guarantees of the store on PostgreSQL: set MUSICRL_TEST_POSTGRES to the URL of an empty database to run these."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from musicrl.feedback import schema
from musicrl.feedback.records import NewClip, NewVote, Rater
from musicrl.feedback.store import PreferenceStore

URL = os.environ.get("MUSICRL_TEST_POSTGRES")
pytestmark = pytest.mark.skipif(URL is None, reason="MUSICRL_TEST_POSTGRES names no database")


def test_the_store_on_postgresql(make_clip: Callable[..., NewClip], tmp_path: Path) -> None:
    with PreferenceStore(tmp_path, URL) as store, PreferenceStore(tmp_path, URL) as other:
        with store._database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        # As long a prompt as is allowed: PostgreSQL could not index its text.
        clips = store.add_clips([make_clip(seed, prompt="x" * 4_096) for seed in (1, 2)])
        pair = store.add_pair(clips[0].id, clips[1].id)
        store.add_rater(Rater("ann", "person"))
        votes = [
            NewVote(pair.id, "ann", "a" if i % 2 else "tie", "a", 1.0, 1.0, f"{i // 2}/{i % 2}") for i in range(20)
        ]
        with ThreadPoolExecutor(8) as pool:
            receipts = list(pool.map(lambda i: (store, other)[i % 2].vote(votes[i % 20]), range(40)))
        history = store.vote_history(pair.id, "ann")
        assert len(set(receipts)) == len(history) == 20
        assert [vote.is_current for vote in history] == [False] * 19 + [True]
        for statement in ("UPDATE vote SET choice = 'b'", "DELETE FROM vote", "UPDATE vote SET superseded_by = NULL"):
            with pytest.raises(DBAPIError, match="append-only"), store._database.engine.begin() as connection:
                connection.execute(text(statement))
        assert len(list(store.pairs_for_training())) == 1
