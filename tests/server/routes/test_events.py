"""`/v1/sessions/{id}/events`: pages, cursors, waiting, and whom it tells."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from browsercloud.server.config import DEFAULT_PROJECT
from browsercloud.server.routes import events
from tests.server.conftest import KEY, OTHER_KEY, Cloud, until
from tests.stores.test_contract import START, ended, row

SESSION = str(uuid.UUID(int=1))
PATH = f"/v1/sessions/{SESSION}/events"


@pytest.fixture
async def cloud(cloud: Cloud) -> Cloud:
    """A server with the record of a session of which only these tests tell anything."""
    await cloud.store.put(row(1, project=DEFAULT_PROJECT))
    return cloud


def note(cloud: Cloud, *kinds: str) -> None:
    """Let this have happened."""
    for kind in kinds:
        cloud.parts.journal.note(SESSION, kind)


async def end(cloud: Cloud) -> None:
    """End the session, and all that can be told of it."""
    await cloud.store.put(ended(row(1, project=DEFAULT_PROJECT), START))
    cloud.parts.journal.forget(SESSION)


async def page(cloud: Cloud, query: str = "") -> tuple[list[int], str | None]:
    """The numbers on one page, and its `Next-Cursor`."""
    async with cloud.http.get(cloud.url + PATH + query, headers={"x-api-key": KEY}) as reply:
        assert reply.status == 200, await reply.text()
        found = [event["number"] for event in await reply.json()]
        return found, reply.headers.get("Next-Cursor")


async def test_events_are_told_in_their_order(cloud: Cloud) -> None:
    """An array of all fields, with what was noted a moment ago."""
    note(cloud, "session.starting")
    cloud.parts.journal.note(SESSION, "session.failed", exit_code=1, stderr=("a", "b"))
    status, (first, second) = await cloud.call("GET", PATH)
    assert status == 200
    assert sorted(first) == ["at", "details", "number", "type"]
    assert (first["number"], first["type"], first["details"]) == (1, "session.starting", {})
    assert first["at"].endswith("Z")
    assert (second["number"], second["details"]) == (2, {"exitCode": 1, "stderr": ["a", "b"]})


async def test_pages_while_it_lives(cloud: Cloud) -> None:
    """There is always a cursor, on an empty page the one that was asked with."""
    assert await page(cloud) == ([], "0")
    note(cloud, *"abcde")
    assert await page(cloud, "?limit=2") == ([1, 2], "2")
    assert await page(cloud, "?pointer=2&limit=2") == ([3, 4], "4")
    assert await page(cloud, "?pointer=4") == ([5], "5")
    assert await page(cloud, "?pointer=5") == ([], "5")
    assert await page(cloud, "?pointer=999") == ([], "999")


async def test_pages_after_its_end(cloud: Cloud) -> None:
    """There is a cursor only when there is another page."""
    note(cloud, *"abcd")
    await end(cloud)
    assert await page(cloud, "?limit=3") == ([1, 2, 3], "3")
    assert await page(cloud, "?limit=4") == ([1, 2, 3, 4], None)
    assert await page(cloud, "?pointer=3&limit=1") == ([4], None)
    assert await page(cloud, "?pointer=9&wait=true") == ([], None)


async def test_the_last_word_is_waited_for(cloud: Cloud) -> None:
    """A record that says it is over, while there is still something to be told, is not the end."""
    note(cloud, "a")
    await cloud.store.put(ended(row(1, project=DEFAULT_PROJECT), START))
    assert await page(cloud) == ([1], "1")
    note(cloud, "session.released")
    cloud.parts.journal.forget(SESSION)
    assert await page(cloud, "?pointer=1") == ([2], None)


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("pointer=-1", ["pointer"]),
        ("pointer=1.5&limit=0", ["pointer", "limit"]),
        ("pointer=&limit=&wait=", ["pointer", "limit", "wait"]),
        ("pointer=٣&limit=1001&wait=yes", ["pointer", "limit", "wait"]),
        (f"pointer={10**30}&limit=NaN&wait=1", ["pointer", "limit", "wait"]),
        ("after=1&limit=1&limit=2", ["after", "limit"]),
    ],
)
async def test_bad_parameters_are_all_named(cloud: Cloud, query: str, wrong: list[str]) -> None:
    """One answer tells everything that is wrong."""
    status, answer = await cloud.call("GET", f"{PATH}?{query}")
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert [problem["path"] for problem in answer["error"]["details"]] == wrong


async def test_the_bounds_are_allowed(cloud: Cloud) -> None:
    """The least and the most of each parameter."""
    note(cloud, *"ab")
    assert await page(cloud, "?limit=1&pointer=0&wait=false") == ([1], "1")
    assert await page(cloud, f"?limit=1000&pointer={10**15 - 1}") == ([], str(10**15 - 1))


async def test_only_who_may_see_the_session_sees_its_events(cloud: Cloud) -> None:
    """Another project's key finds no such session; a token opens its own as long as that lives."""
    token = cloud.parts.trust.token(SESSION)
    other = cloud.parts.trust.token(str(uuid.UUID(int=2)))
    for query in ("", "?wait=true"):
        assert (await cloud.call("GET", PATH + query, key=OTHER_KEY))[0] == 404
        assert (await cloud.call("GET", PATH + query, key=None))[0] == 401
    assert (await cloud.call("GET", f"{PATH}?token={other}", key=None))[0] == 401
    assert (await cloud.call("GET", f"{PATH}?token={token}", key=None))[0] == 200
    await end(cloud)
    assert (await cloud.call("GET", f"{PATH}?token={token}", key=None))[0] == 410
    assert (await cloud.call("GET", PATH))[0] == 200


@pytest.mark.parametrize("wanted", ["nobody", "..%2F..%2Fetc", "%00", str(uuid.UUID(int=7))])
async def test_a_session_that_is_not_there_is_404(cloud: Cloud, wanted: str) -> None:
    """Whether or not it is waited for."""
    for query in ("", "?wait=true"):
        status, answer = await cloud.call("GET", f"/v1/sessions/{wanted}/events{query}")
        assert (status, answer["error"]["code"]) == (404, "session_not_found")


async def test_waiting_ends_with_the_next_event(cloud: Cloud) -> None:
    """What is there is told at once; else the next one, as soon as it happens."""
    note(cloud, "a")
    assert await page(cloud, "?wait=true") == ([1], "1")
    waiting = asyncio.create_task(page(cloud, "?pointer=1&wait=true"))
    await listened_to(cloud)
    assert not waiting.done()
    start = time.perf_counter()
    note(cloud, "b")
    assert await waiting == ([2], "2")
    assert time.perf_counter() - start < 1


async def test_waiting_ends_with_the_session(cloud: Cloud) -> None:
    """With what it ended with, or with nothing; and nothing more will come."""
    note(cloud, "a")
    waiting = [
        asyncio.create_task(page(cloud, f"?pointer={pointer}&wait=true")) for pointer in (1, 9)
    ]
    await listened_to(cloud, 2)
    note(cloud, "b")
    await end(cloud)
    (numbers, cursor), nothing = await asyncio.gather(*waiting)
    assert numbers == [2]
    assert cursor in (None, "2")
    assert nothing[0] == []


async def test_a_wait_is_bounded(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the answer is empty, with the cursor to ask again."""
    monkeypatch.setattr(events, "WAIT", 0.05)
    assert await page(cloud, "?pointer=3&wait=true") == ([], "3")
    assert cloud.parts.journal._listeners == {}


async def test_a_revoked_key_ends_its_wait(cloud: Cloud) -> None:
    """At once, and it is told nothing."""
    key, key_id = await cloud.new_key()
    waiting = asyncio.create_task(cloud.call("GET", PATH + "?wait=true", key=key))
    await listened_to(cloud)
    await cloud.revoke(key_id)
    status, answer = await waiting
    assert (status, answer["error"]["code"]) == (401, "not_authorized")


async def test_who_waits_does_not_keep_the_server(cloud: Cloud) -> None:
    """It is answered when the server ends, long before its time is over."""
    waiting = asyncio.create_task(page(cloud, "?wait=true"))
    await listened_to(cloud)
    start = time.perf_counter()
    await cloud.server.stop()
    assert time.perf_counter() - start < 2
    assert await waiting == ([], "0")


async def test_who_hangs_up_leaves_nothing(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the latest when its time is over."""
    monkeypatch.setattr(events, "WAIT", 0.1)
    waiting = asyncio.create_task(page(cloud, "?wait=true"))
    await listened_to(cloud)
    waiting.cancel()
    await until(lambda: cloud.parts.journal._listeners == {})


async def listened_to(cloud: Cloud, times: int = 1) -> None:
    """Return when so many wait for the next event."""
    found: dict[str, Any] = cloud.parts.journal._listeners
    await until(lambda: len(found.get(SESSION, ())) == times)
