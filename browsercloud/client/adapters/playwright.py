"""`client.playwright`: one Playwright driver for each client, and connections to sessions.

Playwright is imported when the first session needs it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import tempfile
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from browsercloud._aio import in_thread, join, settle
from browsercloud.client.config import ClientConfig
from browsercloud.client.transport import ended_error
from browsercloud.errors import ConnectionFailed, UsageError
from browsercloud.models import Session, SessionProtocol

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Playwright

log = logging.getLogger(__name__)

DETACH_PATIENCE = 3.0
"""How long Playwright may take to let go of a browser, in seconds: it may be dead or frozen."""

STUCK_AFTER = 0.5
"""How long a cancelled start of the driver may take to end, in seconds."""

STOP_PATIENCE = 10.0
"""How long Playwright's driver may take to start or to stop, in seconds."""


class PlaywrightAdapter:
    """Owns the driver, a Node process, that all sessions of a client share."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._starting: asyncio.Task[Playwright] | None = None
        self._manager: Any = None
        self._leftover: set[asyncio.Task[None]] = set()
        self._closed = False

    async def connect(self, session: Session) -> PlaywrightConnection:
        """Attach to a session that `client.sessions.create` made.

        The result is an async context manager; closing it detaches and leaves the session alone.
        Raises `SessionEnded`, or `ConnectionFailed` when the browser cannot be reached within
        `connect_timeout`.
        """
        if not isinstance(session, Session):
            raise UsageError(
                "connect() takes a Session: `await client.sessions.retrieve(id)` returns one"
            )
        if "token=" not in session.websocket_url:
            raise UsageError(
                "the URLs of a listed session hold no token: "
                "connect to `await client.sessions.retrieve(session.id)`"
            )
        connection = self.of(session)
        try:
            await connection.open()
        except BaseException:
            await connection.close()
            raise
        return connection

    def of(self, session: Session) -> PlaywrightConnection:
        """A connection to the session that is not open yet."""
        own = session.protocol is SessionProtocol.PLAYWRIGHT
        size = session.dimensions
        return self.connection(
            session.websocket_url, {"width": size.width, "height": size.height} if own else None
        )

    def connection(
        self, endpoint: str, viewport: Mapping[str, int] | None = None
    ) -> PlaywrightConnection:
        """A connection that is not open yet; by Playwright's own protocol if *viewport* is given.

        That one has no context yet: the first one gets this viewport.
        """
        timeout = self._config.connect_timeout
        return PlaywrightConnection(self, endpoint, timeout=timeout, viewport=viewport)

    def start(self) -> asyncio.Task[Playwright]:
        """Begin to start the driver, if that has not been done, without waiting for it.

        It starts in a task of its own that no caller's cancellation reaches: Playwright loses its
        Node process when its start is cancelled.
        """
        if self._closed:
            raise UsageError("this client is closed")
        task = self._starting
        if task is None or _failed(task) or self._died(task):
            task = asyncio.create_task(self._start(), name="start Playwright")
            self._starting = task
        return task

    def _died(self, task: asyncio.Task[Playwright]) -> bool:
        """Whether the driver has started, and ended by itself."""
        process = _process(getattr(self._manager, "_client", None)) if task.done() else None
        if process is None or process.returncode is None:
            return False
        log.warning("Playwright's driver has died; starting another")
        return True

    def later(self, task: asyncio.Task[None]) -> None:
        """Wait for *task* before the driver is stopped."""
        self._leftover.add(task)
        task.add_done_callback(self._leftover.discard)

    async def close(self) -> None:
        """Stop the driver. Connections still open break. Safe to call twice."""
        self._closed = True
        if self._leftover:
            await asyncio.wait(set(self._leftover), timeout=DETACH_PATIENCE)
        if self._starting is not None:
            await settle(self._stop, patience=STOP_PATIENCE, what="stopping Playwright")

    async def _start(self) -> Playwright:
        from playwright.async_api import async_playwright

        self._manager = async_playwright()
        try:
            driver: Playwright = await self._manager.start()
        except BaseException as error:
            # Only a loop that is torn down cancels this task. Playwright has let go of its process
            # by now, but the frames that were left still know it.
            for frame, _ in traceback.walk_tb(error.__traceback__):
                _kill(frame.f_locals.get("client"))
            raise
        return driver

    async def _stop(self) -> None:
        task = self._starting
        if task is None:
            return
        await asyncio.wait({task}, timeout=STUCK_AFTER if task.cancelling() else None)
        if not task.done():
            # The loop is being torn down. A spawn that is cancelled before its pipes are connected
            # kills its process, and then waits for pipes that nobody connects (CPython 3.11, 3.12).
            task.cancel()
            await asyncio.wait({task})
        if not _failed(task):
            await task.result().stop()
            # When a loop is torn down, the task that reads from the driver is cancelled with all
            # others, and `stop` takes its end for the driver's.
            _kill(getattr(self._manager, "_client", None))
        self._starting = None


class PlaywrightConnection:
    """Playwright attached to one session: `browser`, `context`, `page`.

    `async with` closes it; closing detaches and never ends the session.
    """

    def __init__(
        self,
        adapter: PlaywrightAdapter,
        endpoint: str,
        *,
        timeout: float,
        viewport: Mapping[str, int] | None = None,
    ) -> None:
        self._adapter = adapter
        self._viewport = viewport
        self._endpoint = endpoint
        self._timeout = timeout
        self._connecting: asyncio.Task[Browser] | None = None
        self._page: Page | None = None
        # Playwright would make one at once, and leave it when we are killed. This one comes into
        # being with the first download or trace.
        self._artifacts = Path(tempfile.gettempdir()) / f"playwright-artifacts-{uuid.uuid4()}"
        self.page_target_id: str | None = None
        """The CDP target of `page`: what makes it the same tab on another connection."""

    async def open(self, *, page_target_id: str | None = None) -> None:
        """Attach, and choose the page: the one with this target id, else the first.

        Raises `ConnectionFailed`. Cancelling it leaves the connection to `close`.
        """
        driver = await join(self._adapter.start())
        # In a task of its own: a call that the driver goes on with cannot be taken back by half.
        self._connecting = asyncio.create_task(
            _connect(
                driver,
                self._endpoint,
                self._artifacts,
                self._timeout,
                own=self._viewport is not None,
            ),
            name="connect Playwright",
        )
        browser = await join(self._connecting)
        with _translated(self._endpoint):
            if self._viewport is not None and not browser.contexts:
                await browser.new_context(viewport=cast(Any, dict(self._viewport)))
            page, target_id = await _choose_page(browser.contexts[0], page_target_id)
        self._page, self.page_target_id = page, target_id

    @property
    def browser(self) -> Browser:
        """Playwright's browser."""
        if self._page is None or self._connecting is None:
            raise UsageError("this connection is not open")
        return self._connecting.result()

    @property
    def context(self) -> BrowserContext:
        """The session's own context: its cookies, its storage, its tabs."""
        return self.browser.contexts[0]

    @property
    def page(self) -> Page:
        """The session's first tab."""
        if self._page is None:
            raise UsageError("this connection is not open")
        return self._page

    async def close(self) -> None:
        """Detach. Safe to call twice, while `open` is running, and when the browser is dead."""
        task = self._connecting
        if task is None:
            return
        if not task.done():
            # It ends when the session does; whatever it ends with is let go of behind.
            self._adapter.later(asyncio.create_task(_disconnect_later(task, self._artifacts)))
        elif not task.cancelled() and task.exception() is None:
            await _disconnect(task.result(), self._artifacts)

    def successor(self) -> PlaywrightConnection:
        """A connection to the same session that is not open yet."""
        return self._adapter.connection(self._endpoint, self._viewport)

    async def __aenter__(self) -> PlaywrightConnection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await settle(self.close, patience=DETACH_PATIENCE + 1, what="detaching Playwright")


def _kill(client: object) -> None:
    """Kill the driver of Playwright's inner *client*, if it still runs; asyncio collects it.

    Playwright shows its process to nobody, so this looks at its insides, and does nothing where
    they are different.
    """
    process = _process(client)
    if process is not None and process.returncode is None:
        process.kill()


def _process(client: object) -> asyncio.subprocess.Process | None:
    process = getattr(getattr(client, "_transport", None), "_proc", None)
    return process if isinstance(process, asyncio.subprocess.Process) else None


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _connect(
    driver: Playwright, endpoint: str, artifacts: Path, timeout: float, *, own: bool
) -> Browser:
    with _translated(endpoint):
        if own:
            return await driver.chromium.connect(endpoint, timeout=timeout * 1000)
        return await driver.chromium.connect_over_cdp(
            endpoint, artifacts_dir=artifacts, timeout=timeout * 1000
        )


@contextmanager
def _translated(endpoint: str) -> Iterator[None]:
    """Playwright's errors while attaching are `SessionEnded` or `ConnectionFailed`."""
    from playwright.async_api import Error

    try:
        yield
    except Error as error:
        place, _, _ = endpoint.partition("?")
        # The server's answer is in Playwright's message, in the middle of its log.
        if over := re.search(r'"releaseReason": "(\w+)"', error.message):
            raise ended_error(f"the session has ended: {over[1]}", over[1]) from None
        # The message repeats the address, and the address holds the session's token.
        reason = re.sub(r"\?\S*", "?…", error.message.partition("\n")[0])
        if told := re.search(r'"message": ("(?:[^"\\]|\\.)*")', error.message):
            reason = json.loads(told[1])
        raise ConnectionFailed(
            f"cannot attach to the browser at {place}: {reason}", endpoint=place
        ) from None


async def _choose_page(context: BrowserContext, wanted: str | None) -> tuple[Page, str]:
    pages = context.pages or [await context.new_page()]
    if wanted is not None:
        for page in pages:
            if await _target_id(context, page) == wanted:
                return page, wanted
    return pages[0], await _target_id(context, pages[0])


async def _target_id(context: BrowserContext, page: Page) -> str:
    cdp = await context.new_cdp_session(page)
    try:
        answer: dict[str, Any] = await cdp.send("Target.getTargetInfo")
    finally:
        await cdp.detach()
    return str(answer["targetInfo"]["targetId"])


async def _disconnect_later(connecting: asyncio.Task[Browser], artifacts: Path) -> None:
    await asyncio.wait({connecting})
    if connecting.cancelled() or connecting.exception() is not None:
        return
    await _disconnect(connecting.result(), artifacts)


async def _disconnect(browser: Browser, artifacts: Path) -> None:
    """Over CDP, `Browser.close` of Playwright closes the socket and leaves Chromium running."""
    try:
        async with asyncio.timeout(DETACH_PATIENCE):
            await browser.close()
    except Exception as error:
        # The release that follows closes the socket from the other end.
        log.debug("Playwright did not detach cleanly: %s", error)
    await in_thread(partial(shutil.rmtree, artifacts, ignore_errors=True))
