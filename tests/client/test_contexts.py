"""Cookies and storage: out of one session, into the next."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from browsercloud import BrowserCloud, InvalidRequest, SessionContext
from browsercloud.local import LocalServer
from browsercloud.wire import dump
from tests.serving import KEY, NO_POOL, serving

SECRET = "s3cret-of-the-login"

FILL = """async () => {
  const open = indexedDB.open('app', 3);
  open.onupgradeneeded = () => {
    const plain = open.result.createObjectStore('plain', { keyPath: 'id', autoIncrement: true });
    plain.createIndex('by name', 'name', { unique: true });
    open.result.createObjectStore('odd');
  };
  const db = await new Promise((resolve) => { open.onsuccess = () => resolve(open.result); });
  const change = db.transaction(['plain', 'odd'], 'readwrite');
  change.objectStore('plain').put({ name: 'x', list: [1, { two: null }] });
  const odd = {
    date: new Date(5), map: new Map([[1, new Set(['q'])]]), nan: NaN, none: undefined, big: 10n,
    pattern: /a/gi, numbers: new Uint16Array([1, 65535]), blob: new Blob(['hey'], { type: 'a/b' }),
  };
  odd.self = odd;
  change.objectStore('odd').put(odd, new Date(7));
  change.objectStore('odd').put(null, 'null');
  await new Promise((resolve) => { change.oncomplete = resolve; });
  db.close();
  localStorage.setItem('local', 'é');
  localStorage.setItem('length', '7');
  sessionStorage.setItem('tab', '2');
}"""

ODD = """async () => {
  const open = indexedDB.open('app');
  const db = await new Promise((resolve) => { open.onsuccess = () => resolve(open.result); });
  const ask = db.transaction('odd').objectStore('odd').get(new Date(7));
  const odd = await new Promise((resolve) => { ask.onsuccess = () => resolve(ask.result); });
  db.close();
  return [
    odd.date.getTime(), odd.map.get(1).has('q'), String(odd.nan), 'none' in odd, String(odd.big),
    String(odd.pattern), [...odd.numbers], await odd.blob.text(), odd.blob.type, odd.self === odd,
  ];
}"""

FRAME = """(url) => new Promise((resolve) => {
  const frame = document.createElement('iframe');
  frame.onload = resolve;
  frame.src = url;
  document.body.append(frame);
})"""


class Site:
    """Two origins that remember what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.one = self.other = ""

    async def open(self) -> web.AppRunner:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.one, self.other = f"http://localhost:{port}", f"http://127.0.0.1:{port}"
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers.get("Cookie", "")))
        page = "<script>first = [localStorage.local, sessionStorage.tab]</script>"
        reply = web.Response(text=page, content_type="text/html")
        if request.path == "/login":
            reply.set_cookie("sid", SECRET, httponly=True, samesite="Strict", max_age=1000)
        if request.path == "/frame":
            attributes = "Secure; Path=/; SameSite=None; Partitioned; HttpOnly"
            reply.headers["Set-Cookie"] = f"__Host-part=1; {attributes}"
        return reply


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A site that is there during the test."""
    site = Site()
    runner = await site.open()
    yield site
    await runner.cleanup()


async def login(client: BrowserCloud, site: Site, browser: Any) -> SessionContext:
    """The context of a session that has logged in, used all kinds of storage and gone elsewhere."""
    async with client.session(browser=browser) as session:
        await session.page.goto(f"{site.one}/login")
        await session.page.evaluate(FILL)
        await session.page.evaluate(FRAME, f"{site.other}/frame")
        opened: list[str] = []
        session.context.on("page", lambda page: opened.append(page.url))
        tab = await session.context.new_page()
        await tab.goto(f"{site.other}/")
        await tab.evaluate("localStorage.setItem('local', 'other')")
        await tab.close()
        opened.clear()
        context = await session.get_context()
        assert browser == "headless-shell" or opened == []
        await session.set_context(context)
        assert context == await session.get_context()
        assert SECRET not in repr(context)
        return context


@pytest.fixture(params=["chromium, embedded", "headless-shell, elsewhere"])
async def where(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[tuple[Any, str]]:
    """A client and what to ask it for: from the pool of its own, or of a server on its own."""
    browser, _, place = request.param.partition(", ")
    if place == "embedded":
        async with BrowserCloud(pool=1) as client:
            yield client, browser
    else:
        with serving(root, *NO_POOL) as server:
            async with BrowserCloud(server.url, api_key=KEY) as client:
                yield client, browser


async def test_a_login_works_in_the_next_session(site: Site, where: tuple[Any, str]) -> None:
    """All of it is there before the first page, no site is asked, and read again it is equal."""
    client, browser = where
    context = await login(client, site, browser)
    assert {cookie.name for cookie in context.cookies} == {"sid", "__Host-part"}
    assert context.local_storage[site.one] == {"local": "é", "length": "7"}
    assert context.local_storage[site.other] == {"local": "other"}
    assert context.session_storage == {site.one: {"tab": "2"}}
    before = len(site.asked)
    async with client.session(browser=browser, session_context=context) as session:
        assert context == await session.get_context()
        assert before == len(site.asked)
        await session.page.goto(f"{site.one}/account")
        assert f"sid={SECRET}" in dict(site.asked[before:])["/account"]
        assert await session.page.evaluate("first") == ["é", "2"]
        expected = [5, True, "NaN", True, "10", "/a/gi", [1, 65535], "hey", "a/b", True]
        assert expected == await session.page.evaluate(ODD)
        await session.page.evaluate("sessionStorage.clear()")
        await session.page.reload()
        assert await session.page.evaluate("first") == ["é", None]
        record = await client.sessions.retrieve(session.id)
        events = await client.sessions.events(session.id)
        assert SECRET not in json.dumps(dump(record)) + json.dumps(dump(list(events)))
        await client.contexts.clear(session.id)
        assert SessionContext() == await client.contexts.get(session.id)


async def test_playwrights_form_is_taken_and_given(site: Site) -> None:
    """A `storage_state` is good as a context, and a context as a `storage_state`."""
    async with BrowserCloud(pool=0) as client, client.session(browser="headless-shell") as session:
        await session.page.goto(f"{site.one}/login")
        await session.page.evaluate("localStorage.setItem('local', '1')")
        state: Any = await session.context.storage_state(indexed_db=True)
        await client.contexts.clear(session.id)
        await session.set_context(state)
        context = await session.get_context()
        assert context.local_storage == {site.one: {"local": "1"}}
        assert [cookie.value for cookie in context.cookies] == [SECRET]
        assert session.browser is not None
        own: Any = context.to_storage_state()
        fresh = await session.browser.new_context(storage_state=own)
        assert await fresh.storage_state(indexed_db=True) == state
        await fresh.close()
        await client.contexts.set_cookies(session.id, [])
        assert await client.contexts.cookies(session.id) == ()


async def test_what_the_browser_refuses_is_named(site: Site) -> None:
    """With the path of each such cookie, at create and later."""
    fine = {"name": "fine", "value": "1", "url": f"{site.one}/"}
    bad = {"name": "__Secure-bad", "value": "1", "url": f"{site.one}/"}
    silent = {"name": "silent", "value": "1", "domain": "localhost", "sameSite": "None"}
    async with LocalServer() as server, BrowserCloud(server.url, api_key=server.api_key) as client:
        given = {"cookies": [fine, bad, silent]}
        with pytest.raises(InvalidRequest) as refused:
            await client.sessions.create(browser="headless-shell", session_context=given)
        paths = [problem["path"] for problem in refused.value.details]
        assert paths == ["sessionContext.cookies[1]", "sessionContext.cookies[2]"]
        session = await client.sessions.create(browser="headless-shell")
        with pytest.raises(InvalidRequest, match=r"^cookies\[1\]: .*demands secure"):
            await client.contexts.set_cookies(session.id, [fine, bad])
        await client.sessions.release(session.id)


@pytest.mark.parametrize(
    ("context", "path"),
    [
        ({"cookies": [{"name": "a", "value": "b"}]}, "cookies[0].domain"),
        ({"cookies": [{"name": "a", "value": "b", "url": "a.b"}]}, "cookies[0].url"),
        ({"cookies": {"name": "a"}}, "cookies"),
        ({"localStorage": {"https://a.b/path": {}}}, "localStorage"),
        ({"localStorage": {"a.b": {}}}, "localStorage"),
        ({"localStorage": {"https://a.b": {"c": 1}}}, "localStorage['https://a.b']"),
        ({"localStorage": {"https://a.b": {"c": "x" * (2**24 + 1)}}}, "localStorage"),
        (
            {"indexedDB": {"https://a.b": [{"name": "a", "version": 0}]}},
            "indexedDB['https://a.b'][0].version",
        ),
        ({"surprise": 1}, "surprise"),
        ({"cookies": [], "origins": {}}, ""),
    ],
)
def test_bad_input_is_told_before_anything_is_sent(context: Mapping[str, Any], path: str) -> None:
    """With the path of the field."""
    with pytest.raises(InvalidRequest) as refused:
        BrowserCloud().session(session_context=context)
    assert [f"session_context.{path}".rstrip(".")] == [
        problem["path"] for problem in refused.value.details
    ]
