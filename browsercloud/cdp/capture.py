"""What a browser shows right now: the addresses of its pages, as evidence for its end."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import define

from browsercloud._aio import join, stop_task
from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.context import origin_of

MAX_URLS = 20
MAX_URL_LENGTH = 300
MAX_ORIGINS = 500
MAX_MEDIA_TYPE = 100

GOODBYE = 2.0
"""A page that closed so shortly before the browser was gone was closed by its end, in seconds."""

_PAGES = [{"type": "page"}, {"exclude": True}]
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_NESTED = ("view-source", "blob", "filesystem")

log = logging.getLogger(__name__)


@define
class _Page:
    url: str
    closed_at: float | None = None


class PageUrls:
    """Which pages a browser has open, over a connection of its own that attaches to none of them.

    Neither the browser nor whoever uses it notices: `open` returns at once, and a browser that
    refuses, hangs or dies is a line in the debug log.
    """

    def __init__(self) -> None:
        self._pages: dict[str, _Page] = {}  # by target; the one that went somewhere last is last
        self._origins: dict[str, None] = {}
        self._gone = False
        self._watching: asyncio.Task[None] | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """At most 20, as `clean_url` makes them; the page that went somewhere last comes last.

        Once the browser is gone, those that were open when it went. When it has just closed the
        last one, those that it closed within 2 s: it may be about to go. Empty if nothing is known.
        """
        told = [page for page in self._pages.values() if self._gone or page.closed_at is None]
        if not told and self._pages:
            self._forget_closed()
            told = list(self._pages.values())
        return tuple(page.url for page in told[-MAX_URLS:])

    @property
    def origins(self) -> tuple[str, ...]:
        """Where its pages have been, at most 500 web origins; those of before `open` are not known.

        A page that went on at once may have been missed.
        """
        return tuple(self._origins)

    def open(
        self, endpoint: str, also: Callable[[CdpConnection], Awaitable[None]] | None = None
    ) -> None:
        """Begin to watch the browser at *endpoint* in the background; a second call does nothing.

        Whoever opened it closes it, also after the browser is gone. *also* is given the connection,
        for what else is to be heard on it.
        """
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(endpoint, also), name="page urls")

    async def close(self) -> None:
        """Let go of the browser. `urls` stays as it is. Safe to call twice."""
        await stop_task(self._watching)

    async def _watch(
        self, endpoint: str, also: Callable[[CdpConnection], Awaitable[None]] | None
    ) -> None:
        try:
            async with await CdpConnection.open(endpoint) as browser:
                browser.on("Target.targetCreated", self._changed)
                browser.on("Target.targetInfoChanged", self._changed)
                browser.on("Target.targetDestroyed", self._destroyed)
                await browser.send(
                    "Target.setDiscoverTargets", {"discover": True, "filter": _PAGES}
                )
                if also is not None:
                    await also(browser)
                await join(browser.closed)
                self._forget_closed()
                self._gone = True
        except (CdpError, TimeoutError) as error:
            log.debug("the pages of a browser are not known: %s", error)

    def _changed(self, params: Mapping[str, Any], _: str | None) -> None:
        target = params["targetInfo"]
        if target["type"] != "page" or target["url"].startswith("devtools:"):
            return
        origin = origin_of(target["url"])
        if origin is not None and len(self._origins) < MAX_ORIGINS:
            self._origins[origin] = None
        url, before = clean_url(target["url"]), self._pages.get(target["targetId"])
        # Titles change too; only a page that went somewhere moves to the end.
        if url and (before is None or before.url != url):
            self._pages.pop(target["targetId"], None)
            self._pages[target["targetId"]] = _Page(url)

    def _destroyed(self, params: Mapping[str, Any], _: str | None) -> None:
        closed = self._pages.get(params["targetId"])
        if closed is not None:
            closed.closed_at = asyncio.get_running_loop().time()
        self._forget_closed()

    def _forget_closed(self) -> None:
        # A browser that is told to end closes its pages one by one, and only then hangs up.
        since = asyncio.get_running_loop().time() - GOODBYE
        self._pages = {
            target: page
            for target, page in self._pages.items()
            if page.closed_at is None or page.closed_at > since
        }


def clean_url(url: str) -> str:
    """*url* without what may be secret or long: user and password, query, fragment, inline content.

    At most 300 characters. What a page can be told by stays: scheme, host, port and path.
    """
    text = _cleaned(url.partition("#")[0])[: MAX_URL_LENGTH + 1]
    text = "".join("�" if _is_unreadable(sign) else sign for sign in text)
    return text if len(text) <= MAX_URL_LENGTH else text[: MAX_URL_LENGTH - 1] + "…"


def _is_unreadable(sign: str) -> bool:
    """Whether it is a control character or half of one."""
    return sign < " " or "\x7f" <= sign < "\xa0" or "\ud800" <= sign <= "\udfff"


def _cleaned(url: str, *, nested: bool = False) -> str:
    found = _SCHEME.match(url)
    scheme = found.group(1).lower() if found else ""
    rest = url[found.end() :] if found else url
    if scheme in _NESTED and not nested:
        inner = _cleaned(rest, nested=True)
        return f"{scheme}:{inner if scheme == 'view-source' else _origin(inner) + '/…'}"
    if scheme == "data":
        kind = rest.partition(",")[0]
        return f"data:{kind},…" if len(kind) <= MAX_MEDIA_TYPE and "," in rest else "data:…"
    if not rest.startswith("//") and scheme not in ("", "about"):
        return f"{scheme}:…"  # mailto, javascript: all of it is content
    before, asked, _ = rest.partition("?")
    return f"{scheme}{':' if scheme else ''}{_without_user(before)}{'?…' if asked else ''}"


def _without_user(text: str) -> str:
    """`//user:password@host/path` → `//host/path`."""
    if not text.startswith("//"):
        return text
    authority, slash, path = text[2:].partition("/")
    return f"//{authority.rpartition('@')[2]}{slash}{path}"


def _origin(url: str) -> str:
    """`https://host/anything` → `https://host`; `null/anything` → `null`."""
    head, double, rest = url.partition("//")
    return head + double + rest.partition("/")[0] if double else url.partition("/")[0]
