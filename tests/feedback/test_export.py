from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musicrl import files
from musicrl.errors import UserError
from musicrl.feedback.export import export
from musicrl.feedback.records import Clip, NewRating, NewVote, Pair, StorageError
from musicrl.feedback.store import PreferenceStore

MakePair = Callable[..., Pair]
MakeVote = Callable[..., NewVote]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def exported(clip: Clip, heard: float | None = None) -> dict[str, Any]:
    row = {
        "audio": f"audio/{clip.audio_sha256}.flac",
        "codes": f"codes/{clip.codes_sha256}.npy",
        "generation_id": clip.id,
        "model": clip.model,
        "checkpoint_sha256": "0" * 64,
        "seed": clip.seed,
        "sampler": {"temperature": 1.0, "top_k": None},
        "sample_rate": 8_000,
        "duration_s": 0.05,
        "lufs": -18.0,
        "gain_db": 1.5,
    }
    return row if heard is None else {**row, "heard_seconds": heard}


@pytest.fixture
def filled(store: PreferenceStore, make_pair: MakePair, make_vote: MakeVote) -> tuple[PreferenceStore, list[Pair]]:
    pairs = [make_pair(prompt="a jig, caf\u00e9 style", models=("base", "r")), make_pair()]
    store.vote_many(
        [
            make_vote(pairs[0], "bob", "b", first="a", heard=3.5),
            make_vote(pairs[0], "sim", "a", first="a"),
            make_vote(pairs[1], "ann", "a"),
            make_vote(pairs[1], "ann", "tie", first="b"),
            make_vote(pairs[1], "bob", "cannot_play", heard=0.0),
        ]
    )
    store.rate(NewRating(pairs[1].clip_a, "ann", "quality", 4, "rating"))
    return store, pairs


def test_export(filled: tuple[PreferenceStore, list[Pair]], tmp_path: Path) -> None:
    store, pairs = filled
    manifest = export(store, tmp_path / "out")
    a, b = (store.clip(identifier) for identifier in (pairs[0].clip_a, pairs[0].clip_b))
    votes = list(store.current_votes())
    golden = {
        "prompt": "a jig, caf\u00e9 style",
        "chosen": exported(b, 3.5),
        "rejected": exported(a, 3.5),
        "presented_first": "rejected",
        "choice": "b",
        "vote_id": votes[0].id,
        "pair_id": pairs[0].id,
        "server_time": votes[0].server_time.isoformat(),
        "rater": "person-00001",
        "rater_kind": "person",
    }
    preferences = rows_of(tmp_path / "out" / "preferences.jsonl")
    assert preferences[0] == golden
    assert [(row["rater"], row["chosen"]["generation_id"]) for row in preferences[1:]] == [("simulated-00002", a.id)]
    ties = rows_of(tmp_path / "out" / "ties.jsonl")
    assert [(row["choice"], row["rater"], row["presented_first"]) for row in ties] == [
        ("tie", "person-00003", "b"),
        ("cannot_play", "person-00001", "a"),
    ]
    c, d = (store.clip(identifier) for identifier in (pairs[1].clip_a, pairs[1].clip_b))
    assert (ties[0]["clip_a"], ties[0]["clip_b"]) == (exported(c, 5.0), exported(d, 5.0))
    ratings = rows_of(tmp_path / "out" / "ratings.jsonl")
    assert [(row["clip"], row["axis"], row["value"], row["rater"]) for row in ratings] == [
        (exported(c), "quality", 4, "person-00003")
    ]
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["clips"] == 4 and manifest["statistics"] == store.stats()
    for name, rows in {"preferences.jsonl": 2, "ties.jsonl": 2, "ratings.jsonl": 1}.items():
        content = (tmp_path / "out" / name).read_bytes()
        assert manifest["files"][name] == {"rows": rows, "sha256": hashlib.sha256(content).hexdigest()}


def test_the_files_that_rows_name_are_there(filled: tuple[PreferenceStore, list[Pair]], tmp_path: Path) -> None:
    store, _ = filled
    export(store, tmp_path / "out")
    chosen = rows_of(tmp_path / "out" / "preferences.jsonl")[0]["chosen"]
    codes = np.load(tmp_path / "out" / chosen["codes"])
    np.testing.assert_array_equal(codes, store.codes(store.clip(chosen["generation_id"])))
    for folder in ("audio", "codes"):
        for path in (tmp_path / "out" / folder).iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def test_no_rater_id_leaves_the_store(filled: tuple[PreferenceStore, list[Pair]], tmp_path: Path) -> None:
    store, _ = filled
    export(store, tmp_path / "out")
    text = "".join(path.read_text() for path in (tmp_path / "out").glob("*.json*"))
    assert not any(f'"{name}"' in text for name in ("ann", "bob", "sim"))


def test_the_same_votes_give_the_same_bytes(filled: tuple[PreferenceStore, list[Pair]], tmp_path: Path) -> None:
    store, _ = filled
    for name in ("one", "two"):
        export(store, tmp_path / name)
    trees = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "one", tmp_path / "two")
    ]
    assert trees[0] == trees[1] and len(trees[0]) == 12


def test_an_export_is_whole_or_not_there(
    filled: tuple[PreferenceStore, list[Pair]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, pairs = filled

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for call in ("write_bytes", "move"):
        with monkeypatch.context() as patch:
            patch.setattr(files, call, refuse)
            with pytest.raises(StorageError, match="No space left"):
                export(store, tmp_path / "out")
    store.audio_path(store.clip(pairs[0].clip_a)).write_bytes(b"rubbish")
    with pytest.raises(UserError, match="damaged"):
        export(store, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_export_overwrites_nothing(filled: tuple[PreferenceStore, list[Pair]], tmp_path: Path) -> None:
    store, _ = filled
    (tmp_path / "empty").mkdir()
    export(store, tmp_path / "empty")
    with pytest.raises(UserError, match="not empty"):
        export(store, tmp_path / "empty")
