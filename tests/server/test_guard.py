from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from musicrl.errors import UserError
from musicrl.server import raters
from musicrl.server.guard import MAX_BODY

PROMPT = {"prompt": "a waltz"}


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "https://127.0.0.1:8000"])
def test_posts_from_other_origins_are_refused(page: Any, origin: str) -> None:
    answer = page.client().post("/api/pairs", json=PROMPT, headers={"origin": origin})
    assert answer.status_code == 403
    assert page.jobs.lease("tester") is None


def test_posts_that_a_browser_calls_cross_site_are_refused(page: Any) -> None:
    assert page.client().post("/api/pairs", json=PROMPT, headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_posts_from_the_page_itself_are_taken(page: Any) -> None:
    own = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert page.client().post("/api/pairs", json=PROMPT, headers=own).status_code == 202


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1", "[::2]:80"]
)
def test_other_host_names_are_refused(page: Any, host: str) -> None:
    assert page.client().get("/api/suggestions", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LOCALHOST:1", "[::1]:8000"])
def test_own_host_names_are_served(page: Any, host: str) -> None:
    assert page.client().get("/api/suggestions", headers={"host": host}).status_code == 200


def test_large_bodies_are_refused_announced_or_not(page: Any) -> None:
    client = page.client()
    json_type = {"content-type": "application/json"}
    body = b'{"prompt": "' + b"x" * MAX_BODY + b'"}'
    chunks = (body[i : i + 1024] for i in range(0, len(body), 1024))
    for content in (body, chunks):
        answer = client.post("/api/pairs", content=content, headers=json_type)
        assert (answer.status_code, answer.json()["error"]) == (413, "the request is larger than 64 kB")
    for length in ("-1", "9" * 5_000, "x"):
        answer = client.post("/api/pairs", content=b"{}", headers=json_type | {"content-length": length})
        assert answer.status_code == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_only_json_is_read(page: Any, kind: str) -> None:
    content = b'{"prompt": "a waltz"}'
    assert page.client().post("/api/pairs", content=content, headers={"content-type": kind}).status_code == 415


@pytest.mark.parametrize("path", ["/", "/app.js", "/api/suggestions", "/nothing", "/m/nothing"])
def test_every_response_carries_the_security_headers(page: Any, path: str) -> None:
    headers = page.client().get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_cookie_is_signed_and_out_of_reach_for_scripts(page: Any) -> None:
    client = page.client()
    client.cookies.clear()
    cookie = client.get("/").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    again = client.get("/")
    assert "set-cookie" not in again.headers


def test_forged_cookies_are_nobody() -> None:
    key, other = b"k" * 32, b"o" * 32
    rater_id, cookie = raters.new_cookie(key)
    assert raters.read_cookie(key, cookie) == rater_id
    assert raters.new_cookie(key)[0] != rater_id
    forged = [None, "", ".", "x", rater_id, f"{rater_id}.", f".{cookie}", cookie[:-1], cookie + "é", f"x{cookie}"]
    assert [raters.read_cookie(key, bad) for bad in forged] == [None] * len(forged)
    assert raters.read_cookie(other, cookie) is None


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = raters.load_key(tmp_path)
    assert len(key) == 32
    assert raters.load_key(tmp_path) == key
    path = tmp_path / "cookie.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["cookie.key"]
    (tmp_path / "other").mkdir()
    assert raters.load_key(tmp_path / "other") != key


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    raters.load_key(tmp_path)
    os.chmod(tmp_path / "cookie.key", 0o644)
    with pytest.raises(UserError, match="others may read"):
        raters.load_key(tmp_path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    raters.load_key(tmp_path)
    (tmp_path / "cookie.key").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        raters.load_key(tmp_path)


def test_handlers_need_no_torch(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["torch"] = None
from musicrl.feedback.store import PreferenceStore
from musicrl.server import run, supervisor
from musicrl.server.app import create_app
from musicrl.server.database import PageDatabase
from starlette.testclient import TestClient
store, database = PreferenceStore(sys.argv[1]), PageDatabase(__import__("pathlib").Path(sys.argv[1]) / "page.db")
client = TestClient(create_app(store, database, key=b"k" * 32), base_url="http://localhost")
client.cookies.update(client.get("/").cookies)
answer = client.post("/api/pairs", json={"prompt": "waltz"})
assert answer.status_code == 202, answer.text
assert client.get("/api/pairs/" + answer.json()["id"]).json()["state"] == "queued"
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)
