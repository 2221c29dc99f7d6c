from __future__ import annotations

import time
import uuid

import pytest

from musicrl.feedback.ids import uuid7


def test_ids_are_version_7_and_rise() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid7() for _ in range(2_000)]
    assert ids == sorted(set(ids))
    for text in ids[:10]:
        identifier = uuid.UUID(text)
        assert (identifier.version, identifier.variant, str(identifier)) == (7, uuid.RFC_4122, text)
        assert before <= identifier.int >> 80 <= before + 60_000


def test_an_id_follows_one_from_a_clock_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    # Both free fields are full, so the successor has to carry into the time.
    monkeypatch.setattr("musicrl.feedback.ids._last", 0)
    assert uuid7(after="fffffffe-ffff-7fff-bfff-ffffffffffff") == "ffffffff-0000-7000-8000-000000000000"


def test_ids_rise_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = uuid7()
    monkeypatch.setattr("musicrl.feedback.ids.time.time_ns", lambda: 0)
    second = uuid7()
    assert second > first
