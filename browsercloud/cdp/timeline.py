"""What happens in a browser's pages as it happens: navigations, console, requests and the rest.

Heard on a connection that somebody else has opened, and told one by one. Nothing secret is told:
addresses without their queries, no headers, no bodies, no cookies; texts are cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import Any

from attrs import define

from browsercloud.cdp.capture import clean_url
from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.cdp.look import LISTENING, Call

MAX_EVENTS = 5_000
"""Events that are told of one browser; half of what a session may have, so that its end fits in."""

MAX_TEXT = 1_000
MAX_PENDING = 1_000
"""Requests that have not ended; the oldest is forgotten when there are more."""

BEHIND = 0.15
"""Seconds after a page is there until its console, its frames and its workers are listened to.

Whoever attaches to the page meanwhile is not held up; what the console has said by then is told.
"""

ALONE = 10.0
"""Seconds after which a dialog that nobody has answered is dismissed.

Chromium dismisses one at once while nobody listens to its pages, and stops the page while somebody
does: whoever drives it without listening would wait for ever, because of us.
"""

WEB = ("http:", "https:", "ws:", "wss:", "file:", "ftp:")

Note = Callable[[str, Mapping[str, Any]], None]
"""Told of what has happened, and more about it."""

log = logging.getLogger(__name__)


class PageEvent(StrEnum):
    """What is told."""

    OPENED = "page.opened"
    """There is a new page."""

    CLOSED = "page.closed"
    NAVIGATED = "page.navigated"
    """The page has gone to another address, or has changed its own."""

    LOADED = "page.loaded"
    CONSOLE = "page.console"
    """Something was written to the console."""

    ERROR = "page.error"
    """An error that no script has caught."""

    REQUEST = "page.request"
    """A request is over: answered in full, or failed."""

    DIALOG = "page.dialog"
    """A page asks, and waits for an answer."""

    DOWNLOAD = "page.download"
    """A file begins to come."""

    DOWNLOADED = "page.downloaded"
    """It is there, or will never be."""

    INPUT = "page.input"
    """A person, or the computer interface, has reached in."""

    FULL = "timeline.full"
    """More happens than is kept; of what comes now nothing is told."""


@define
class _Request:
    sent: float
    told: dict[str, Any]


class Timeline:
    """Tells what happens in the pages, frames and workers of a browser, until it is full.

    *console* makes it listen to the console and to errors. A page can find out that somebody does,
    so it is off for a browser that is to pass for a person's.
    """

    def __init__(self, note: Note, *, console: bool = True, most: int = MAX_EVENTS) -> None:
        self._note = note
        self._console = console
        self._most = self._left = most
        self._closed = False
        self._cdp: CdpConnection | None = None
        self._pages: dict[str, str] = {}
        """CDP session → target id of the page that it belongs to."""

        self._kinds: dict[str, str] = {}
        self._requests: OrderedDict[tuple[str, str], _Request] = OrderedDict()
        self._dialogs: dict[str, asyncio.TimerHandle] = {}
        self._saying: set[asyncio.Task[None]] = set()

    async def begin(self, cdp: CdpConnection) -> None:
        """Listen on this connection from now on. Raises `CdpError`."""
        self._cdp = cdp
        for method, handler in {
            "Target.attachedToTarget": self._attached,
            "Target.detachedFromTarget": self._detached,
            "Page.frameNavigated": self._navigated,
            "Page.navigatedWithinDocument": self._moved,
            "Page.loadEventFired": self._loaded,
            "Page.javascriptDialogOpening": self._asked,
            "Page.javascriptDialogClosed": self._answered,
            "Page.downloadWillBegin": self._download,
            "Page.downloadProgress": self._downloads,
            "Runtime.consoleAPICalled": self._said,
            "Runtime.exceptionThrown": self._thrown,
            "Network.requestWillBeSent": self._sent,
            "Network.responseReceived": self._response,
            "Network.loadingFinished": self._finished,
            "Network.loadingFailed": self._failed,
        }.items():
            cdp.on(method, handler)
        await cdp.send("Target.setAutoAttach", _attach([{"type": "page"}]))

    def close(self) -> None:
        """Tell nothing any more. Safe to call twice."""
        self._left, self._closed = 0, True
        for timer in self._dialogs.values():
            timer.cancel()
        for task in self._saying:
            task.cancel()

    # ------------------------------------------------------------------ targets

    def _attached(self, params: Mapping[str, Any], parent: str | None) -> None:
        session, target = params["sessionId"], params["targetInfo"]
        kind = target["type"]
        self._kinds[session] = kind
        self._pages[session] = self._pages.get(parent or "", target["targetId"])
        if self._left <= 0:
            return
        if kind == "page":
            self._tell(PageEvent.OPENED, session, url=clean_url(target["url"]))
        self._go_on(self._listen(session, kind))

    async def _listen(self, session: str, kind: str) -> None:
        at_once: list[Call] = [("Network.enable", LISTENING)]
        behind: list[Call] = [("Runtime.enable", {})] if self._console else []
        if kind in ("page", "iframe"):
            below = [{"type": "iframe"}, {"type": "worker"}]
            at_once.append(("Page.enable", {}))
            behind.append(("Target.setAutoAttach", _attach(below)))
        await self._say(session, at_once)
        if kind == "page":
            await asyncio.sleep(BEHIND)
        if self._left > 0:
            await self._say(session, behind)

    async def _say(self, session: str, calls: Sequence[Call]) -> None:
        cdp = self._cdp
        if cdp is None:
            return
        said = [cdp.send(method, params, session) for method, params in calls]
        for answer in await asyncio.gather(*said, return_exceptions=True):
            if isinstance(answer, CdpError):  # it has closed meanwhile
                log.debug("the timeline of a page: %s", answer)
            elif isinstance(answer, BaseException):
                raise answer

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name="timeline")
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    def _detached(self, params: Mapping[str, Any], _: str | None) -> None:
        session = params["sessionId"]
        if self._kinds.pop(session, None) == "page":
            self._tell(PageEvent.CLOSED, session)
        self._pages.pop(session, None)
        if (timer := self._dialogs.pop(session, None)) is not None:
            timer.cancel()

    # ------------------------------------------------------------------ pages

    def _navigated(self, params: Mapping[str, Any], session: str | None) -> None:
        frame = params["frame"]
        if "parentId" not in frame and self._kinds.get(session or "") == "page":
            failed = {"failed": True} if "unreachableUrl" in frame else {}
            url = frame.get("unreachableUrl") or frame["url"]
            self._tell(PageEvent.NAVIGATED, session, url=clean_url(url), **failed)

    def _moved(self, params: Mapping[str, Any], session: str | None) -> None:
        # Only the page's own frame has the id of its target.
        if params["frameId"] == self._pages.get(session or ""):
            self._tell(
                PageEvent.NAVIGATED, session, url=clean_url(params["url"]), same_document=True
            )

    def _loaded(self, _: Mapping[str, Any], session: str | None) -> None:
        if self._kinds.get(session or "") == "page":
            self._tell(PageEvent.LOADED, session)

    def _asked(self, params: Mapping[str, Any], session: str | None) -> None:
        text = params["message"][:MAX_TEXT]
        self._tell(PageEvent.DIALOG, session, kind=params["type"], text=text)
        alone = not params.get("hasBrowserHandler")
        if session is not None and alone and not self._closed:
            loop = asyncio.get_running_loop()
            self._dialogs[session] = loop.call_later(ALONE, self._dismiss, session)

    def _dismiss(self, session: str) -> None:
        self._dialogs.pop(session, None)
        self._go_on(self._say(session, [("Page.handleJavaScriptDialog", {"accept": False})]))

    def _answered(self, _: Mapping[str, Any], session: str | None) -> None:
        if (timer := self._dialogs.pop(session or "", None)) is not None:
            timer.cancel()

    def _download(self, params: Mapping[str, Any], session: str | None) -> None:
        name = params["suggestedFilename"][:MAX_TEXT]
        self._tell(PageEvent.DOWNLOAD, session, url=clean_url(params["url"]), name=name)

    def _downloads(self, params: Mapping[str, Any], session: str | None) -> None:
        if params["state"] != "inProgress":
            size = round(params["receivedBytes"])
            self._tell(PageEvent.DOWNLOADED, session, state=params["state"], size=size)

    # ------------------------------------------------------------------ console

    def _said(self, params: Mapping[str, Any], session: str | None) -> None:
        text = " ".join(_shown(each) for each in params["args"][:20])[:MAX_TEXT]
        where = _where(params.get("stackTrace"))
        self._tell(PageEvent.CONSOLE, session, level=params["type"], text=text, **where)

    def _thrown(self, params: Mapping[str, Any], session: str | None) -> None:
        details = params["exceptionDetails"]
        thrown = details.get("exception", {})
        text = thrown.get("description") or thrown.get("value") or details["text"]
        told = str(text).partition("\n")[0][:MAX_TEXT]
        line = {"url": clean_url(details["url"])} if details.get("url") else {}
        self._tell(PageEvent.ERROR, session, text=told, **line, line=details["lineNumber"] + 1)

    # ------------------------------------------------------------------ requests

    def _sent(self, params: Mapping[str, Any], session: str | None) -> None:
        asked, key = params["request"], (session or "", params["requestId"])
        if "redirectResponse" in params and (before := self._requests.pop(key, None)) is not None:
            status = params["redirectResponse"]["status"]
            self._over(before, session, params["timestamp"], status=status)
        if asked["url"].startswith(WEB):
            told = {"method": asked["method"], "url": clean_url(asked["url"])}
            told["kind"] = params.get("type", "Other").lower()
            self._requests[key] = _Request(params["timestamp"], told)
            if len(self._requests) > MAX_PENDING:
                self._requests.popitem(last=False)

    def _response(self, params: Mapping[str, Any], session: str | None) -> None:
        found = self._requests.get((session or "", params["requestId"]))
        if found is not None:
            response = params["response"]
            found.told["status"] = response["status"]
            if response.get("fromDiskCache") or response.get("fromServiceWorker"):
                found.told["cached"] = True

    def _finished(self, params: Mapping[str, Any], session: str | None) -> None:
        found = self._requests.pop((session or "", params["requestId"]), None)
        if found is not None:
            size = max(0, round(params["encodedDataLength"]))
            self._over(found, session, params["timestamp"], size=size)

    def _failed(self, params: Mapping[str, Any], session: str | None) -> None:
        found = self._requests.pop((session or "", params["requestId"]), None)
        if found is not None:
            why = "canceled" if params.get("canceled") else params["errorText"]
            self._over(found, session, params["timestamp"], failure=why)

    def _over(self, found: _Request, session: str | None, at: float, **more: Any) -> None:
        took = max(0, round((at - found.sent) * 1000))
        self._tell(PageEvent.REQUEST, session, **found.told, **more, duration=took)

    # ------------------------------------------------------------------ telling

    def _tell(self, kind: PageEvent, session: str | None, /, **details: Any) -> None:
        if self._left <= 0:
            return
        self._left -= 1
        if self._left:
            page = {"page": self._pages.get(session or "")}
            self._note(kind, page | details)
            return
        self._note(PageEvent.FULL, {"kept": self._most})
        for each in self._kinds:
            quiet = ["Network.disable", "Page.disable", "Runtime.disable"]
            self._go_on(self._say(each, [(method, {}) for method in quiet]))


def _attach(kinds: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "autoAttach": True,
        "waitForDebuggerOnStart": False,
        "flatten": True,
        "filter": [*kinds, {"exclude": True}],
    }


def _shown(value: Mapping[str, Any]) -> str:
    """What the console shows of a value."""
    if "value" in value and value["type"] != "object":
        return str(value["value"])[:MAX_TEXT]
    return str(value.get("unserializableValue") or value.get("description") or value["type"])


def _where(stack: Mapping[str, Any] | None) -> dict[str, Any]:
    frames = (stack or {}).get("callFrames") or ()
    if not frames:
        return {}
    return {"url": clean_url(frames[0]["url"]), "line": frames[0]["lineNumber"] + 1}
