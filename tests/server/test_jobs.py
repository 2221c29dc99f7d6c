from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from musicrl.server import jobs as jobs_module
from musicrl.server.database import PageDatabase
from musicrl.server.jobs import LEASE_SECONDS, Jobs, TooManyError


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with closing(PageDatabase(tmp_path / "page.db")) as database:
        yield Jobs(database)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time in microseconds, to be moved by hand."""
    now = [1_000_000_000_000_000]
    monkeypatch.setattr(jobs_module, "_now", lambda: now[0])
    return now


def test_first_come_first_served_and_each_once(jobs: Jobs) -> None:
    submitted = [jobs.submit(f"rater {i}", "waltz", 4.0).id for i in range(4)]
    leased = [jobs.lease(f"worker {i}") for i in range(5)]
    assert [job.id for job in leased if job] == submitted
    assert leased[4] is None


def test_two_workers_never_get_the_same_job(tmp_path: Path) -> None:
    with closing(PageDatabase(tmp_path / "page.db")) as database:
        for i in range(20):
            Jobs(database).submit(f"rater {i}", "waltz", 4.0)
    taken: list[str] = []

    def take(owner: str) -> None:
        with closing(PageDatabase(tmp_path / "page.db")) as own:
            while (job := Jobs(own).lease(owner)) is not None:
                taken.append(job.id)

    threads = [threading.Thread(target=take, args=(f"worker {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 20


def test_a_job_keeps_its_seed_when_its_worker_dies(jobs: Jobs) -> None:
    jobs.submit("rater", "waltz", 4.0)
    first = jobs.lease("dead")
    assert first is not None
    jobs.release("dead")
    second = jobs.lease("next")
    assert second is not None
    assert (second.id, second.seed, second.attempts) == (first.id, first.seed, 2)


def test_a_lease_runs_out_unless_it_is_renewed(jobs: Jobs, clock: list[int]) -> None:
    jobs.submit("rater", "waltz", 4.0)
    assert jobs.lease("worker") is not None
    clock[0] += int((LEASE_SECONDS - 1) * 1e6)
    jobs.renew("worker")
    clock[0] += int((LEASE_SECONDS - 1) * 1e6)
    assert jobs.lease("other") is None
    clock[0] += int(2 * 1e6)
    assert jobs.lease("other") is not None


def test_a_clock_set_back_does_not_keep_a_lease_for_hours(jobs: Jobs, clock: list[int]) -> None:
    jobs.submit("rater", "waltz", 4.0)
    assert jobs.lease("worker") is not None
    clock[0] -= int(24 * 3600 * 1e6)
    assert jobs.lease("other") is not None


def test_a_job_that_kills_three_workers_fails_with_a_sentence(jobs: Jobs) -> None:
    submitted = jobs.submit("rater", "waltz", 4.0)
    for i in range(3):
        assert jobs.lease(f"worker {i}") is not None
        jobs.release(f"worker {i}")
    assert jobs.lease("another") is None
    failed = jobs.find(submitted.id, "rater")
    assert failed is not None
    assert (failed.state, failed.attempts) == ("failed", 3)
    assert failed.error == "the model stopped 3 times while making this pair; try another prompt"


def test_a_job_that_could_not_be_tried_loses_no_attempt(jobs: Jobs) -> None:
    jobs.submit("rater", "waltz", 4.0)
    for _ in range(5):
        leased = jobs.lease("worker")
        assert leased is not None
        assert leased.attempts == 1
        jobs.put_back(leased, "worker")


def test_a_worker_that_was_given_up_cannot_end_the_job(jobs: Jobs) -> None:
    submitted = jobs.submit("rater", "waltz", 4.0)
    late = jobs.lease("late")
    assert late is not None
    jobs.release("late")
    assert jobs.lease("next") is not None
    jobs.fail(late, "late", "too late")
    with jobs._database.write() as connection:
        assert not jobs.finish(connection, late, "late")
    found = jobs.find(submitted.id, "rater")
    assert found is not None
    assert found.state == "running"


def test_the_queue_has_an_end(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_MAX_UNFINISHED", 5)
    for i in range(5):
        jobs.submit(f"rater {i}", "waltz", 4.0)
    with pytest.raises(TooManyError, match="try again in a few minutes"):
        jobs.submit("one more", "waltz", 4.0)


def test_expected_time_is_the_median_of_recent_pairs(jobs: Jobs, clock: list[int]) -> None:
    assert jobs.expected_seconds() is None
    for seconds in (4, 30, 6):
        jobs.submit("rater", "waltz", 4.0)
        leased = jobs.lease("worker")
        assert leased is not None
        clock[0] += int(seconds * 1e6)
        with jobs._database.write() as connection:
            assert jobs.finish(connection, leased, "worker")
    assert jobs.expected_seconds() == pytest.approx(6.0)


def test_other_raters_do_not_find_a_job(jobs: Jobs) -> None:
    submitted = jobs.submit("rater", "waltz", 4.0)
    assert jobs.find(submitted.id, "other") is None
    assert jobs.find("nothing", "rater") is None
