"""The web application: prompts in, pairs out, votes in."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from musicrl import __version__
from musicrl.feedback.records import ConflictError, NewVote, Rater, StorageError
from musicrl.feedback.store import PreferenceStore
from musicrl.server import media, raters
from musicrl.server.assignments import Assignment, Assignments
from musicrl.server.database import PageDatabase
from musicrl.server.guard import Guard
from musicrl.server.jobs import Job, Jobs, TooManyError
from musicrl.server.views import (
    AssignmentView,
    Models,
    PairRequest,
    PairView,
    Problem,
    Suggestions,
    VotedPairView,
    VoteRequest,
    VoteView,
    unique_seconds,
)

MIN_HEARD_SECONDS = 3.0
"""Seconds of each clip that must have sounded before a vote counts, or four fifths of a shorter clip."""

STATIC = Path(__file__).parent / "static"
_SHOWN_SUGGESTIONS = 24
_VOTE_LOCKS = 64
_NOT_FOUND = "there is no such pair, or it belongs to another browser"


def create_app(
    store: PreferenceStore,
    database: PageDatabase,
    *,
    key: bytes,
    seconds: float = 10.0,
    suggestions: Sequence[str] = (),
    hosts: Collection[str] | None = ("127.0.0.1", "localhost", "::1"),
) -> FastAPI:
    """Return the application. It makes no clips itself: a worker does (`musicrl.server.supervisor`).

    Args:
        store: where clips and votes are kept.
        database: where jobs and assignments are kept.
        key: signs the raters' cookies (`raters.load_key`).
        seconds: length of a clip.
        suggestions: prompts to offer.
        hosts: names the server may be addressed by, None for any.
    """
    app = FastAPI(title="musicrl", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, hosts=hosts)
    jobs, assignments = Jobs(database), Assignments(database)
    vote_locks = [threading.Lock() for _ in range(_VOTE_LOCKS)]

    def known_rater(request: Request) -> str | None:
        return raters.read_cookie(key, request.cookies.get(raters.COOKIE))

    def some_rater(request: Request, response: Response) -> str:
        return known_rater(request) or _introduce(request, response, key)

    @app.get("/", include_in_schema=False)
    def page(request: Request) -> Response:
        response = FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})
        if known_rater(request) is None:
            _introduce(request, response, key)
        return response

    @app.get("/api/suggestions")
    def suggest() -> Suggestions:
        return Suggestions(prompts=random.sample(suggestions, min(_SHOWN_SUGGESTIONS, len(suggestions))))

    @app.post("/api/pairs", status_code=202, responses=_problems(413, 415, 422, 429, 503))
    def submit(body: PairRequest, rater_id: str = Depends(some_rater)) -> PairView:
        store.add_rater(Rater(rater_id, "person"))
        return _waiting(jobs.submit(rater_id, body.prompt, seconds), jobs)

    @app.get("/api/pairs/{identifier}", responses=_problems(404, 503))
    def look(identifier: str, rater_id: str | None = Depends(known_rater)) -> VotedPairView | PairView:
        job = jobs.find(identifier, rater_id) if rater_id else None
        if job is None or rater_id is None:
            raise HTTPException(404, _NOT_FOUND)
        assignment = assignments.of_job(job.id, rater_id) if job.state == "ready" else None
        if assignment is None:
            return _waiting(job, jobs)
        view = PairView(id=job.id, prompt=job.prompt, state="ready", assignment=_assigned(assignment))
        if assignment.choice is None:
            return view
        vote = VoteView(choice=assignment.choice, models=_models(store, assignment))
        return VotedPairView(**dict(view), vote=vote)

    @app.get("/m/{token}", response_class=Response, responses=_problems(404, 503))
    def clip(
        token: str,
        rater_id: str | None = Depends(known_rater),
        range_: str | None = Header(None, alias="range"),
    ) -> Response:
        assignment = assignments.of_token(token, rater_id) if rater_id else None
        if assignment is None:
            raise HTTPException(404, "there is no such clip")
        pair = store.pair(assignment.pair_id)
        in_store = assignment.stored("a" if token == assignment.token_a else "b")
        stored = store.clip(pair.clip_a if in_store == "a" else pair.clip_b)
        try:
            return media.ranged(media.wav(store.audio_path(stored)), range_)
        except OSError as error:
            raise HTTPException(503, "this clip cannot be read from the store") from error

    @app.post("/api/votes", status_code=201, responses=_problems(404, 409, 413, 415, 422, 503))
    def vote(body: VoteRequest, rater_id: str | None = Depends(known_rater)) -> VoteView:
        with vote_locks[hash(body.assignment) % _VOTE_LOCKS]:
            assignment = assignments.find(body.assignment, rater_id) if rater_id else None
            if assignment is None:
                raise HTTPException(404, _NOT_FOUND)
            if assignment.vote_key not in (None, body.key):
                raise HTTPException(409, "you have voted on this pair already; that vote stands")
            store.vote(_checked_vote(body, assignment))
            if assignment.vote_key is None:
                assignments.mark_voted(assignment.id, body.key, body.choice)
        return VoteView(choice=body.choice, models=_models(store, assignment))

    app.mount("/", StaticFiles(directory=STATIC), name="static")
    _add_error_handlers(app)
    return app


def _introduce(request: Request, response: Response, key: bytes) -> str:
    rater_id, cookie = raters.new_cookie(key)
    response.set_cookie(
        raters.COOKIE,
        cookie,
        max_age=raters.COOKIE_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return rater_id


def _waiting(job: Job, jobs: Jobs) -> PairView:
    running = job.state == "running" and job.started_us is not None
    return PairView(
        id=job.id,
        prompt=job.prompt,
        state=job.state,
        position=jobs.ahead(job) if job.state == "queued" else None,
        elapsed=max(0.0, round(time.time() - job.started_us / 1e6, 1)) if running and job.started_us else None,
        expected=jobs.expected_seconds() if job.state in ("queued", "running") else None,
        error=job.error,
    )


def _assigned(assignment: Assignment) -> AssignmentView:
    return AssignmentView(
        id=assignment.id,
        a=f"/m/{assignment.token_a}",
        b=f"/m/{assignment.token_b}",
        duration=assignment.duration_s,
        min_heard=_min_heard(assignment.duration_s),
    )


def _min_heard(duration_s: float) -> float:
    return min(MIN_HEARD_SECONDS, 0.8 * duration_s)


def _models(store: PreferenceStore, assignment: Assignment) -> Models:
    pair = store.pair(assignment.pair_id)
    first, second = store.clip(pair.clip_a).model, store.clip(pair.clip_b).model
    return Models(a=first, b=second) if assignment.shown_a == "a" else Models(a=second, b=first)


def _checked_vote(body: VoteRequest, assignment: Assignment) -> NewVote:
    heard_a = unique_seconds(body.heard_a, assignment.duration_s)
    heard_b = unique_seconds(body.heard_b, assignment.duration_s)
    needed = _min_heard(assignment.duration_s)
    if body.choice != "cannot_play" and min(heard_a, heard_b) < needed:
        name = "A" if heard_a <= heard_b else "B"
        raise HTTPException(422, f"listen to at least {needed:g} seconds of clip {name} before you choose")
    swapped = assignment.shown_a == "b"
    return NewVote(
        pair_id=assignment.pair_id,
        rater_id=assignment.rater_id,
        choice=assignment.stored(body.choice),
        presented_first=assignment.shown_a,
        heard_a_seconds=heard_b if swapped else heard_a,
        heard_b_seconds=heard_a if swapped else heard_b,
        key=f"{assignment.id}:{body.key}",
    )


def _problems(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: {"model": Problem} for status in statuses}


def _add_error_handlers(app: FastAPI) -> None:
    def answer(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse(Problem(error=sentence).model_dump(), status, headers)

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> Response:
        return answer(error.status_code, error.detail, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(422, message if first["type"] == "value_error" else f"{where or 'the body'}: {message}")

    @app.exception_handler(TooManyError)
    def busy(_: Request, error: TooManyError) -> Response:
        return answer(429, str(error), {"retry-after": "30"})

    @app.exception_handler(ConflictError)
    def conflict(_: Request, error: ConflictError) -> Response:
        return answer(422, "this key belongs to another vote; reload the page and vote again")

    @app.exception_handler(StorageError)
    def full(_: Request, error: StorageError) -> Response:
        return answer(503, "nothing was saved: the server's disk refused it; try again soon", {"retry-after": "5"})
