"""Nothing that leaves the server before the vote says which model made a clip."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pydantic import ValidationError

from musicrl.server.views import AssignmentView, PairView, unique_seconds


def _said(answer: Any) -> bytes:
    headers = b"\n".join(f"{name}: {value}".encode() for name, value in answer.headers.items())
    return str(answer.url).encode() + headers + answer.content


def test_no_response_before_the_vote_names_a_model(page: Any, tones: Any) -> None:
    client = page.client()
    view = page.ready(client)
    crawled = [
        client.get("/"),
        client.get("/app.js"),
        client.get("/openapi.json"),
        client.get("/api/suggestions"),
        client.get(f"/api/pairs/{view['id']}"),
        client.get(view["assignment"]["a"]),
        client.get(view["assignment"]["b"]),
        client.get(view["assignment"]["a"], headers={"range": "bytes=0-99"}),
        client.get("/m/nothing"),
        client.post("/api/votes", json=page.ballot(view, heard_a=[])),
        client.post("/api/votes", json={}),
    ]
    from sqlalchemy import create_engine, text

    with create_engine(f"sqlite:///{page.folder / 'preferences.db'}").connect() as connection:
        clips = connection.execute(text("SELECT id, audio_sha256, codes_sha256, seed FROM clip")).all()
    identifying = {*page.models, tones.CHECKPOINT, *(str(value) for clip in clips for value in clip)}
    for answer in crawled:
        found = [word for word in identifying if word.encode() in _said(answer)]
        assert not found, (answer.url, found)
    # The check can fail: after the vote the names are there.
    assert page.models[0].encode() in _said(client.post("/api/votes", json=page.ballot(view)))


def test_the_two_clips_differ_in_nothing_but_the_sound(page: Any) -> None:
    client = page.client()
    view = page.ready(client)["assignment"]
    a, b = (client.get(view[letter]) for letter in "ab")
    assert dict(a.headers) == dict(b.headers)
    assert not {"etag", "last-modified", "content-disposition"} & set(a.headers)
    assert a.content[:44] == b.content[:44]
    # The canonical header: RIFF, 16-byte format chunk, then the samples, and no other chunk.
    riff, size, wave, fmt, length, kind, channels, rate = struct.unpack("<4sI4s4sIHHI", a.content[:28])
    assert (riff, size, wave, fmt, length, kind) == (b"RIFF", len(a.content) - 8, b"WAVE", b"fmt ", 16, 1)
    assert (channels, rate) == (1, 24_000)
    assert a.content[36:44] == b"data" + struct.pack("<I", len(a.content) - 44)
    assert a.content[44:] != b.content[44:]


def test_addresses_are_new_for_every_assignment(page: Any) -> None:
    client = page.client()
    views = [page.ready(client, f"waltz {i}")["assignment"] for i in range(3)]
    tokens = [view[name] for view in views for name in ("id", "a", "b")]
    assert len({token.removeprefix("/m/") for token in tokens}) == 9


def test_the_assignment_type_cannot_hold_a_model() -> None:
    token = "t" * 22
    fields = {"id": token, "a": f"/m/{token}", "b": f"/m/{token}", "duration": 4.0, "min_heard": 3.0}
    assert AssignmentView.model_validate(fields)
    for smuggled in ({"model": "ru"}, {"a": "/m/ru"}, {"id": "ru"}, {"a": f"/m/{token}?model=ru"}):
        with pytest.raises(ValidationError):
            AssignmentView.model_validate(fields | smuggled)
    with pytest.raises(ValidationError):
        PairView.model_validate({"id": token, "prompt": "p", "state": "ready", "vote": {}})


@pytest.mark.parametrize(
    ("intervals", "seconds"),
    [
        ([], 0.0),
        ([(0.0, 2.0), (1.0, 3.0)], 3.0),
        ([(0.0, 2.0), (0.0, 2.0)], 2.0),
        ([(5.0, 6.0), (0.0, 1.5)], 2.5),
        ([(0.0, 9.0), (2.0, 3.0), (8.0, 9.5)], 9.5),
        ([(9.0, 99.0)], 1.0),
        ([(50.0, 99.0)], 0.0),
    ],
)
def test_unique_seconds(intervals: list[tuple[float, float]], seconds: float) -> None:
    assert unique_seconds(intervals, duration=10.0) == pytest.approx(seconds)
