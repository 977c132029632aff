"""The live picture of a browser: one screencast, however many look at it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from browsercloud._aio import stop_task
from browsercloud.cdp.connection import CdpConnection, CdpError

LARGEST = {"maxWidth": 1920, "maxHeight": 1920}
"""Device pixels; a larger page is scaled down."""

JPEG = {"format": "jpeg", "quality": 65}
FRAME_PAUSE = 1 / 20
"""Seconds between two frames at least: the next one is drawn once the last is acknowledged."""

TITLE_PAUSE = 1.0
HIDDEN_PAUSE = 1.0
"""Seconds between two pictures of a tab that lies behind another, which casts nothing."""

CALL_TIMEOUT = 8.0

ONLY_PAGES = [{"type": "page"}, {"exclude": True}]

log = logging.getLogger(__name__)


@frozen(eq=False)
class Frame:
    """What one page showed."""

    picture: bytes = field(repr=False)
    """A JPEG."""

    page_id: str
    width: float
    height: float
    """Of the viewport in CSS pixels, whatever size the picture has."""


@frozen
class Tab:
    """An open page."""

    id: str
    url: str
    title: str


@frozen
class View:
    """What is open, and which of it is shown."""

    tabs: tuple[Tab, ...] = ()
    shown: str | None = None
    """Its `Tab.id`; `None` while there is none."""

    loading: bool = False


@frozen
class Seen:
    """How much a watcher knows; the next one is given back by `Screencast.next`."""

    frame: int = 0
    view: int = 0


@define(eq=False)
class _Page:
    tab: Tab
    cdp_session_id: str
    visible: bool = True
    casting: bool = False
    loading: bool = False


class Screencast:
    """Follows the tab in front, or stays with one page. Made by `open`; who opened it closes it.

    A browser with tabs tells which one is in front. The headless shell has none that lie behind
    others: there it is the one that was opened or went somewhere last. `show` decides otherwise.

    It draws only while somebody calls `next`: a frame that nobody has taken is not acknowledged,
    and the browser makes no other one meanwhile.
    """

    def __init__(self, cdp: CdpConnection, page_id: str | None) -> None:
        self.cdp = cdp
        self.frame: Frame | None = None
        """The last one."""

        self._fixed = page_id
        self._shown: str | None = None
        self._pages: dict[str, _Page] = {}  # by target, in the order of opening
        self._by_session: dict[str, _Page] = {}
        self._frames = self._views = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._owed: list[tuple[_Page, int]] = []
        """Frames to be acknowledged."""

        self._tasks: set[asyncio.Task[Any]] = set()
        self._hidden: asyncio.Task[None] | None = None
        self._not_before = 0.0
        """When the next frames may be acknowledged, on the loop's clock."""

    @classmethod
    async def open(cls, endpoint: str, page_id: str | None = None) -> Screencast:
        """Attach to the pages of the browser at *endpoint*. Raises `CdpError`.

        With *page_id*, a CDP target, only that page is shown.
        """
        cdp = await CdpConnection.open(endpoint, timeout=CALL_TIMEOUT)
        cast = cls(cdp, page_id)
        try:
            await cast._begin()
        except BaseException:
            await cdp.close()
            raise
        return cast

    @property
    def view(self) -> View:
        """What is open now."""
        shown = self._pages.get(self._shown or "")
        return View(
            tabs=tuple(page.tab for page in self._pages.values()),
            shown=shown.tab.id if shown else None,
            loading=shown is not None and shown.loading,
        )

    @property
    def closed(self) -> asyncio.Future[None]:
        """Done once the browser is gone."""
        return self.cdp.closed

    @property
    def cdp_session_id(self) -> str | None:
        """Where calls for the page that is shown go; `None` while there is none."""
        shown = self._pages.get(self._shown or "")
        return shown.cdp_session_id if shown else None

    async def next(self, seen: Seen) -> Seen:
        """Wait for a frame or a view that is newer than *seen*, or the browser's end.

        Returns how much there is now: compare it with what went in.
        """
        while not self.closed.done():
            self._acknowledge(seen)
            now = Seen(self._frames, self._views)
            if now != seen:
                return now
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                either: set[asyncio.Future[None]] = {waiting, self.closed}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._waiting.discard(waiting)
        return Seen(self._frames, self._views)

    async def show(self, page_id: str) -> None:
        """Put this page in front. Raises `CdpError` when it has gone."""
        page = self._pages.get(page_id)
        if page is None:
            raise CdpError("the page has been closed")
        await self.cdp.send("Page.bringToFront", {}, page.cdp_session_id, timeout=CALL_TIMEOUT)
        self._turn_to(page)

    async def close(self) -> None:
        """Let go; the pages keep nothing of it. Safe to call twice."""
        await stop_task(self._hidden)
        for task in tuple(self._tasks):
            await stop_task(task)
        await self.cdp.close()

    # ------------------------------------------------------------------ what the browser says

    async def _begin(self) -> None:
        heard = {
            "Target.attachedToTarget": self._attached,
            "Target.detachedFromTarget": self._detached,
            "Target.targetInfoChanged": self._changed,
            "Page.screencastFrame": self._drawn,
            "Page.screencastVisibilityChanged": self._visibility,
            "Page.frameNavigated": self._navigated,
            "Page.frameResized": self._resized,
            "Page.frameStartedLoading": self._loading,
            "Page.frameStoppedLoading": self._loading_over,
        }
        for method, handler in heard.items():
            self.cdp.on(method, handler)
        await self.cdp.send("Target.setDiscoverTargets", {"discover": True, "filter": ONLY_PAGES})
        await self.cdp.send(
            "Target.setAutoAttach",
            {
                "autoAttach": True,
                "waitForDebuggerOnStart": False,
                "flatten": True,
                "filter": ONLY_PAGES,
            },
        )
        self._spawn(self._follow_titles())

    def _attached(self, params: Mapping[str, Any], _: str | None) -> None:
        target, session = params["targetInfo"], params["sessionId"]
        if target["type"] != "page" or target["url"].startswith("devtools:"):
            return
        page = _Page(Tab(target["targetId"], target["url"], target["title"]), session)
        self._pages[page.tab.id] = self._by_session[session] = page
        self._send("Page.enable", {}, page)
        if self._fixed is None or self._fixed == page.tab.id:
            # Where tabs lie behind others, the browser says at once if this one does.
            self._turn_to(page)
        self._view_changed()

    def _detached(self, params: Mapping[str, Any], _: str | None) -> None:
        page = self._by_session.pop(params["sessionId"], None)
        if page is None:
            return
        self._pages.pop(page.tab.id, None)
        if self._shown == page.tab.id:
            self._shown = None
            others = [one for one in self._pages.values() if one.visible]
            if self._fixed is None and others:
                self._turn_to(others[-1])
        self._view_changed()

    def _changed(self, params: Mapping[str, Any], _: str | None) -> None:
        self._is_now(params["targetInfo"])

    def _is_now(self, target: Mapping[str, Any]) -> None:
        page = self._pages.get(target["targetId"])
        tab = Tab(target["targetId"], target["url"], target["title"])
        if page is not None and page.tab != tab:
            page.tab = tab
            self._view_changed()

    async def _follow_titles(self) -> None:
        while True:
            await asyncio.sleep(TITLE_PAUSE)
            if self._waiting:
                await self._ask_for_tabs()

    async def _ask_for_tabs(self) -> None:
        """Not every new title is told by itself."""
        try:
            told = await self.cdp.send("Target.getTargets", timeout=CALL_TIMEOUT)
        except CdpError as error:
            log.debug("the tabs are not known: %s", error)
            return
        for target in told["targetInfos"]:
            self._is_now(target)

    def _navigated(self, params: Mapping[str, Any], session: str | None) -> None:
        page = self._by_session.get(session or "")
        if page is not None and "parentId" not in params["frame"] and page.visible:
            self._turn_to(page)

    def _visibility(self, params: Mapping[str, Any], session: str | None) -> None:
        page = self._by_session.get(session or "")
        if page is None:
            return
        was, page.visible = page.visible, params["visible"]
        if page.visible and not was:
            self._turn_to(page)
        elif page.tab.id == self._shown and not page.visible:
            self._look_behind(page)

    def _resized(self, _: Mapping[str, Any], session: str | None) -> None:
        page = self._by_session.get(session or "")
        if page is not None and page.casting:
            self._cast(page)

    def _loading(self, params: Mapping[str, Any], session: str | None) -> None:
        self._set_loading(params, session, loading=True)

    def _loading_over(self, params: Mapping[str, Any], session: str | None) -> None:
        self._set_loading(params, session, loading=False)

    def _set_loading(
        self, params: Mapping[str, Any], session: str | None, *, loading: bool
    ) -> None:
        page = self._by_session.get(session or "")
        # The main frame of a page has the id of its target.
        if page is not None and params["frameId"] == page.tab.id and page.loading != loading:
            page.loading = loading
            self._view_changed()
            self._spawn(self._ask_for_tabs())

    def _drawn(self, params: Mapping[str, Any], session: str | None) -> None:
        page = self._by_session.get(session or "")
        if page is None:
            return
        if page.tab.id != self._shown:
            return  # not acknowledged, it makes no more of them
        about = params["metadata"]
        self._owed.append((page, params["sessionId"]))
        picture = base64.b64decode(params["data"])
        self._show_frame(Frame(picture, page.tab.id, about["deviceWidth"], about["deviceHeight"]))

    # ------------------------------------------------------------------ what is shown

    def _turn_to(self, page: _Page) -> None:
        if self._fixed is not None and page.tab.id != self._fixed:
            return
        before = self._pages.get(self._shown or "")
        if before is page and page.casting:
            return
        self._shown = page.tab.id
        self._owed.clear()
        self._cast(page)
        self._view_changed()

    def _cast(self, page: _Page) -> None:
        if page.casting:  # only a new cast begins with a frame
            self._send("Page.stopScreencast", {}, page)
        page.casting = True
        self._send("Page.startScreencast", {**JPEG, **LARGEST}, page)

    def _look_behind(self, page: _Page) -> None:
        """A page that is to be shown although it lies behind another is pictured now and then."""
        if self._fixed == page.tab.id and (self._hidden is None or self._hidden.done()):
            self._hidden = asyncio.get_running_loop().create_task(self._picture_hidden(page))

    async def _picture_hidden(self, page: _Page) -> None:
        while not page.visible and page.tab.id in self._pages:
            if self._waiting:
                with contextlib.suppress(CdpError):
                    taken = await self.cdp.send(
                        "Page.captureScreenshot", JPEG, page.cdp_session_id, timeout=CALL_TIMEOUT
                    )
                    size = (
                        await self.cdp.send(
                            "Page.getLayoutMetrics", {}, page.cdp_session_id, timeout=CALL_TIMEOUT
                        )
                    )["cssLayoutViewport"]
                    picture = base64.b64decode(taken["data"])
                    where = size["clientWidth"], size["clientHeight"]
                    self._show_frame(Frame(picture, page.tab.id, *where))
            await asyncio.sleep(HIDDEN_PAUSE)

    def _show_frame(self, frame: Frame) -> None:
        self.frame = frame
        self._frames += 1
        self._wake()

    def _view_changed(self) -> None:
        self._views += 1
        self._wake()

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _acknowledge(self, seen: Seen) -> None:
        """Have the next frame drawn, once somebody has the last one."""
        if not self._owed or seen.frame != self._frames:
            return
        owed, self._owed = self._owed, []
        now = asyncio.get_running_loop().time()
        pause = max(self._not_before - now, 0.0)
        self._not_before = now + pause + FRAME_PAUSE
        self._spawn(self._acknowledge_after(pause, owed))

    async def _acknowledge_after(self, pause: float, owed: list[tuple[_Page, int]]) -> None:
        await asyncio.sleep(pause)
        for page, number in owed:
            await self._try("Page.screencastFrameAck", {"sessionId": number}, page)

    def _send(self, method: str, params: Mapping[str, Any], page: _Page) -> None:
        self._spawn(self._try(method, params, page))

    async def _try(self, method: str, params: Mapping[str, Any], page: _Page) -> None:
        try:
            await self.cdp.send(method, params, page.cdp_session_id, timeout=CALL_TIMEOUT)
        except CdpError as error:  # it has closed meanwhile, or is busy for ever
            log.debug("%s: %s", method, error)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, name="screencast")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
