from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import create_engine, text


def test_a_replay_gets_the_same_bytes_and_one_row(page: Any) -> None:
    client = page.client()
    ballot = page.ballot(page.ready(client))
    first = client.post("/api/votes", json=ballot)
    second = client.post("/api/votes", json=ballot)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert len(list(page.store.current_votes())) == 1


def test_a_replay_survives_a_crash_between_store_and_page(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from musicrl.server.assignments import Assignments

    client = page.client()
    ballot = page.ballot(page.ready(client))
    with monkeypatch.context() as patch:
        patch.setattr(Assignments, "mark_voted", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            client.post("/api/votes", json=ballot)
    # The vote is in the store; the page never heard so and sends it again.
    assert client.post("/api/votes", json=ballot).status_code == 201
    assert len(list(page.store.current_votes())) == 1


def test_fifty_clicks_at_once_are_one_vote(page: Any) -> None:
    client = page.client()
    ballot = page.ballot(page.ready(client))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/api/votes", json=ballot), range(50)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert len(list(page.store.current_votes())) == 1


def test_two_tabs_make_one_vote(page: Any) -> None:
    client = page.client()
    view = page.ready(client)
    ballots = [page.ballot(view, choice=choice, key=choice * 16) for choice in "ab"]
    with ThreadPoolExecutor(2) as pool:
        statuses = sorted(pool.map(lambda ballot: client.post("/api/votes", json=ballot).status_code, ballots))
    assert statuses == [201, 409]
    (vote,) = page.store.current_votes()
    assert len(page.store.vote_history(vote.pair_id, vote.rater.id)) == 1


def test_the_same_key_with_another_body_is_refused(page: Any) -> None:
    client = page.client()
    view = page.ready(client)
    assert client.post("/api/votes", json=page.ballot(view, choice="a")).status_code == 201
    answer = client.post("/api/votes", json=page.ballot(view, choice="b"))
    assert answer.status_code == 422
    assert "another vote" in answer.json()["error"]
    (vote,) = page.store.current_votes()
    assert vote.choice == vote.presented_first


def test_one_key_serves_two_pairs_of_two_raters(page: Any) -> None:
    for client in (page.client(), page.client()):
        assert client.post("/api/votes", json=page.ballot(page.ready(client))).status_code == 201
    assert len(list(page.store.current_votes())) == 2


def test_after_the_vote_a_refresh_shows_it(page: Any) -> None:
    client = page.client()
    view = page.ready(client)
    vote = client.post("/api/votes", json=page.ballot(view, choice="tie")).json()
    assert vote["choice"] == "tie"
    assert set(vote["models"].values()) == set(page.models)
    assert client.get(f"/api/pairs/{view['id']}").json() == view | {"vote": vote}


@pytest.mark.parametrize("choice", ["a", "b", "tie", "both_bad"])
def test_a_choice_needs_three_unique_seconds_of_each_clip(page: Any, choice: str) -> None:
    client = page.client()
    view = page.ready(client)
    again = [[0.0, 2.9]] * 5
    for heard_a, heard_b, name in ((again, [[0, 4]], "A"), ([[0, 4]], again, "B"), ([], [[0, 4]], "A")):
        answer = client.post("/api/votes", json=page.ballot(view, choice=choice, heard_a=heard_a, heard_b=heard_b))
        assert answer.status_code == 422
        assert answer.json()["error"] == f"listen to at least 3 seconds of clip {name} before you choose"
    # What lies beyond the end of the clip did not sound.
    beyond = client.post("/api/votes", json=page.ballot(view, choice=choice, heard_a=[[3.0, 900.0]]))
    assert beyond.status_code == 422
    assert list(page.store.current_votes()) == []


def test_cannot_play_needs_no_listening(page: Any) -> None:
    client = page.client()
    ballot = page.ballot(page.ready(client), choice="cannot_play", heard_a=[], heard_b=[])
    assert client.post("/api/votes", json=ballot).status_code == 201
    (vote,) = page.store.current_votes()
    assert (vote.choice, vote.heard_a_seconds, vote.heard_b_seconds) == ("cannot_play", 0.0, 0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": "A"},
        {"choice": None},
        {"key": "short"},
        {"key": "x" * 65},
        {"key": "a b c d e f g"},
        {"assignment": "../../etc/passwd"},
        {"heard_a": [[3, 1]]},
        {"heard_a": [[-1, 3]]},
        {"heard_a": [[0, 1, 2]]},
        {"heard_a": "all of it"},
        {"heard_a": [[0, 4]] * 501},
        {"model": "secret-model-one"},
    ],
)
def test_malformed_votes_are_refused(page: Any, changes: dict[str, Any]) -> None:
    client = page.client()
    answer = client.post("/api/votes", json=page.ballot(page.ready(client), **changes))
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert list(page.store.current_votes()) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(page: Any, number: str) -> None:
    client = page.client()
    import json

    body = json.dumps(page.ballot(page.ready(client), heard_a="HERE")).replace('"HERE"', f"[[0, {number}]]")
    answer = client.post("/api/votes", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422


def test_other_raters_reach_nothing(page: Any) -> None:
    view = page.ready(page.client())
    stranger = page.client()
    forged = page.client()
    forged.cookies.clear()
    forged.cookies.set("musicrl_rater", "someone.signature")
    for client in (stranger, forged):
        assert client.get(f"/api/pairs/{view['id']}").status_code == 404
        assert client.get(view["assignment"]["a"]).status_code == 404
        assert client.post("/api/votes", json=page.ballot(view)).status_code == 404
    assert list(page.store.current_votes()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_acknowledges_nothing_and_heals(page: Any) -> None:
    import resource

    client = page.client()
    ballot = page.ballot(page.ready(client))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The next write to the log of the database fails, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, ((page.folder / "preferences.db-wal").stat().st_size, hard))
    try:
        refused = client.post("/api/votes", json=ballot)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert "nothing was saved" in refused.json()["error"]
    assert list(page.store.current_votes()) == []

    accepted = client.post("/api/votes", json=ballot)
    assert accepted.status_code == 201
    assert len(list(page.store.current_votes())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_acknowledges_no_pair(page: Any) -> None:
    import resource

    client = page.client()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((page.folder / "page.db-wal").stat().st_size, hard))
    try:
        refused = client.post("/api/pairs", json={"prompt": "a waltz"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.status_code == 503
    assert page.jobs.lease("tester") is None
    assert client.post("/api/pairs", json={"prompt": "a waltz"}).status_code == 202


def test_votes_are_on_disk_when_acknowledged(page: Any) -> None:
    client = page.client()
    client.post("/api/votes", json=page.ballot(page.ready(client)))
    # Another process sees the row while the server is still open: nothing waits in a buffer of ours.
    other = create_engine(f"sqlite:///{page.folder / 'preferences.db'}")
    with other.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM vote")).scalar_one() == 1
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    with page.store._database.engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2
