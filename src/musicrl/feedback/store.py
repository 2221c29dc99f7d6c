"""The preference store: clips, pairs, votes and ratings that no crash can lose and no code can change."""

from __future__ import annotations

import hashlib
import json
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, insert

from musicrl.errors import UserError
from musicrl.feedback import queries, schema
from musicrl.feedback.answers import append
from musicrl.feedback.content import ContentStore, decode_codes, encode_audio, encode_codes
from musicrl.feedback.database import Database
from musicrl.feedback.ids import uuid7
from musicrl.feedback.records import (
    Clip,
    ConflictError,
    NewClip,
    NewRating,
    NewVote,
    Pair,
    Rater,
    Rating,
    RatingReceipt,
    TrainingPair,
    TrainingRating,
    Vote,
    VoteReceipt,
)
from musicrl.feedback.statistics import summarise

_MAX_PROMPT = 4_096
_LABELS = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}


class PreferenceStore:
    """A folder with `preferences.db`, `audio/<sha256>.flac` and `codes/<sha256>.npy`.

    Every method that writes is one transaction, on disk when it returns; threads and processes may share a store.
    """

    def __init__(self, folder: Path | str, url: str | None = None) -> None:
        """Open a store, or make one.

        Args:
            folder: where the clips lie, and the database unless `url` says otherwise.
            url: SQLAlchemy URL of a SQLite or PostgreSQL database; None for `preferences.db` in the folder.

        Raises:
            UserError: the folder or the database cannot be used.
        """
        self.folder = Path(folder)
        self._audio = ContentStore(self.folder / "audio", ".flac")
        self._codes = ContentStore(self.folder / "codes", ".npy")
        self._database = Database(url or f"sqlite:///{self.folder / 'preferences.db'}")

    @classmethod
    def existing(cls, folder: Path | str) -> PreferenceStore:
        """Open a store that is there; a mistyped folder does not become an empty one.

        Raises:
            UserError: there is none, or it cannot be used.
        """
        if not (Path(folder) / "preferences.db").is_file():
            raise UserError(f"there is no preference store in {folder}; give its folder with --store")
        return cls(folder)

    def __enter__(self) -> PreferenceStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    def add_clip(self, clip: NewClip) -> Clip:
        """Store one clip; see `add_clips`."""
        return self.add_clips([clip])[0]

    def add_clips(self, clips: Sequence[NewClip]) -> list[Clip]:
        """Store clips with their audio and codes in one transaction.

        A clip that is there already (same prompt, model, seed, sampler and content) is returned as it was stored.

        Raises:
            UserError: a prompt, the audio or the codes cannot be stored.
            StorageError: the disk refused; no clip was added (files without a row may stay and do no harm).
        """
        prompts = [_checked_prompt(clip.prompt) for clip in clips]
        audio = self._audio.put([encode_audio(clip.audio, clip.sample_rate) for clip in clips])
        codes = iter(self._codes.put([encode_codes(clip.codes) for clip in clips if clip.codes is not None]))
        now = time.time_ns() // 1_000
        rows: dict[str, dict[str, Any]] = {}
        fingerprints: list[str] = []
        for clip, prompt, audio_sha256 in zip(clips, prompts, audio, strict=True):
            row = _clip_row(clip, audio_sha256, None if clip.codes is None else next(codes))
            fingerprint = _sha256(json.dumps([prompt, row]))
            loudness = {"duration_s": clip.audio.size / clip.sample_rate, "lufs": clip.lufs, "gain_db": clip.gain_db}
            rows[fingerprint] = {"id": uuid7(), "prompt": prompt, "created_us": now, **row, **loudness}
            fingerprints.append(fingerprint)
        with self._database.write() as connection:
            prompt_ids = _add_prompts(connection, prompts, now)
            known = queries.clips(connection, "fingerprint", fingerprints)
            new = [
                {"fingerprint": fingerprint, "prompt_id": prompt_ids[row.pop("prompt")], **row}
                for fingerprint, row in rows.items()
                if fingerprint not in known
            ]
            if new:
                connection.execute(insert(schema.clip), new)
            stored = queries.clips(connection, "fingerprint", fingerprints)
        return [stored[fingerprint] for fingerprint in fingerprints]

    def add_pair(self, clip_a: str, clip_b: str) -> Pair:
        """Store one pair; see `add_pairs`."""
        return self.add_pairs([(clip_a, clip_b)])[0]

    def add_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
        """Store pairs of clip ids (a, b) in one transaction; a pair that is there already is returned as it was stored.

        Raises:
            UserError: a clip is unknown, or the two clips are the same or answer different prompts.
            ConflictError: the two clips are a pair already, the other way round.
        """
        with self._database.write() as connection:
            clips = [clip for pair in pairs for clip in pair]
            prompts = queries.lookup(connection, schema.clip, "id", "prompt_id", clips)
            for clip_a, clip_b in pairs:
                _check_pair(clip_a, clip_b, prompts)
            keys = [":".join(sorted(pair)) for pair in pairs]
            known = set(queries.pairs(connection, "clips", keys))
            now = time.time_ns() // 1_000
            new = {
                key: {"id": uuid7(), "prompt_id": prompts[a], "clip_a": a, "clip_b": b, "clips": key, "created_us": now}
                for (a, b), key in zip(pairs, keys, strict=True)
                if key not in known
            }
            if new:
                connection.execute(insert(schema.pair), list(new.values()))
            stored = queries.pairs(connection, "clips", keys)
            for (clip_a, clip_b), key in zip(pairs, keys, strict=True):
                if stored[key].clip_a != clip_a:
                    raise ConflictError(
                        f"clips {clip_a} and {clip_b} are pair {stored[key].id} already, the other way round; use it"
                    )
        return [stored[key] for key in keys]

    def add_rater(self, rater: Rater) -> Rater:
        """Register one listener; see `add_raters`."""
        return self.add_raters([rater])[0]

    def add_raters(self, raters: Sequence[Rater]) -> list[Rater]:
        """Register listeners; one that is there already is left as it is.

        Raises:
            ConflictError: the id belongs to a listener of the other kind.
        """
        with self._database.write() as connection:
            known = queries.lookup(connection, schema.rater, "id", "kind", [rater.id for rater in raters])
            new = {rater.id: rater.kind for rater in raters if rater.id not in known}
            for rater in raters:
                kind = known.get(rater.id, new.get(rater.id))
                if kind != rater.kind:
                    raise ConflictError(
                        f"rater {rater.id!r} is a {kind} rater, not a {rater.kind} one; choose another id"
                    )
            if new:
                now = time.time_ns() // 1_000
                rows = [{"id": identifier, "kind": kind, "created_us": now} for identifier, kind in new.items()]
                connection.execute(insert(schema.rater), rows)
        return list(raters)

    def vote(self, vote: NewVote) -> VoteReceipt:
        """Store one vote; see `vote_many`."""
        return self.vote_many([vote])[0]

    def vote_many(self, votes: Sequence[NewVote]) -> list[VoteReceipt]:
        """Store votes in one transaction: all of them or none.

        A vote of a rater on a pair they voted on before replaces the older one, which stays in the history. A vote
        whose key is stored already changes nothing and returns the receipt it got the first time.

        Raises:
            UserError: a pair or rater is unknown.
            ConflictError: a key was used before for another vote.
            StorageError: the disk is full or fails; no vote was stored.
        """
        rows = [
            {
                "pair_id": vote.pair_id,
                "rater_id": vote.rater_id,
                "choice": vote.choice,
                "presented_first": vote.presented_first,
                "heard_a_seconds": float(vote.heard_a_seconds),
                "heard_b_seconds": float(vote.heard_b_seconds),
                "idempotency_key": vote.key,
            }
            for vote in votes
        ]
        with self._database.write() as connection:
            _check_known(connection, schema.pair, [vote.pair_id for vote in votes])
            _check_known(connection, schema.rater, [vote.rater_id for vote in votes])
            appended = append(connection, schema.vote, ("pair_id", "rater_id"), rows)
        return [
            VoteReceipt(a.id, v.pair_id, v.rater_id, v.choice, queries.time_of(a.server_time_us), a.supersedes)
            for v, a in zip(votes, appended, strict=True)
        ]

    def rate(self, rating: NewRating) -> RatingReceipt:
        """Store one rating; see `rate_many`."""
        return self.rate_many([rating])[0]

    def rate_many(self, ratings: Sequence[NewRating]) -> list[RatingReceipt]:
        """Store ratings in one transaction, with the guarantees of `vote_many`; one is current per clip, rater, axis.

        Raises:
            UserError: a clip or rater is unknown.
            ConflictError: a key was used before for another rating.
            StorageError: the disk is full or fails; no rating was stored.
        """
        rows = [
            {
                "clip_id": rating.clip_id,
                "rater_id": rating.rater_id,
                "axis": rating.axis,
                "value": int(rating.value),
                "idempotency_key": rating.key,
            }
            for rating in ratings
        ]
        with self._database.write() as connection:
            _check_known(connection, schema.clip, [rating.clip_id for rating in ratings])
            _check_known(connection, schema.rater, [rating.rater_id for rating in ratings])
            appended = append(connection, schema.rating, ("clip_id", "rater_id", "axis"), rows)
        return [
            RatingReceipt(a.id, r.clip_id, r.rater_id, r.axis, r.value, queries.time_of(a.server_time_us), a.supersedes)
            for r, a in zip(ratings, appended, strict=True)
        ]

    def clip(self, identifier: str) -> Clip:
        """Return a stored clip.

        Raises:
            UserError: there is no such clip.
        """
        with self._database.read() as connection:
            found = queries.clips(connection, "id", [identifier])
        if not found:
            raise UserError(f"the store has no clip {identifier!r}")
        return found[identifier]

    def pair(self, identifier: str) -> Pair:
        """Return a stored pair.

        Raises:
            UserError: there is no such pair.
        """
        with self._database.read() as connection:
            found = queries.pairs(connection, "id", [identifier])
        if not found:
            raise UserError(f"the store has no pair {identifier!r}")
        return found[identifier]

    def audio_path(self, clip: Clip) -> Path:
        """Return the path of a clip's FLAC file."""
        return self._audio.path(clip.audio_sha256)

    def codes_path(self, clip: Clip) -> Path | None:
        """Return the path of a clip's .npy file, None if it has no codes."""
        return None if clip.codes_sha256 is None else self._codes.path(clip.codes_sha256)

    def codes(self, clip: Clip) -> NDArray[np.int64] | None:
        """Return a clip's codes [K, T], None if it has none.

        Raises:
            UserError: the file is missing or damaged.
        """
        return None if clip.codes_sha256 is None else decode_codes(self._codes.get(clip.codes_sha256))

    def current_votes(self) -> Iterator[Vote]:
        """Yield the current vote of every pair and rater, oldest first."""
        with self._database.read() as connection:
            yield from queries.votes(connection, schema.vote.c.superseded_by.is_(None))

    def vote_history(self, pair_id: str, rater_id: str) -> list[Vote]:
        """Return every vote of a rater on a pair, oldest first; the last one is current."""
        with self._database.read() as connection:
            return list(queries.votes(connection, schema.vote.c.pair_id == pair_id, schema.vote.c.rater_id == rater_id))

    def current_ratings(self) -> Iterator[Rating]:
        """Yield the current rating of every clip, rater and axis, oldest first."""
        with self._database.read() as connection:
            yield from queries.current_ratings(connection)

    def stats(self) -> dict[str, Any]:
        """Return counts, agreement between raters and position bias; see `musicrl.feedback.statistics.summarise`."""
        return summarise(self.current_votes(), self.current_ratings())

    def pairs_for_training(self) -> Iterator[TrainingPair]:
        """Yield the comparisons a preference reward learns from, oldest first.

        Left out are clips that could not be played, clips without codes, and votes whose rater did not hear both clips
        (MusicRL, section 3.3, keeps only those who did).

        Raises:
            UserError: a file of codes is missing or damaged.
        """
        for vote in self.current_votes():
            if vote.choice == "cannot_play" or min(vote.heard_a_seconds, vote.heard_b_seconds) <= 0:
                continue
            codes_a, codes_b = self.codes(vote.clip_a), self.codes(vote.clip_b)
            if codes_a is None or codes_b is None:
                continue
            yield TrainingPair(
                prompt=vote.clip_a.prompt,
                codes_a=codes_a,
                codes_b=codes_b,
                label=_LABELS[vote.choice],
                rater=vote.rater.id,
                rater_kind=vote.rater.kind,
            )

    def ratings_for_training(self) -> Iterator[TrainingRating]:
        """Yield the current ratings with the clips they speak of, oldest first.

        Raises:
            UserError: a file of codes is missing or damaged.
        """
        for rating in self.current_ratings():
            yield TrainingRating(
                prompt=rating.clip.prompt,
                audio=str(self.audio_path(rating.clip)),
                codes=self.codes(rating.clip),
                axis=rating.axis,
                value=rating.value,
                rater=rating.rater.id,
                rater_kind=rating.rater.kind,
                clip=rating.clip.id,
            )


def _clip_row(clip: NewClip, audio_sha256: str, codes_sha256: str | None) -> dict[str, Any]:
    return {
        "model": clip.model,
        "checkpoint_sha256": clip.checkpoint_sha256,
        "seed": int(clip.seed),
        "sampler": json.dumps(dict(clip.sampler), sort_keys=True),
        "audio_sha256": audio_sha256,
        "codes_sha256": codes_sha256,
        "sample_rate": clip.sample_rate,
    }


def _add_prompts(connection: Connection, prompts: Iterable[str], now: int) -> dict[str, str]:
    sums = {prompt: _sha256(prompt) for prompt in prompts}
    known = queries.lookup(connection, schema.prompt, "sha256", "id", sums.values())
    new = [
        {"id": uuid7(), "text": prompt, "sha256": sha256, "created_us": now}
        for prompt, sha256 in sums.items()
        if sha256 not in known
    ]
    if new:
        connection.execute(insert(schema.prompt), new)
    known |= {str(row["sha256"]): row["id"] for row in new}
    return {prompt: known[sha256] for prompt, sha256 in sums.items()}


def _checked_prompt(prompt: str) -> str:
    text = unicodedata.normalize("NFC", prompt).strip()
    printable = "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
    if not 0 < len(text) <= _MAX_PROMPT or not printable:
        raise UserError(
            f"cannot store a prompt of {len(text)} characters: give 1 to {_MAX_PROMPT} of valid Unicode text"
        )
    return text


def _check_pair(clip_a: str, clip_b: str, prompts: dict[str, str]) -> None:
    for clip in (clip_a, clip_b):
        if clip not in prompts:
            raise UserError(f"cannot pair clip {clip!r}: the store has no such clip; add it first")
    if clip_a == clip_b:
        raise UserError(f"cannot pair clip {clip_a!r} with itself; give two clips")
    if prompts[clip_a] != prompts[clip_b]:
        raise UserError(f"cannot pair clips {clip_a} and {clip_b}: they answer different prompts")


def _check_known(connection: Connection, table: Table, ids: Sequence[str]) -> None:
    known = queries.lookup(connection, table, "id", "id", ids)
    for identifier in ids:
        if identifier not in known:
            raise UserError(f"the store has no {table.name} {identifier!r}; add it first")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
