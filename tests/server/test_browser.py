"""The page in headless Chromium, from the prompt to the vote in the store."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from musicrl.server.app import create_app
from musicrl.server.supervisor import Supervisor

pytestmark = pytest.mark.browser

PATIENCE_MS = 120_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def address(page: Any) -> Iterator[str]:
    """The page served on loopback, with a worker in its own process."""
    app = create_app(page.store, page.database, key=b"k" * 32, seconds=4.0, suggestions=("a fast jig", "a slow waltz"))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2))
    with Supervisor(page.jobs, page.folder, "tone_generator:generator"):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A tab of a new browser; complaints of the browser, such as of the content security policy, fail the test."""
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": 320, "height": 700})
    context.set_default_timeout(PATIENCE_MS)
    tab = context.new_page()
    tab.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    yield tab
    context.close()
    assert [text for text in complaints if "ERR_FAILED" not in text] == []


def ask(tab: Any, address: str, prompt: str) -> None:
    tab.goto(address)
    tab.get_by_label("Describe the music").fill(prompt)
    tab.get_by_role("button", name="Make two clips").click()
    tab.locator("button[aria-label='Play clip B']:not([disabled])").wait_for()


def listen(tab: Any) -> None:
    """Hear both clips by keyboard until the vote opens."""
    for key, name in (("1", "A"), ("2", "B")):
        tab.keyboard.press(key)
        tab.get_by_role("button", name=f"Pause clip {name}").wait_for()
        # Only one clip sounds at a time.
        assert tab.locator("button[aria-pressed=true]").count() == 1
        tab.locator(f"[aria-label='Clip {name}'] .enough").wait_for()


def test_from_prompt_to_stored_vote(page: Any, tab: Any, address: str) -> None:
    before_vote: list[tuple[str, bytes, dict[str, str]]] = []
    tab.on("response", lambda response: before_vote.append((response.url, response.body(), response.headers)))
    ask(tab, address, "a slow sad waltz on the accordion")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 320

    trophies = tab.get_by_role("button", name="Trophy to")
    assert [trophies.nth(i).is_enabled() for i in range(2)] == [False, False]
    assert tab.get_by_role("button", name="Cannot play").is_enabled()

    # A reload keeps the pair, its order and its addresses.
    media = [url for url, _, _ in before_vote if "/m/" in url]
    tab.reload()
    tab.locator("button[aria-label='Play clip B']:not([disabled])").wait_for()
    assert sorted(url for url, _, _ in before_vote if "/m/" in url) == sorted(media * 2)

    listen(tab)
    sliders = tab.get_by_role("slider")
    assert float(sliders.nth(0).get_attribute("aria-valuenow")) >= 3
    assert sliders.nth(0).get_attribute("aria-valuetext").endswith("of 0:04")
    said = str(before_vote) + tab.content()
    assert not [model for model in page.models if model in said]

    tab.get_by_role("button", name="Trophy to B").click()
    tab.get_by_text("Your vote is saved.").wait_for()
    shown = {name: tab.locator(f"[aria-label='Clip {name}'] strong").inner_text() for name in "AB"}

    (vote,) = page.store.current_votes()
    first, second = (vote.clip_a, vote.clip_b) if vote.presented_first == "a" else (vote.clip_b, vote.clip_a)
    assert shown == {"A": first.model, "B": second.model}
    # The page's B is the clip presented second.
    assert (vote.clip_a if vote.choice == "a" else vote.clip_b) == second
    assert 3.0 <= vote.heard_a_seconds <= 4.0
    assert 3.0 <= vote.heard_b_seconds <= 4.0
    assert vote.clip_a.prompt == "a slow sad waltz on the accordion"

    tab.reload()
    tab.get_by_text("Your vote is saved.").wait_for()
    tab.keyboard.press("n")
    tab.get_by_role("heading", name="What would you like to hear?").wait_for()


def test_a_vote_outlives_a_broken_network_and_a_reload(
    page: Any, tab: Any, address: str, wait_for: Callable[..., Any]
) -> None:
    sent: list[dict[str, Any]] = []

    def refuse(route: Any) -> None:
        sent.append(json.loads(route.request.post_data))
        route.abort()

    ask(tab, address, "a fast jig")
    tab.route("**/api/votes", refuse)
    tab.keyboard.press("c")
    tab.get_by_text("Your vote is kept here").wait_for()
    tab.reload()
    wait_for(lambda: tab.evaluate("1") and len(sent) >= 3)
    assert list(page.store.current_votes()) == []
    tab.unroute("**/api/votes", refuse)
    tab.get_by_text("Your vote is saved.").wait_for()
    assert len({body["key"] for body in sent}) == 1
    (vote,) = page.store.current_votes()
    assert vote.choice == "cannot_play"
    assert tab.evaluate("localStorage.getItem('musicrl.unsent-votes')") == "[]"


def test_keyboard_stays_out_of_the_text_field_and_can_be_switched_off(tab: Any, address: str) -> None:
    tab.goto(address)
    field = tab.get_by_label("Describe the music")
    field.press_sequentially("what? a fox 12")
    assert field.input_value() == "what? a fox 12"
    assert not tab.locator("dialog[open]").is_visible()
    tab.get_by_role("button", name="Help and shortcuts").click()
    tab.get_by_label("Use single-key shortcuts").uncheck()
    tab.get_by_role("button", name="Close").click()
    tab.keyboard.press("?")
    assert not tab.locator("dialog[open]").is_visible()
    field.fill("")
    tab.get_by_role("button", name="Make two clips").click()
    tab.get_by_text("Write a few words about the music first.").wait_for()
    tab.get_by_role("button", name="Surprise me").click()
    assert field.input_value() in ("a fast jig", "a slow waltz")


def test_a_failed_pair_says_so_and_keeps_the_prompt(tab: Any, address: str) -> None:
    tab.goto(address)
    tab.get_by_label("Describe the music").fill("a silent waltz")
    tab.keyboard.press("Enter")
    tab.get_by_text("no playable pair came out of 3 tries").wait_for()
    tab.get_by_role("button", name="Try again").click()
    assert tab.get_by_label("Describe the music").input_value() == "a silent waltz"
