"""Cookies and storage of a browser, taken out and put in over CDP, whatever its tabs show.

An origin that no tab shows is reached in a page of ours: all its requests are answered here, so
nothing goes over the network, and no service worker is started. Chromium hides such a page from
other clients; the headless shell shows it to them for a moment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import field, frozen

from browsercloud._aio import deadline, settle
from browsercloud._later import later
from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.context import Cookie, Database, Items, SessionContext, origin_of
from browsercloud.errors import Conflict, ServiceError

if TYPE_CHECKING:
    from browsercloud import wire
else:
    wire = later("browsercloud.wire")

R = TypeVar("R")

MAX_ORIGINS = 200
"""Origins that are looked into; those that are named or open come first."""

MAX_TEXT = 32 * 2**20
"""Characters of JSON that one origin may have stored."""

PAGE_TIMEOUT = 15.0
TAB_TIMEOUT = 3.0
"""How long a tab may take to tell its session storage, in seconds; a busy one is left out."""

CLOSE_PATIENCE = 5.0
GONE_PATIENCE = 2.0
AT_ONCE = 4
SHARED = "local_storage,indexeddb"
EVERYTHING = "all"

DETOUR = "http://127.0.0.1:9/"
"""Where pages of ours come from: Chromium connects to the place where a navigation begins, even
when the request never gets there. Nobody listens here."""

BLANK = {
    "responseCode": 200,
    "responseHeaders": [{"name": "Content-Type", "value": "text/html"}],
    "body": "",
}

log = logging.getLogger(__name__)


@frozen(kw_only=True)
class _Tab:
    """A page that somebody has open."""

    target: str
    origin: str | None
    items: Mapping[str, str] = field(factory=dict, repr=False)
    visited: tuple[str, ...] = ()


async def take(
    cdp: CdpConnection, *, visited: Iterable[str] = (), seeded: Items | None = None
) -> SessionContext:
    """All cookies, and the storage of open tabs, of what they showed before, and of *visited*.

    *seeded* is the session storage that tabs are given when they come to an origin first. Raises
    `CdpError`, `Conflict` for what cannot be carried out of the browser, `ServiceError` for too
    much of it.
    """
    cookies, tabs = await asyncio.gather(get_cookies(cdp), _tabs(cdp))
    sessions = dict(seeded or {})
    for tab in reversed(tabs):
        if tab.origin is not None:
            sessions[tab.origin] = dict(tab.items)
    known = [each.origin for each in tabs if each.origin is not None]
    known += [*visited, *(origin for tab in tabs for origin in tab.visited)]
    origins = list(dict.fromkeys(known))[:MAX_ORIGINS]
    found = dict(zip(origins, await _each(origins, lambda each: _stored(cdp, each)), strict=True))
    return SessionContext(
        cookies=cookies,
        local_storage={origin: local for origin, (local, _) in found.items() if local},
        session_storage={origin: items for origin, items in sessions.items() if items},
        indexed_db={origin: databases for origin, (_, databases) in found.items() if databases},
    )


async def put(cdp: CdpConnection, context: SessionContext, *, at: str = "") -> None:
    """Add *context* to what there is; of session storage what belongs to open tabs.

    Raises `InvalidRequest` for what the browser refuses, with its path below *at*, and `CdpError`.
    """
    work: list[Awaitable[Any]] = []
    if context.cookies:
        work.append(set_cookies(cdp, context.cookies, at=at))
    if context.origins:
        work.append(_each(context.origins, lambda origin: _store(cdp, origin, context, at)))
    if context.session_storage:
        work.append(_give_tabs(cdp, context.session_storage))
    for answer in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer


async def clear(cdp: CdpConnection, *, kinds: str = EVERYTHING) -> None:
    """Remove the cookies, and all origins' storage of these *kinds*, with that of open tabs."""
    async with _page(cdp) as page:
        await asyncio.gather(
            cdp.send("Storage.clearCookies"),
            cdp.send("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": kinds}, page),
            _in_tabs(cdp, _emptied),
        )


async def get_cookies(cdp: CdpConnection) -> tuple[Cookie, ...]:
    """Every cookie, in the order of the browser."""
    told = (await cdp.send("Storage.getCookies"))["cookies"]
    return tuple(_cookie(each) for each in told)


async def set_cookies(
    cdp: CdpConnection, cookies: Sequence[Cookie], *, at: str = "", replace: bool = False
) -> None:
    """Add the cookies; with *replace* there are no others afterwards.

    Raises `InvalidRequest` with the paths of those that the browser refuses.
    """
    if replace:
        await cdp.send("Storage.clearCookies")
    given = [_param(cookie) for cookie in cookies]
    try:
        _, now = await _both(
            cdp.send("Storage.setCookies", {"cookies": given}), cdp.send("Storage.getCookies")
        )
    except CdpError as error:
        if error.code is None:
            raise
        for each in given:  # one that is malformed keeps all others out
            await _try(cdp, each)
        now = await cdp.send("Storage.getCookies")
    there = {(each["name"], each["domain"].lstrip(".")) for each in now["cookies"]}
    refused = [n for n, each in enumerate(cookies) if not _expected(each) <= there]
    if refused:
        raise wire.invalid(
            [(_join(at, f"cookies[{n}]"), _why_refused(cookies[n])) for n in refused]
        )


def seed_script(new: Items, old: Items | None = None) -> str:
    """A script for every new document: a tab that comes to an origin first has its items.

    Where the tab has been before nothing is done: what a page has removed stays removed. *old* is
    what an earlier script of this kind may have put there in this moment.
    """
    given = json.dumps([new, old or {}])
    return f"({_SEED})(...{given})"


_SEED = """(fresh, stale) => {
  if (window !== top || !/^https?:$/.test(location.protocol)) return;
  const origin = location.origin, wanted = fresh[origin], before = stale[origin] || {};
  if (!wanted && !stale[origin]) return;
  try {
    const kind = performance.getEntriesByType('navigation')[0]?.type;
    if (kind === 'reload' || kind === 'back_forward') return;
    if (document.referrer && new URL(document.referrer).origin === origin) return;
    const names = Object.keys(before);
    const same = sessionStorage.length === names.length
      && names.every((name) => sessionStorage.getItem(name) === before[name]);
    if (sessionStorage.length && !same) return;
    sessionStorage.clear();
    for (const [name, value] of Object.entries(wanted || {})) sessionStorage.setItem(name, value);
  } catch { /* a sandboxed document has no storage */ }
}"""


# ---------------------------------------------------------------------- cookies


def _cookie(told: Mapping[str, Any]) -> Cookie:
    session = told.get("session") or told["expires"] < 0
    kept = {**told, "expires": None if session else told["expires"]}
    return wire.load(kept, Cookie)


def _param(cookie: Cookie) -> dict[str, Any]:
    told = {name: value for name, value in wire.dump(cookie).items() if value is not None}
    if cookie.expires is not None and cookie.expires < 0:
        del told["expires"]
    return told


def _expected(cookie: Cookie) -> set[tuple[str, str]]:
    """Under which name and host it has to be found; nothing for one that is over already."""
    if cookie.expires is not None and 0 <= cookie.expires <= time.time():
        return set()
    host = cookie.domain or (origin_of(cookie.url or "") or "").partition("//")[2]
    host = host if cookie.domain else host.partition(":")[0]
    return {(cookie.name, host.lstrip(".").lower())}


def _why_refused(cookie: Cookie) -> str:
    secure = cookie.secure or (cookie.url or "").startswith("https:")
    if cookie.name.startswith(("__Secure-", "__Host-")) and not cookie.secure:
        return f"the browser refuses {cookie.name!r}: its name demands secure"
    if str(cookie.same_site) == "None" and not secure:
        return f"the browser refuses {cookie.name!r}: sameSite None demands secure"
    if cookie.name.startswith("__Host-"):
        return f"the browser refuses {cookie.name!r}: its name demands path / and a host's domain"
    return f"the browser refuses {cookie.name!r}: look at its name, value, domain and path"


async def _try(cdp: CdpConnection, cookie: Mapping[str, Any]) -> None:
    try:
        await cdp.send("Storage.setCookies", {"cookies": [cookie]})
    except CdpError as error:
        if error.code is None:
            raise
        log.debug("a cookie is refused")


# ---------------------------------------------------------------------- origins


@cache
def _source() -> str:
    return Path(__file__).with_name("storage.js").read_text().strip()


async def _stored(cdp: CdpConnection, origin: str) -> tuple[Mapping[str, str], Any]:
    async with _page(cdp, origin) as page:
        told = await _run(cdp, page, f"{_source()}.take()", origin)
    return told["local"], tuple(wire.load(each, Database) for each in told["databases"])


async def _store(cdp: CdpConnection, origin: str, context: SessionContext, at: str) -> None:
    local = context.local_storage.get(origin, {})
    databases = context.indexed_db.get(origin, ())
    given = json.dumps({"local": dict(local), "databases": [wire.dump(each) for each in databases]})
    try:
        async with _page(cdp, origin) as page:
            await _run(cdp, page, f"{_source()}.put({given})", origin)
    except Conflict as error:
        kind = "localStorage" if not databases or "quota" in error.message else "indexedDB"
        raise wire.invalid([(_join(at, kind), error.message)]) from error


async def _run(cdp: CdpConnection, page: str, expression: str, origin: str) -> dict[str, Any]:
    call = {"expression": expression, "awaitPromise": True, "returnByValue": True}
    answer = await cdp.send("Runtime.evaluate", call, page, timeout=PAGE_TIMEOUT)
    if "exceptionDetails" in answer:
        thrown = answer["exceptionDetails"].get("exception", {})
        why = thrown.get("description") or thrown.get("value") or "it failed"
        raise Conflict(f"{origin}: {str(why).splitlines()[0]}")
    text = answer["result"]["value"]
    if len(text) > MAX_TEXT:
        raise ServiceError(
            f"{origin} has stored more than {MAX_TEXT} characters",
            status=413,
            code="too_large",
        )
    told: dict[str, Any] = json.loads(text)
    if told["origin"] != origin:
        raise Conflict(f"{origin}: the browser opens {told['origin']} in its place")
    return told


@asynccontextmanager
async def _page(cdp: CdpConnection, origin: str | None = None) -> AsyncIterator[str]:
    """An empty page of the origin that nobody sees; yields its CDP session."""
    made = await cdp.send("Target.createTarget", {"url": "about:blank", "hidden": True})
    target = made["targetId"]
    answers: set[asyncio.Task[None]] = set()
    gone = asyncio.Event()
    handlers: list[Callable[[], None]] = []
    try:
        attached = await cdp.send("Target.attachToTarget", {"targetId": target, "flatten": True})
        page: str = attached["sessionId"]

        def detached(params: Mapping[str, Any], _: str | None) -> None:
            if params["sessionId"] == page:
                gone.set()

        handlers.append(cdp.on("Target.detachedFromTarget", detached))
        if origin is not None:
            address = origin + "/"

            def paused(params: Mapping[str, Any], session: str | None) -> None:
                if session == page:
                    task = asyncio.get_running_loop().create_task(
                        _answer(cdp, page, params, address)
                    )
                    answers.add(task)
                    task.add_done_callback(answers.discard)

            handlers.append(cdp.on("Fetch.requestPaused", paused))
            await _both(
                cdp.send("Fetch.enable", cdp_session_id=page),
                cdp.send("Network.setBypassServiceWorker", {"bypass": True}, page),
            )
            # Only now: what waits for the renderer when it is exchanged may never be answered.
            await cdp.send("Page.navigate", {"url": DETOUR}, page, timeout=PAGE_TIMEOUT)
        yield page
    finally:
        if not cdp.closed.done():
            await settle(lambda: _close(cdp, target, gone), patience=CLOSE_PATIENCE)
        for forget in handlers:
            forget()
        while answers:
            await asyncio.wait(answers)


async def _answer(cdp: CdpConnection, page: str, request: Mapping[str, Any], address: str) -> None:
    """The page itself is empty, and whatever else it asks for there is not."""
    which = {"requestId": request["requestId"]}
    try:
        if request["request"]["url"] == DETOUR:
            location = [{"name": "Location", "value": address}]
            sent_on = {**which, "responseCode": 302, "responseHeaders": location}
            await cdp.send("Fetch.fulfillRequest", sent_on, page)
        elif request["request"]["url"] == address:
            await cdp.send("Fetch.fulfillRequest", {**which, **BLANK}, page)
        else:
            failed = {**which, "errorReason": "BlockedByClient"}
            await cdp.send("Fetch.failRequest", failed, page)
    except CdpError as error:  # the page is closed meanwhile
        log.debug("a request of a page of ours: %s", error)


async def _close(cdp: CdpConnection, target: str, gone: asyncio.Event) -> None:
    """Return when it is gone: whoever attaches to a page that is closing waits in vain."""
    try:
        await cdp.send("Target.closeTarget", {"targetId": target}, timeout=CLOSE_PATIENCE)
        async with deadline(GONE_PATIENCE, "closing a page of ours"):
            await gone.wait()
    except (CdpError, TimeoutError) as error:
        log.debug("a page of ours: %s", error)


# ---------------------------------------------------------------------- tabs


async def _tabs(cdp: CdpConnection) -> list[_Tab]:
    return [tab for tab in await _in_tabs(cdp, _looked_into) if tab is not None]


async def _in_tabs(
    cdp: CdpConnection, do: Callable[[CdpConnection, str, _Tab], Awaitable[R]]
) -> list[R | None]:
    """Do it in every tab of the browser's own context; a busy or closed one gives `None`."""
    targets, others = await _both(
        cdp.send("Target.getTargets"), cdp.send("Target.getBrowserContexts")
    )
    tabs = [
        _Tab(target=each["targetId"], origin=origin_of(each["url"]))
        for each in targets["targetInfos"]
        if each["type"] == "page"
        and each.get("browserContextId") not in others["browserContextIds"]
    ]

    async def one(tab: _Tab) -> R | None:
        try:
            where = {"targetId": tab.target, "flatten": True}
            session = (await cdp.send("Target.attachToTarget", where))["sessionId"]
            try:
                return await do(cdp, session, tab)
            finally:
                await cdp.send("Target.detachFromTarget", {"sessionId": session})
        except CdpError as error:
            log.debug("a tab does not tell what it has: %s", error)
            return None

    return await _each(tabs, one)


async def _looked_into(cdp: CdpConnection, session: str, tab: _Tab) -> _Tab:
    history = (await cdp.send("Page.getNavigationHistory", cdp_session_id=session))["entries"]
    visited = [origin_of(entry["url"]) for entry in reversed(history)]
    items: Mapping[str, str] = {}
    if tab.origin is not None:
        which = {"storageId": _of(tab.origin)}
        told = await cdp.send("DOMStorage.getDOMStorageItems", which, session, timeout=TAB_TIMEOUT)
        items = dict(told["entries"])
    return _Tab(
        target=tab.target,
        origin=tab.origin,
        items=items,
        visited=tuple(origin for origin in visited if origin is not None),
    )


async def _emptied(cdp: CdpConnection, session: str, tab: _Tab) -> None:
    if tab.origin is not None:
        which = {"storageId": _of(tab.origin)}
        await cdp.send("DOMStorage.clear", which, session, timeout=TAB_TIMEOUT)


async def _give_tabs(cdp: CdpConnection, given: Items) -> None:
    async def give(cdp: CdpConnection, session: str, tab: _Tab) -> None:
        items = given.get(tab.origin or "", {})
        await _both(
            *(
                cdp.send(
                    "DOMStorage.setDOMStorageItem",
                    {"storageId": _of(tab.origin), "key": name, "value": value},
                    session,
                    timeout=TAB_TIMEOUT,
                )
                for name, value in items.items()
            )
        )

    await _in_tabs(cdp, give)


def _of(origin: str | None) -> dict[str, Any]:
    return {"securityOrigin": origin, "isLocalStorage": False}


# ---------------------------------------------------------------------- all at once


async def _each(things: Sequence[Any], do: Callable[[Any], Awaitable[R]]) -> list[R]:
    """Do it with each, a few at a time; all have ended when it raises the first error."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(thing: Any) -> R:
        async with room:
            return await do(thing)

    return await _both(*(one(thing) for thing in things))


async def _both(*work: Awaitable[R]) -> list[R]:
    """Every result; the first error, once none is under way any more."""
    results: list[R] = []
    for answer in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        results.append(answer)
    return results


def _join(at: str, path: str) -> str:
    return f"{at}.{path}" if at else path
