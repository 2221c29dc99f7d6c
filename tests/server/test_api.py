from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from musicrl.audio.loudness import lufs, true_peak


def test_a_prompt_becomes_a_pair_and_a_vote_in_the_store(page: Any) -> None:
    client = page.client()
    asked = client.post("/api/pairs", json={"prompt": "  a slow\n waltz "})
    assert asked.status_code == 202
    assert asked.json() == {
        "id": asked.json()["id"],
        "prompt": "a slow waltz",
        "state": "queued",
        "position": 0,
        "elapsed": None,
        "expected": None,
        "error": None,
        "assignment": None,
    }
    page.work()
    view = client.get(f"/api/pairs/{asked.json()['id']}").json()
    assert view["state"] == "ready"
    assert view["assignment"]["duration"] == 4.0
    assert view["assignment"]["min_heard"] == 3.0

    answer = client.post("/api/votes", json=page.ballot(view, choice="b", heard_b=[[0, 4]]))
    assert answer.status_code == 201
    (vote,) = page.store.current_votes()
    first, second = (vote.clip_a, vote.clip_b) if vote.presented_first == "a" else (vote.clip_b, vote.clip_a)
    assert answer.json() == {"choice": "b", "models": {"a": first.model, "b": second.model}}
    # The page's b is the second clip presented.
    assert (vote.clip_a if vote.choice == "a" else vote.clip_b) == second
    heard = {vote.clip_a.id: vote.heard_a_seconds, vote.clip_b.id: vote.heard_b_seconds}
    assert heard == {first.id: 3.5, second.id: 4.0}
    assert vote.rater.kind == "person"
    assert vote.clip_a.prompt == "a slow waltz"


def test_refresh_keeps_pair_order_and_addresses(page: Any) -> None:
    client = page.client()
    view = page.ready(client)
    assert client.get(f"/api/pairs/{view['id']}").json() == view


def test_order_is_drawn_by_chance_and_the_choice_follows_it(page: Any) -> None:
    client = page.client()
    shown: list[str] = []
    for i in range(12):
        view = page.ready(client, f"waltz number {i}")
        client.post("/api/votes", json=page.ballot(view, choice="a"))
    for vote in page.store.current_votes():
        shown.append(vote.presented_first)
        assert vote.choice == vote.presented_first
    # Both orders occur; the chance that twelve fair draws agree is 1 in 2048.
    assert set(shown) == {"a", "b"}


def test_position_and_state_in_the_queue(page: Any) -> None:
    client, other = page.client(), page.client()
    first = client.post("/api/pairs", json={"prompt": "one"}).json()
    second = other.post("/api/pairs", json={"prompt": "two"}).json()
    assert (first["position"], second["position"]) == (0, 1)
    page.jobs.lease("tester")
    running = client.get(f"/api/pairs/{first['id']}").json()
    assert running["state"] == "running"
    assert running["elapsed"] >= 0
    assert other.get(f"/api/pairs/{second['id']}").json()["position"] == 1


def test_one_rater_gets_three_places_in_the_queue(page: Any) -> None:
    client = page.client()
    statuses = [client.post("/api/pairs", json={"prompt": f"tune {i}"}).status_code for i in range(4)]
    assert statuses == [202, 202, 202, 429]
    assert page.client().post("/api/pairs", json={"prompt": "another rater"}).status_code == 202
    page.work()
    assert client.post("/api/pairs", json={"prompt": "tune 4"}).status_code == 202


def test_clips_are_loudness_matched_and_of_one_length(page: Any) -> None:
    client = page.client()
    view = page.ready(client)
    levels: list[float] = []
    sizes: set[int] = set()
    for letter in "ab":
        answer = client.get(view["assignment"][letter])
        assert answer.headers["content-type"] == "audio/wav"
        sizes.add(len(answer.content))
        samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
        assert (samples.ndim, samples.shape[0], rate) == (1, 4 * 24_000, 24_000)
        levels.append(lufs(torch.from_numpy(samples), rate))
        assert true_peak(torch.from_numpy(samples)) <= -0.9
    assert len(sizes) == 1
    # The double makes the second clip 20 dB quieter.
    assert levels == pytest.approx([-18.0, -18.0], abs=0.5)


def test_gain_is_stored_with_the_clip(page: Any) -> None:
    page.ready(page.client())
    job_gains = [page.store.clip(clip).gain_db for clip in _clips(page)]
    assert max(job_gains) - min(job_gains) > 15


def test_media_answers_ranges(page: Any) -> None:
    client = page.client()
    address = page.ready(client)["assignment"]["a"]
    whole = client.get(address).content
    part = client.get(address, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert client.get(address, headers={"range": f"bytes={len(whole) - 5}-"}).content == whole[-5:]
    assert client.get(address, headers={"range": "bytes=-7"}).content == whole[-7:]
    assert client.get(address, headers={"range": f"bytes=0-{10**14}"}).content == whole
    beyond = client.get(address, headers={"range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")
    for odd in ("bytes=-", "bytes=1-2,4-5", "lines=1-2", "bytes=" + "9" * 5000 + "-"):
        assert client.get(address, headers={"range": odd}).content == whole


def test_a_missing_or_damaged_file_is_a_sentence(page: Any) -> None:
    client = page.client()
    view = page.ready(client)["assignment"]
    first, second = (page.store.audio_path(page.store.clip(clip)) for clip in _clips(page))
    first.unlink()
    second.write_bytes(b"fLaC and nothing else")
    for letter in "ab":
        answer = client.get(view[letter])
        assert (answer.status_code, answer.json()["error"]) == (503, "this clip cannot be read from the store")


def test_suggestions(page: Any) -> None:
    prompts = page.client().get("/api/suggestions").json()["prompts"]
    assert sorted(prompts) == ["a fast jig", "a slow waltz", "a solemn chorale"]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("x" * 2_001, "2,001 characters; at most 2,000"),
        ("a\0b", "control characters"),
        ("a\u202eb\x1b[31m", "control characters"),
        (None, "string"),
        (7, "string"),
        (["waltz"], "string"),
    ],
)
def test_unusable_prompts_are_refused_with_a_sentence(page: Any, prompt: object, says: str) -> None:
    answer = page.client().post("/api/pairs", json={"prompt": prompt})
    assert answer.status_code == 422
    assert says in answer.json()["error"]
    assert page.jobs.lease("tester") is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "waltz", "model": "base"}',
        b'{"prompt": NaN}',
        b"[" * 20_000,
        b"\xff\xfe",
    ],
)
def test_malformed_bodies_are_refused(page: Any, body: bytes) -> None:
    answer = page.client().post("/api/pairs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]


@pytest.mark.parametrize("prompt", ["a waltz, ünïcödé", "مقطوعة موسيقية", "雨の日のワルツ", "🎻" * 1_000, "x" * 2_000])
def test_prompts_of_any_language_come_back_as_they_were(page: Any, prompt: str) -> None:
    client = page.client()
    assert page.ready(client, prompt)["prompt"] == prompt


def test_unplayable_pairs_are_withdrawn(page: Any) -> None:
    client = page.client()
    for word in ("silent", "broken"):
        view = page.ready(client, f"a {word} waltz")
        assert view["state"] == "failed"
        assert view["assignment"] is None
        assert "no playable pair" in view["error"]
    assert _clips(page) == []


def test_a_failing_model_fails_the_job_without_naming_itself(page: Any) -> None:
    view = page.ready(page.client(), "crash please")
    assert view["state"] == "failed"
    assert "secret" not in view["error"]


def test_codes_reach_the_store(page: Any) -> None:
    page.ready(page.client())
    codes = page.store.codes(page.store.clip(_clips(page)[0]))
    assert codes.shape == (4, 100)
    assert codes.dtype == np.int64


def _clips(page: Any) -> list[str]:
    from sqlalchemy import create_engine, text

    with create_engine(f"sqlite:///{page.folder / 'preferences.db'}").connect() as connection:
        return list(connection.scalars(text("SELECT id FROM clip ORDER BY id")))
