"""Programs written for Steel, unchanged: its official client, against a real server."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import re
import struct
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import steel
from playwright.async_api import async_playwright
from playwright.sync_api import sync_playwright
from steel import AsyncSteel, Steel
from steel.types import Session as SteelSession
from steel.types import SessionLiveDetailsResponse

from browsercloud.models import ReleaseReason, SessionStatus
from browsercloud.server.routes.later import NOT_YET
from browsercloud.wire import ASKS_FOR_NOTHING
from tests.conftest import Site
from tests.server.conftest import KEY, OTHER_KEY, Cloud

README = Path(__file__).parents[2] / "README.md"

WORKS = {
    "sessions.create",
    "sessions.retrieve",
    "sessions.list",
    "sessions.live_details",
    "sessions.events",
    "sessions.computer",
    "sessions.context",
    "sessions.release",
    "sessions.release_all",
}

GIVEN: dict[str, Any] = {
    "id": str(uuid.uuid4()),
    "session_id": str(uuid.uuid4()),
    "extension_id": "ext",
    "path": "reports/a b.txt",
    "url": "https://example.com",
    "file": b"content",
    "user_data_dir": b"content",
    "image_x_path": "//img",
    "input_x_path": "//input",
    "origin": "https://example.com",
    "value": {"username": "u", "password": "p"},
}
"""What a call needs at least, by the name of the parameter."""


@pytest.fixture
async def client(cloud: Cloud) -> AsyncIterator[AsyncSteel]:
    """Steel's client of a server whose sessions have no browser."""
    async with AsyncSteel(steel_api_key=KEY, base_url=cloud.url) as client:
        yield client


def program(url: str, connect: str, site: str) -> list[str]:
    """As Steel's documentation writes it; only the two addresses are ours."""
    with Steel(steel_api_key=KEY, base_url=url) as client:
        session = client.sessions.create(
            api_timeout=60_000,
            dimensions={"width": 800, "height": 600},
            user_agent="Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/131.0.0.0",
            use_proxy=False,
            solve_captcha=False,
            block_ads=False,
        )
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.connect_over_cdp(
                    f"{connect}?apiKey={KEY}&sessionId={session.id}"
                )
                page = browser.contexts[0].pages[0]
                page.goto(site)
                told = [page.title(), page.evaluate("navigator.userAgent.slice(-20)")]
                told.append(page.evaluate("`${innerWidth}x${innerHeight}`"))
                open_now = client.sessions.live_details(session.id)
                told.append(open_now.pages[0].url)
                browser.close()
        finally:
            released = client.sessions.release(session.id)
        while (status := client.sessions.retrieve(session.id).status) == "releasing":
            time.sleep(0.05)
        return [*told, str(released.success), status]


async def test_a_sync_program_runs_unchanged(real_cloud: Cloud, site: Site) -> None:
    """Create with options, connect by Steel's address, drive, look, release."""
    connect = real_cloud.url.replace("http", "ws")
    told = await asyncio.to_thread(program, real_cloud.url, connect, site.url)
    assert ["Home", "Chrome/131.0.0.0", "800x600"] == [told[0], told[1].split()[-1], told[2]]
    assert [site.url + "/", "True", "released"] == told[3:]


PLAYGROUND = """<!doctype html><title>Playground</title>
<body style="margin:0;height:3000px">
<input style="position:absolute;left:10px;top:10px;width:200px">
<div style="position:absolute;left:0;top:100px;width:400px;height:300px;background:red"></div>
<script>
window.log = [];
for (const kind of ["mousedown", "mousemove", "mouseup", "dblclick", "contextmenu"])
  document.querySelector("div").addEventListener(kind, event => {
    log.push([kind, event.clientX, event.clientY, event.buttons, event.shiftKey].join(" "));
    event.preventDefault();
  });
</script>"""


async def test_an_async_program_moves_mouse_and_keyboard(
    real_cloud: Cloud, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Every action of the computer does to the page what a hand would."""
    site.pages["/play"] = PLAYGROUND
    async with AsyncSteel(steel_api_key=KEY, base_url=real_cloud.url) as client:
        session = await client.sessions.create(dimensions={"width": 640, "height": 480})
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(
                f"{session.websocket_url}&apiKey={KEY}"
            )
            page = browser.contexts[0].pages[0]
            await page.goto(f"{site.url}/play")

            async def do(action: str, **more: Any) -> Any:
                return await client.sessions.computer(session.id, action=action, **more)

            async def log() -> list[str]:
                return list(await page.evaluate("log.splice(0)"))

            async def value() -> str:
                return str(await page.input_value("input"))

            await do("click_mouse", coordinates=[50, 20])
            await do("type_text", text="Hi, Bób!")
            assert "Hi, Bób!" == await value()
            await do("press_key", keys=["CTRL", "a"], duration=0.01)
            await do("press_key", keys=["Backspace"])
            await do("type_text", text="ab1", hold_keys=["Shift"])
            assert "AB!" == await value()

            await do("click_mouse", coordinates=[100, 200], num_clicks=2, hold_keys=["shift"])
            assert "dblclick 100 200 0 true" == (await log())[-1]
            await do("click_mouse", button="right")
            assert {"mousedown 100 200 2 false", "contextmenu 100 200 2 false"} <= set(await log())

            await do("drag_mouse", path=[[20, 150], [60, 160], [90, 170]])
            dragged = ["mousedown 20 150 1", "mousemove 60 160 1", "mousemove 90 170 1"]
            assert [*dragged, "mouseup 90 170 0"] == [
                line.removesuffix(" false") for line in (await log())[1:]
            ]
            await do("click_mouse", click_type="down", coordinates=[30, 130])
            await do("move_mouse", coordinates=[40, 140])
            await do("click_mouse", click_type="up")
            assert "mousemove 40 140 1 false" in (told := await log())
            assert "mouseup 40 140 0 false" == told[-1]

            where = await do("get_cursor_position")
            assert ("X=40,Y=140", None) == (where.output, where.base64_image)
            await do("scroll", coordinates=[40, 140], delta_y=300)
            await page.wait_for_function("scrollY === 300")

            picture = base64.b64decode((await do("take_screenshot")).base64_image)
            assert (b"\x89PNG", (640, 480)) == (picture[:4], struct.unpack(">II", picture[16:24]))
            shown = await do("wait", duration=0.01, screenshot=True)
            assert shown.base64_image.startswith("iVBOR")

            # The tab in front is the one that is meant.
            front = await browser.contexts[0].new_page()
            await front.goto(f"{site.url}/play")
            await do("click_mouse", coordinates=[50, 20])
            await do("press_key", keys=["x"])
            assert ("x", "AB!") == (await front.input_value("input"), await value())

            await front.evaluate("void (onkeydown = event => document.title = event.key)")
            held = asyncio.create_task(do("press_key", keys=["Shift", "y"], duration=30))
            waiting = asyncio.create_task(do("wait", duration=30))
            await front.wait_for_function("document.title === 'Y'")
            await browser.close()
            await client.sessions.release_all()
            for broken_off in (held, waiting):
                with pytest.raises(steel.APIStatusError) as caught:
                    await broken_off
                assert 410 == caught.value.status_code
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"action": "jump"}, "action"),
        ({"action": "move_mouse"}, "coordinates"),
        ({"action": "move_mouse", "coordinates": [1]}, "coordinates"),
        ({"action": "move_mouse", "coordinates": [1, -1]}, "coordinates"),
        ({"action": "click_mouse", "button": "fourth"}, "button"),
        ({"action": "click_mouse", "num_clicks": 1.5}, "num_clicks"),
        ({"action": "press_key", "keys": []}, "keys"),
        ({"action": "press_key", "keys": ["Any"]}, "keys"),
        ({"action": "drag_mouse", "path": [[1, 1]]}, "path"),
        ({"action": "wait", "duration": 31}, "duration"),
        ({"action": "wait", "duration": "1"}, "duration"),
        ({"action": "wait", "text": "x", "duration": 1}, "text"),
    ],
)
async def test_an_action_that_cannot_be_meant_is_refused(
    cloud: Cloud, asked: dict[str, Any], path: str
) -> None:
    """With the path of what is wrong; nothing reaches a browser."""
    record = await cloud.create()
    status, answer = await cloud.call("POST", f"/v1/sessions/{record['id']}/computer", json=asked)
    assert (400, [path]) == (status, [each["path"] for each in answer["error"]["details"]])


async def test_an_action_counts_as_traffic(cloud: Cloud) -> None:
    """A session that is driven by hand is not idle, whatever comes of the action."""
    record = await cloud.create()
    session = cloud.parts.sessions.live(record["id"])
    assert session is not None
    before, path = session.traffic.last, f"/v1/sessions/{record['id']}/computer"
    status, _ = await cloud.call("POST", path, json={"action": "get_cursor_position"})
    assert 502 == status  # there is no browser
    assert session.traffic.last > before


async def test_a_listing_walks_all_pages_and_ends(cloud: Cloud, client: AsyncSteel) -> None:
    """Newest first, page by page as the client itself asks, and by state."""
    ids = [(await client.sessions.create()).id for _ in range(5)]
    assert ids[::-1] == [session.id async for session in client.sessions.list(limit=2)]
    await client.sessions.release(ids[0])
    assert ids[:0:-1] == [one.id async for one in client.sessions.list(status="live", limit=3)]
    page = await client.sessions.list(cursor_id=ids[2])
    assert ids[1::-1] == [session.id for session in page.sessions]
    assert (await client.sessions.release_all()).success
    assert not [one async for one in client.sessions.list(status="live")]

    def in_a_thread() -> list[str]:
        with Steel(steel_api_key=KEY, base_url=cloud.url) as other:
            return [session.id for session in other.sessions.list(limit=2)]

    assert ids[::-1] == await asyncio.to_thread(in_a_thread)


async def test_events_are_paged_as_steels_are(client: AsyncSteel) -> None:
    """A list; `Next-Cursor` is the pointer of the next page."""
    session = await client.sessions.create()
    first = await client.sessions.with_raw_response.events(session.id, limit=1)
    events: Any = await first.parse()
    rest: Any = await client.sessions.events(
        session.id, pointer=first.headers["Next-Cursor"], compressed=False
    )
    assert [1, 2] == [events[0]["number"], rest[0]["number"]]
    with pytest.raises(steel.BadRequestError, match="compressed"):
        await client.sessions.events(session.id, compressed=True)


async def test_records_are_what_steels_models_say(cloud: Cloud, client: AsyncSteel) -> None:
    """Field by field, live and ended; only states and reasons are finer than Steel's."""
    record = await cloud.create(isSelenium=True)
    told = SteelSession.model_validate_json(json.dumps(record), strict=True)
    assert ("live", True, 0, 0) == (
        told.status,
        told.is_selenium,
        told.credits_used,
        told.proxy_bytes_used,
    )
    assert not (await client.sessions.create(is_selenium=False)).is_selenium
    await client.sessions.release(told.id)
    for path in ("", f"/{told.id}"):
        _, answer = await cloud.call("GET", f"/v1/sessions{path}")
        for each in answer.get("sessions", [answer]):
            SteelSession.model_validate_json(json.dumps(each), strict=True)
    states = set(get_args(SteelSession.model_fields["status"].annotation))
    assert {"queued", "starting", "releasing"} == set(SessionStatus) - states
    reason = SteelSession.model_fields["release_reason"].annotation
    reasons = set(get_args(get_args(reason)[0]))
    assert {"lease_lost", "out_of_memory", "shutdown"} == set(ReleaseReason) - reasons


async def test_live_details_are_what_steels_model_says(real_cloud: Cloud) -> None:
    """Every field that Steel names, of the type it names."""
    record = await real_cloud.create(browser="headless-shell")
    _, told = await real_cloud.call("GET", f"/v1/sessions/{record['id']}/live-details")
    live = SessionLiveDetailsResponse.model_validate_json(json.dumps(told), strict=True)
    assert ["about:blank"] == [page.url for page in live.pages]


@pytest.mark.parametrize("option", sorted(ASKS_FOR_NOTHING))
async def test_what_asks_for_nothing_is_taken_and_what_asks_for_more_is_refused(
    cloud: Cloud, option: str
) -> None:
    """By the option's name, never ignored."""
    for nothing in (*ASKS_FOR_NOTHING[option], None):
        status, record = await cloud.call("POST", "/v1/sessions", json={option: nothing})
        assert 201 == status
        assert {} == record["config"]
    for more in (True, "x", ["x"], {"x": "x"}, 0, 2):
        status, answer = await cloud.call("POST", "/v1/sessions", json={option: more})
        assert (400, option) == (status, answer["error"]["details"][0]["path"])


async def test_parts_of_what_asks_for_nothing_ask_for_nothing(cloud: Cloud) -> None:
    """An object may have any of its fields; one that asks for something spoils it."""
    for body in (
        {"optimizeBandwidth": {"blockImages": False}},
        {"deviceConfig": {}},
    ):
        status, _ = await cloud.call("POST", "/v1/sessions", json=body)
        assert 201 == status
    for body in (
        {"optimizeBandwidth": {"blockImages": True, "blockMedia": False}},
        {"deviceConfig": {"device": "tv"}},
        {"isSelenium": True, "adapter": "playwright"},
        {"isSelenium": "yes"},
        {"projectId": "p"},
    ):
        status, answer = await cloud.call("POST", "/v1/sessions", json=body)
        assert (400, next(iter(body))) == (status, answer["error"]["details"][0]["path"])


async def test_errors_are_the_clients_own(cloud: Cloud, client: AsyncSteel) -> None:
    """Each status is the exception that Steel's programs catch, with a message that says why."""
    with pytest.raises(steel.NotFoundError, match="no session"):
        await client.sessions.retrieve(str(uuid.uuid4()))
    with pytest.raises(steel.BadRequestError, match="region"):
        await client.sessions.create(region="fra")
    async with AsyncSteel(steel_api_key="wrong", base_url=cloud.url) as stranger:
        with pytest.raises(steel.AuthenticationError, match="unknown API key"):
            await stranger.sessions.create()
    mine = await client.sessions.create()
    async with AsyncSteel(steel_api_key=OTHER_KEY, base_url=cloud.url) as other:
        with pytest.raises(steel.NotFoundError):
            await other.sessions.computer(mine.id, action="get_cursor_position")


def calls_of(noun: Any, name: str = "") -> Iterator[str]:
    """Every call of the client, or of one of its nouns, as programs write it."""
    of_every_client = {*dir(steel.AsyncSteel.__base__), "copy"} if not name else set()
    for each in set(dir(type(noun))) - of_every_client:
        found = getattr(noun, each) if not each.startswith(("_", "with_")) else None
        if inspect.ismethod(found):
            yield f"{name}{each}"
        elif type(found).__module__.startswith("steel.resources"):
            yield from calls_of(found, f"{name}{each}.")


def test_every_call_of_the_client_works_or_is_listed(client: AsyncSteel) -> None:
    """There is no third kind."""
    listed = [later.call for later in NOT_YET]
    assert set(calls_of(client)) == WORKS | set(listed)
    assert len(listed) == len(set(listed))


async def test_what_is_not_built_says_so_and_is_not_asked_again(cloud: Cloud) -> None:
    """501 `invalid_request` that names the part; the client does not repeat it."""
    asked: list[str] = []

    async def note(request: httpx.Request) -> None:
        asked.append(request.url.path)

    http = steel.DefaultAsyncHttpxClient(event_hooks={"request": [note]})
    async with AsyncSteel(steel_api_key=KEY, base_url=cloud.url, http_client=http) as client:
        for later in NOT_YET:
            call: Any = client
            for name in later.call.split("."):
                call = getattr(call, name)
            needed = [
                name
                for name, one in inspect.signature(call).parameters.items()
                if one.default is inspect.Parameter.empty
            ]
            with pytest.raises(steel.InternalServerError) as caught:
                await call(**{name: GIVEN[name] for name in needed})
            body: Any = caught.value.body
            told = (caught.value.status_code, body["error"]["code"])
            assert (501, "invalid_request") == told, later.call
            assert body["message"].endswith(later.part)
    assert len(NOT_YET) == len(asked)
    status, _ = await cloud.call("GET", "/v1/files", key=None)
    assert 401 == status


def test_the_readme_tells_what_works_and_what_does_not() -> None:
    """Its table has a row for each part that is missing, and names every call."""
    section = README.read_text().partition("### Steel programs")[2].partition("\n#")[0]
    missing: dict[str, list[str]] = {}
    for later in NOT_YET:
        missing.setdefault(later.part, []).append(f"`{later.call}`")
    expected = [f"| {', '.join(calls)} | not yet: {part} |" for part, calls in missing.items()]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert expected == [line for line in rows if "not yet" in line]
    working = "".join(line for line in rows if "not yet" not in line)
    assert set(re.findall(r"`(sessions\.\w+)`", working)) == WORKS
    for option in ASKS_FOR_NOTHING:
        name = re.sub("([A-Z])", r"_\1", option).lower()
        assert f"`{name}" in section
