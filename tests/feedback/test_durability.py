from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from musicrl import files
from musicrl.feedback.records import NewClip, NewVote, Pair, StorageError
from musicrl.feedback.store import PreferenceStore

MakePair = Callable[..., Pair]
MakeVote = Callable[..., NewVote]
MakeClip = Callable[..., NewClip]

VOTER = Path(__file__).with_name("voter.py")


def keys_in(folder: Path) -> list[str]:
    database = sqlite3.connect(folder / "preferences.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    keys = [row[0] for row in database.execute("SELECT idempotency_key FROM vote ORDER BY id")]
    current = database.execute("SELECT count(*) FROM vote WHERE superseded_by IS NULL").fetchone()[0]
    assert current == (1 if keys else 0), "all these votes are one rater's on one pair"
    database.close()
    return keys


def test_no_acknowledged_vote_is_lost_when_the_voter_is_killed(store: PreferenceStore, make_pair: MakePair) -> None:
    pair = make_pair()
    moments = random.Random(0)
    acknowledged: list[str] = []
    for life in range(10):
        command = [sys.executable, str(VOTER), str(store.folder), pair.id, "ann", f"life{life}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as voter:
            assert voter.stdout is not None
            # Killed after some number of votes and then at no particular moment of the next one.
            for _ in range(moments.randrange(1, 12)):
                acknowledged.append(voter.stdout.readline().strip())
            voter.kill()
            acknowledged += voter.stdout.read().split()
    stored = keys_in(store.folder)
    assert len(stored) == len(set(stored))
    assert len(acknowledged) >= 10 and set(acknowledged) <= set(stored)
    assert len(stored) <= len(acknowledged) + 10, "at most the vote in flight may be there without its receipt"
    assert len(store.vote_history(pair.id, "ann")) == len(stored)


def test_a_write_the_disk_refuses_is_not_acknowledged(store: PreferenceStore, make_pair: MakePair) -> None:
    pair = make_pair()
    store.close()
    size = max(path.stat().st_size for path in store.folder.iterdir() if path.is_file())
    command = [sys.executable, str(VOTER), str(store.folder), pair.id, "ann", "k", str(size + 100_000)]
    *acknowledged, refusal = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert refusal.startswith("refused") and "nothing was stored" in refusal
    assert keys_in(store.folder) == acknowledged != []


def test_a_full_database_refuses_and_recovers(store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote) -> None:
    pair = make_pair()
    engine = store._database.engine
    engine.dispose()
    full = True

    def limit(connection: Any, *_: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2 if full else 1_000_000}")

    event.listen(engine, "connect", limit)
    votes = [make_vote(pair) for _ in range(200)]
    receipts = []
    with pytest.raises(StorageError, match="full"):
        for vote in votes:
            receipts.append(store.vote(vote))
    assert 0 < len(receipts) < 200
    assert [vote.id for vote in store.vote_history(pair.id, "ann")] == [receipt.vote_id for receipt in receipts]
    with pytest.raises(StorageError):
        store.vote_many(votes)
    full = False
    engine.dispose()
    again = store.vote_many(votes)
    assert again[: len(receipts)] == receipts
    assert len(store.vote_history(pair.id, "ann")) == 200


@pytest.mark.parametrize("call", ["write_bytes", "replace", "fsync"])
def test_a_clip_the_disk_refuses_is_not_there(
    store: PreferenceStore, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files if call == "write_bytes" else os, call, refuse)
        with pytest.raises(StorageError, match="No space left"):
            store.add_clip(make_clip(1))
    assert not [path for path in store.folder.rglob("*.tmp")]
    clip = store.add_clip(make_clip(1))
    assert store.codes(clip) is not None


def test_threads_leave_one_current_vote(store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote) -> None:
    pair = make_pair()
    votes = [make_vote(pair, choice=choice) for choice in ("a", "b", "tie") * 8]
    # A second store has its own lock, as another process has.
    with PreferenceStore(store.folder) as other, ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda i: (store, other)[i % 2].vote(votes[i]), range(len(votes))))
    history = store.vote_history(pair.id, "ann")
    assert [vote.is_current for vote in history] == [False] * 23 + [True]
    chain = {receipt.supersedes: receipt.vote_id for receipt in receipts}
    assert len(chain) == 24, "every vote replaces another one"
    assert [vote.id for vote in history] == list(_follow(chain))


def _follow(chain: dict[str | None, str]) -> list[str]:
    found: list[str] = []
    while (found[-1] if found else None) in chain:
        found.append(chain[found[-1] if found else None])
    return found


def test_threads_with_one_key_store_one_vote(store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote) -> None:
    vote = make_vote(make_pair())
    with PreferenceStore(store.folder) as other, ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda i: (store, other)[i % 2].vote(vote), range(16)))
    assert len(set(receipts)) == 1
    assert len(store.vote_history(vote.pair_id, "ann")) == 1


def test_threads_may_open_a_new_store_together(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: PreferenceStore(tmp_path / "new"), range(4)))
    for store in stores:
        assert list(store.current_votes()) == []
        store.close()
