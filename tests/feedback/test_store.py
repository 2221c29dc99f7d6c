from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from musicrl.errors import UserError
from musicrl.feedback import schema
from musicrl.feedback.database import Database
from musicrl.feedback.records import (
    CHOICES,
    ConflictError,
    NewClip,
    NewRating,
    NewVote,
    Pair,
    Rater,
    VoteReceipt,
)
from musicrl.feedback.store import PreferenceStore

MakePair = Callable[..., Pair]
MakeVote = Callable[..., NewVote]
MakeClip = Callable[..., NewClip]


def test_a_clip_comes_back_as_it_was_stored(store: PreferenceStore, make_clip: MakeClip) -> None:
    new = make_clip(7, prompt="  cafe\u0301 jazz ")
    clip = store.add_clip(new)
    assert clip.prompt == "caf\u00e9 jazz"
    assert (clip.model, clip.seed, clip.sampler) == ("base", 7, {"temperature": 1.0, "top_k": None})
    assert (clip.duration_s, clip.lufs, clip.gain_db) == (0.05, -18.0, 1.5)
    assert store.clip(clip.id) == clip
    codes = store.codes(clip)
    assert codes is not None and codes.dtype == np.int64 and new.codes is not None
    np.testing.assert_array_equal(codes, new.codes)
    audio, rate = soundfile.read(store.audio_path(clip))
    assert rate == 8_000
    np.testing.assert_allclose(audio, new.audio, atol=1 / 32_000)
    assert store.audio_path(clip).stem == clip.audio_sha256


def test_the_same_clip_is_stored_once(store: PreferenceStore, make_clip: MakeClip) -> None:
    first = store.add_clips([make_clip(1), make_clip(1), make_clip(2)])
    assert first[0] == first[1] != first[2]
    assert store.add_clip(make_clip(1)) == first[0]
    assert store.add_clip(replace(make_clip(1), model="r")) != first[0]
    assert len(list((store.folder / "audio").iterdir())) == 2


def test_damaged_content_is_noticed(store: PreferenceStore, make_clip: MakeClip) -> None:
    clip = store.add_clip(make_clip(1))
    path = store.codes_path(clip)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="damaged"):
        store.codes(clip)
    path.unlink()
    with pytest.raises(UserError, match="backup"):
        store.codes(clip)


@pytest.mark.parametrize("prompt", ["", "   ", "x" * 10_000, "nul \0", "half a \ud800 pair"])
def test_prompts_that_cannot_be_stored(store: PreferenceStore, make_clip: MakeClip, prompt: str) -> None:
    with pytest.raises(UserError, match="cannot store a prompt"):
        store.add_clip(make_clip(1, prompt=prompt))


@pytest.mark.parametrize(
    "change",
    [
        {"audio": np.zeros(0)},
        {"audio": np.array([0.0, np.nan])},
        {"audio": np.zeros((2, 100))},
        {"codes": np.zeros((2, 3))},
        {"codes": np.zeros(3, dtype=np.int64)},
        {"codes": np.array([[-1]])},
    ],
)
def test_clips_that_cannot_be_stored(store: PreferenceStore, make_clip: MakeClip, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="cannot store"):
        store.add_clip(replace(make_clip(1), **change))


def test_pairs(store: PreferenceStore, make_clip: MakeClip) -> None:
    a, b, other = store.add_clips([make_clip(1), make_clip(2), make_clip(3, prompt="a fast reel")])
    pair = store.add_pair(a.id, b.id)
    assert (pair.clip_a, pair.clip_b, pair.prompt) == (a.id, b.id, "a slow waltz")
    assert store.add_pairs([(a.id, b.id), (a.id, b.id)]) == [pair, pair]
    assert store.pair(pair.id) == pair
    with pytest.raises(ConflictError, match="other way round"):
        store.add_pair(b.id, a.id)
    with pytest.raises(UserError, match="itself"):
        store.add_pair(a.id, a.id)
    with pytest.raises(UserError, match="different prompts"):
        store.add_pair(a.id, other.id)
    with pytest.raises(UserError, match="no such clip"):
        store.add_pair(a.id, "nothing")


def test_a_rater_keeps_its_kind(store: PreferenceStore) -> None:
    store.add_rater(Rater("ann", "person"))
    with pytest.raises(ConflictError, match="person"):
        store.add_rater(Rater("ann", "simulated"))
    with pytest.raises(ConflictError, match="new"):
        store.add_raters([Rater("new", "person"), Rater("new", "simulated")])


def test_a_vote_is_idempotent(store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote) -> None:
    vote = make_vote(make_pair())
    receipt = store.vote(vote)
    assert store.vote(vote) == receipt
    assert store.vote_many([vote, vote]) == [receipt, receipt]
    assert len(list(store.current_votes())) == 1
    with pytest.raises(ConflictError, match="key"):
        store.vote(replace(vote, choice="b"))
    with pytest.raises(ConflictError, match="key"):
        store.vote(replace(vote, heard_a_seconds=4.0))


def test_a_newer_vote_replaces_and_history_stays(
    store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote
) -> None:
    pair = make_pair()
    first, second = make_vote(pair, choice="a"), make_vote(pair, choice="tie")
    one, two = store.vote(first), store.vote(second)
    assert (one.supersedes, two.supersedes) == (None, one.vote_id)
    assert [vote.choice for vote in store.vote_history(pair.id, "ann")] == ["a", "tie"]
    assert [vote.is_current for vote in store.vote_history(pair.id, "ann")] == [False, True]
    assert [vote.id for vote in store.current_votes()] == [two.vote_id]
    assert store.vote(first) == one, "a late repeat must not bring the old vote back"
    assert [vote.id for vote in store.current_votes()] == [two.vote_id]


def test_bulk_votes_replace_within_the_batch(store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote) -> None:
    one, two = make_pair(), make_pair()
    store.vote(make_vote(one, choice="b"))
    votes = [make_vote(one, choice="a"), make_vote(two), make_vote(one, choice="tie"), make_vote(one, choice="b")]
    receipts = store.vote_many(votes)
    assert [receipt.supersedes for receipt in receipts[2:]] == [receipts[0].vote_id, receipts[2].vote_id]
    assert [vote.choice for vote in store.vote_history(one.id, "ann")] == ["b", "a", "tie", "b"]
    assert {vote.id for vote in store.current_votes()} == {receipts[1].vote_id, receipts[3].vote_id}


def test_a_batch_is_stored_whole_or_not_at_all(
    store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote
) -> None:
    pair = make_pair()
    good = make_vote(pair)
    with pytest.raises(UserError, match="no rater"):
        store.vote_many([good, make_vote(pair, rater="nobody")])
    with pytest.raises(UserError, match="no pair"):
        store.vote_many([good, replace(good, pair_id="nothing", key="other")])
    with pytest.raises(ConflictError):
        store.vote_many([good, replace(good, choice="b")])
    assert not list(store.current_votes())


@pytest.mark.parametrize(
    "change",
    [
        {"choice": "c"},
        {"presented_first": "left"},
        {"heard_a_seconds": -1.0},
        {"heard_b_seconds": float("nan")},
        {"key": ""},
        {"key": "k" * 201},
    ],
)
def test_votes_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        replace(NewVote("pair", "ann", "a", "a", 1.0, 1.0, "key"), **change)


def test_ratings(store: PreferenceStore, make_clip: MakeClip) -> None:
    clip = store.add_clip(make_clip(1))
    first = store.rate(NewRating(clip.id, "ann", "quality", 2, "1"))
    assert store.rate(NewRating(clip.id, "ann", "quality", 2, "1")) == first
    second = store.rate(NewRating(clip.id, "ann", "quality", 4, "2"))
    assert second.supersedes == first.rating_id
    store.rate_many([NewRating(clip.id, "ann", "appeal", 5, "3"), NewRating(clip.id, "sim", "quality", 1, "4")])
    found = [(rating.rater.id, rating.axis, rating.value) for rating in store.current_ratings()]
    assert found == [("ann", "quality", 4), ("ann", "appeal", 5), ("sim", "quality", 1)]
    training = list(store.ratings_for_training())
    assert [row["value"] for row in training] == [4, 5, 1]
    assert Path(training[0]["audio"]).is_file() and training[2]["rater_kind"] == "simulated"
    with pytest.raises(ConflictError):
        store.rate(NewRating(clip.id, "ann", "quality", 3, "2"))
    for axis, value in (("beauty", 3), ("quality", 0), ("quality", 6)):
        with pytest.raises(UserError):
            NewRating(clip.id, "ann", axis, value, "5")  # type: ignore[arg-type]


def test_pairs_for_training(store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote) -> None:
    for choice in CHOICES:
        store.vote(make_vote(make_pair(prompt=choice), rater="sim", choice=choice))
    store.vote(make_vote(make_pair(prompt="not heard"), heard=0.0))
    rows = list(store.pairs_for_training())
    assert {row["prompt"]: row["label"] for row in rows} == {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
    assert rows[0]["codes_a"].shape == rows[0]["codes_b"].shape == (2, 3)
    assert (rows[0]["codes_a"] != rows[0]["codes_b"]).any()
    assert (rows[0]["rater"], rows[0]["rater_kind"]) == ("sim", "simulated")


def test_pairs_without_codes_are_no_training_data(
    store: PreferenceStore, make_clip: MakeClip, make_vote: MakeVote
) -> None:
    a, b = store.add_clips([replace(make_clip(seed), codes=None) for seed in (1, 2)])
    store.vote(make_vote(store.add_pair(a.id, b.id)))
    assert not list(store.pairs_for_training())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE vote SET choice = 'b'",
        "UPDATE vote SET heard_a_seconds = 99",
        "UPDATE vote SET server_time_us = 0",
        "UPDATE vote SET superseded_by = NULL WHERE superseded_by IS NOT NULL",
        "UPDATE vote SET superseded_by = id WHERE superseded_by IS NULL",
        "DELETE FROM vote",
        "INSERT OR REPLACE INTO vote SELECT * FROM vote",
        "INSERT INTO vote SELECT 'z', pair_id, rater_id, 'a', 'a', 1, 1, 'z', 'z', 1, NULL FROM vote LIMIT 1",
        "INSERT INTO vote SELECT 'z', pair_id, 'sim', 'c', 'a', 1, 1, 'z', 'z', 1, NULL FROM vote LIMIT 1",
        "UPDATE rating SET value = 5",
        "DELETE FROM rating",
        "UPDATE clip SET model = 'r'",
        "DELETE FROM clip",
        "UPDATE pair SET clip_a = clip_b",
        "UPDATE prompt SET text = 'other'",
        "UPDATE rater SET kind = 'person'",
    ],
)
def test_the_database_refuses_to_change_facts(
    store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote, statement: str
) -> None:
    pair = make_pair()
    for choice in ("a", "tie"):
        store.vote(make_vote(pair, choice=choice))
    store.rate(NewRating(pair.clip_a, "ann", "quality", 2, "1"))
    before = store.vote_history(pair.id, "ann")
    # A foreign tool, with SQLite's own defaults except one: a delete hidden in REPLACE fires triggers only with it.
    other = sqlite3.connect(store.folder / "preferences.db")
    other.execute("PRAGMA recursive_triggers = ON")
    with pytest.raises(sqlite3.IntegrityError):
        other.execute(statement)
    other.close()
    assert store.vote_history(pair.id, "ann") == before


def test_a_vote_is_current_until_its_replacement_is_stored(
    store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote
) -> None:
    store.vote(make_vote(make_pair()))
    other = sqlite3.connect(store.folder / "preferences.db")
    other.execute("PRAGMA foreign_keys = ON")
    other.execute("UPDATE vote SET superseded_by = 'zzz'")
    with pytest.raises(sqlite3.IntegrityError):
        other.commit()
    other.close()


def test_connections_are_durable(store: PreferenceStore, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'store' / 'preferences.db'}")
    with database.read() as connection:
        wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1}
        assert {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted} == wanted
    database.close()


def test_migrations_make_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    tables = "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL ORDER BY name"
    with database.read() as connection:
        migrated = {row[0]: row[1] for row in connection.exec_driver_sql(tables) if row[0] != "alembic_version"}
    database.close()
    created = sqlite3.connect(":memory:")
    engine = create_engine("sqlite://", creator=lambda: created, poolclass=StaticPool)
    schema.metadata.create_all(engine)
    assert migrated == dict(created.execute(tables).fetchall())


def test_a_store_of_a_newer_version_is_left_alone(store: PreferenceStore) -> None:
    path = store.folder / "preferences.db"
    store.close()
    other = sqlite3.connect(path)
    with other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    other.close()
    with pytest.raises(UserError, match="newer musicrl"):
        PreferenceStore(store.folder)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mysql"):
        Database("mysql+nothing://u:secret@host/db")
    with pytest.raises(UserError, match="cannot open"):
        Database("no url")
    (tmp_path / "preferences.db").write_text("this is a text file, long enough for a header " * 100)
    with pytest.raises(UserError, match="not a database"):
        PreferenceStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        PreferenceStore(tmp_path / "file")


def test_the_store_and_the_listeners_need_no_torch() -> None:
    code = (
        "import sys, musicrl.feedback.store, musicrl.feedback.export, musicrl.feedback.listeners, musicrl.audio.facts\n"
        "heavy = {'torch', 'transformers', 'alembic', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class StoreMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, the store equals a dictionary of current votes and a list of all."""

    sent = Bundle("sent")
    template: Path
    pairs: list[Pair]
    folders: Iterator[Path]

    @initialize()
    def open(self) -> None:
        self.folder = next(self.folders)
        shutil.copytree(self.template, self.folder)
        self.store = PreferenceStore(self.folder)
        self.current: dict[tuple[str, str], str] = {}
        self.history: dict[tuple[str, str], list[str]] = {}
        self.receipts: dict[str, VoteReceipt] = {}

    @rule(
        target=sent,
        pair=st.integers(0, 1),
        rater=st.sampled_from(["ann", "sim"]),
        choices=st.lists(st.sampled_from(CHOICES), min_size=1, max_size=3),
    )
    def votes(self, pair: int, rater: str, choices: list[Any]) -> NewVote:
        start = len(self.receipts)
        about = (self.pairs[pair].id, rater)
        votes = [NewVote(*about, choice, "a", 1.0, 2.0, f"{start + i}") for i, choice in enumerate(choices)]
        for vote, receipt in zip(votes, self.store.vote_many(votes), strict=True):
            assert receipt.supersedes == self.current.get(about)
            self.receipts[vote.key] = receipt
            self.current[about] = receipt.vote_id
            self.history.setdefault(about, []).append(receipt.vote_id)
        return votes[0]

    @rule(vote=sent)
    def repeat(self, vote: NewVote) -> None:
        assert self.store.vote(vote) == self.receipts[vote.key]

    @rule(vote=sent)
    def reuse_the_key(self, vote: NewVote) -> None:
        with pytest.raises(ConflictError):
            self.store.vote(replace(vote, heard_a_seconds=vote.heard_a_seconds + 1))

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = PreferenceStore(self.folder)

    @invariant()
    def the_store_agrees(self) -> None:
        if not hasattr(self, "current"):
            return
        assert {(v.pair_id, v.rater.id): v.id for v in self.store.current_votes()} == self.current
        for about, ids in self.history.items():
            assert [vote.id for vote in self.store.vote_history(*about)] == ids

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def test_store_machine(store: PreferenceStore, make_pair: MakePair, tmp_path: Path) -> None:
    StoreMachine.pairs = [make_pair(), make_pair()]
    StoreMachine.template = store.folder
    StoreMachine.folders = (tmp_path / str(number) for number in range(1_000))
    store.close()
    run_state_machine_as_test(StoreMachine, settings=settings(max_examples=10, stateful_step_count=10))
