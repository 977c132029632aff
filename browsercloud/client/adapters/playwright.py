"""`client.playwright`: one Playwright driver for each client, and connections to sessions.

Playwright is imported, in a thread, when its driver is started: when a client that embeds its
server opens, as such a client is there for sessions, else beside the first session's create.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
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

from browsercloud._aio import forget, in_thread, join, settle
from browsercloud._later import later, load
from browsercloud.client.adapters.human import pace
from browsercloud.client.config import ClientConfig
from browsercloud.client.transport import ended_error
from browsercloud.errors import ConnectionFailed, UsageError
from browsercloud.models import Session, SessionProtocol

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Playwright

if TYPE_CHECKING:
    import platformdirs
else:
    platformdirs = later("platformdirs")

log = logging.getLogger(__name__)

CACHE, NO_CACHE = "NODE_COMPILE_CACHE", "NODE_DISABLE_COMPILE_CACHE"

DETACH_PATIENCE = 3.0
"""How long Playwright may take to let go of a browser, in seconds: it may be dead or frozen."""

NAMED_AFTER = 0.2
"""Seconds after attaching in which the driver is left to the user's first commands."""

STUCK_AFTER = 0.5
"""How long a cancelled start of the driver may take to end, in seconds."""

START_PATIENCE = 5.0
"""How long a start of the driver may still take when the client is closed, in seconds."""

STOP_PATIENCE = 10.0
"""How long Playwright's driver may take to start or to stop, in seconds."""


class PlaywrightAdapter:
    """Owns the driver, a Node process, that all sessions of a client share."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._starting: asyncio.Task[Playwright] | None = None
        self._loaded = asyncio.Event()
        self._manager: Any = None
        self._leftover: set[asyncio.Task[Any]] = set()
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
            session.websocket_url,
            {"width": size.width, "height": size.height} if own else None,
            human=session.stealth is not None and session.stealth.humanize_interactions,
        )

    def connection(
        self,
        endpoint: str,
        viewport: Mapping[str, int] | None = None,
        *,
        human: bool = False,
    ) -> PlaywrightConnection:
        """A connection that is not open yet; by Playwright's own protocol if *viewport* is given.

        That one has no context yet: the first one gets this viewport. *human*: it acts at a
        person's pace.
        """
        timeout = self._config.connect_timeout
        return PlaywrightConnection(self, endpoint, timeout=timeout, viewport=viewport, human=human)

    async def begin(self) -> None:
        """Begin to start the driver; return when Playwright is loaded, the rest goes on behind.

        A failure is told to whoever needs the driver.
        """
        self.start().add_done_callback(forget)
        await self._loaded.wait()

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

    def later(self, task: asyncio.Task[Any]) -> None:
        """Wait for *task*, for a while before the driver is stopped, and afterwards for good."""
        self._leftover.add(task)
        task.add_done_callback(self._leftover.discard)

    async def close(self) -> None:
        """Stop the driver. Connections still open break. Safe to call twice."""
        self._closed = True
        if self._leftover:
            await asyncio.wait(set(self._leftover), timeout=DETACH_PATIENCE)
        if self._starting is not None:
            await settle(self._stop, patience=STOP_PATIENCE, what="stopping Playwright")
        if self._leftover:
            await asyncio.wait(set(self._leftover), timeout=DETACH_PATIENCE)

    async def _start(self) -> Playwright:
        try:
            # In a thread: nobody's event loop stands still for an import of a tenth of a second.
            try:
                playwright = await in_thread(partial(load, "playwright.async_api"))
            finally:
                self._loaded.set()
            self._manager = playwright.async_playwright()
            with _compile_cache():
                driver: Playwright = await self._manager.start()
        except BaseException as error:
            _clear_away(error)
            if not isinstance(error, Exception):
                raise  # only `_stop`, and a loop that is torn down, cancel this task
            raise ConnectionFailed(
                f"Playwright's driver does not start: {type(error).__name__}: {error}; "
                "`python -m pip install --force-reinstall playwright` repairs it",
                endpoint="",
            ) from error
        return driver

    async def _stop(self) -> None:
        task = self._starting
        if task is None:
            return
        patience = STUCK_AFTER if task.cancelling() else START_PATIENCE
        await asyncio.wait({task}, timeout=patience)
        if not task.done():
            # It hangs, or the loop is being torn down. A spawn that is cancelled before its pipes
            # are connected kills its process, and then waits for pipes that nobody connects
            # (CPython 3.11, 3.12).
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
        human: bool = False,
    ) -> None:
        self._adapter = adapter
        self._human = human
        self._viewport = viewport
        self._endpoint = endpoint
        self._timeout = timeout
        self._connecting: asyncio.Task[Browser] | None = None
        self._page: Page | None = None
        self._target: str | None = None
        self._naming: asyncio.Task[str | None] | None = None
        self._left = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        # Playwright would make one at once, and leave it when we are killed. This one comes into
        # being with the first download or trace.
        self._artifacts = Path(tempfile.gettempdir()) / f"playwright-artifacts-{uuid.uuid4()}"

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
            context = browser.contexts[0]
            self._page, self._target = await _choose_page(context, page_target_id)
        if self._human:
            pace(context)
        if self._target is None:
            # Only a reconnect asks for it, and nobody could ask a lost connection: so soon, behind.
            name = self._name(context, self._page)
            self._naming = asyncio.create_task(name, name="name the page")
            self._adapter.later(self._naming)

    async def page_target_id(self) -> str | None:
        """The CDP target of `page`: what makes it the same tab on another connection.

        `None` when the connection was lost before that was known: in its first moments, when the
        tab is the session's first one in all likelihood.
        """
        naming = self._naming
        if naming is not None:
            await asyncio.wait({naming}, timeout=DETACH_PATIENCE)
            self._target = naming.result() if _succeeded(naming) else None
        return self._target

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
        self.close_behind()
        task = self._connecting
        if self._closing is not None and task is not None and task.done():
            await join(self._closing)

    def close_behind(self) -> None:
        """Begin to detach; closing the client waits for it. Safe to call twice.

        A connection that is still being made ends when the session does, and is let go of then.
        """
        self._left.set()
        if self._connecting is not None and self._closing is None:
            self._closing = asyncio.create_task(self._disconnect(self._connecting))
            self._adapter.later(self._closing)

    async def _name(self, context: BrowserContext, page: Page) -> str | None:
        from playwright.async_api import Error

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NAMED_AFTER):
                await self._left.wait()
                return None
        try:
            return await _target_id(context, page)
        except Error as error:
            log.debug("the page has no name to find it by again: %s", error.message)
            return None

    async def _disconnect(self, connecting: asyncio.Task[Browser]) -> None:
        await asyncio.wait({connecting})
        if _succeeded(connecting):
            await _disconnect(connecting.result(), self._artifacts)

    def successor(self) -> PlaywrightConnection:
        """A connection to the same session that is not open yet."""
        return self._adapter.connection(self._endpoint, self._viewport, human=self._human)

    async def __aenter__(self) -> PlaywrightConnection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await settle(self.close, patience=DETACH_PATIENCE + 1, what="detaching Playwright")


@contextmanager
def _compile_cache() -> Iterator[None]:
    """Let Node keep what it has compiled of the driver: it takes a fifth of its start.

    Playwright gives its driver our environment, and nothing else. A folder that cannot be written
    to is no error to Node. https://nodejs.org/api/module.html#module-compile-cache
    """
    if any(name in os.environ for name in (CACHE, NO_CACHE)):
        yield
        return
    os.environ[CACHE] = str(Path(platformdirs.user_cache_dir("browsercloud")) / "node")
    try:
        yield
    finally:
        os.environ.pop(CACHE, None)


def _clear_away(error: BaseException) -> None:
    """End what a start that failed has left: a process, and futures that fail with nobody there.

    Playwright has let go of both by now, but the frames that were left still know them.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        client = frame.f_locals.get("client")
        _kill(client)
        told = getattr(getattr(client, "_transport", None), "on_error_future", None)
        for left in (told, *frame.f_locals.values()):
            if isinstance(left, asyncio.Future):
                left.add_done_callback(forget)


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
    return task.done() and not _succeeded(task)


def _succeeded(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


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


async def _choose_page(context: BrowserContext, wanted: str | None) -> tuple[Page, str | None]:
    """The page, and its target if that is known."""
    pages = context.pages or [await context.new_page()]
    if wanted is not None:
        for page in pages:
            if await _target_id(context, page) == wanted:
                return page, wanted
    return pages[0], None


async def _target_id(context: BrowserContext, page: Page) -> str:
    cdp = await context.new_cdp_session(page)
    try:
        answer: dict[str, Any] = await cdp.send("Target.getTargetInfo")
    finally:
        await cdp.detach()
    return str(answer["targetInfo"]["targetId"])


async def _disconnect(browser: Browser, artifacts: Path) -> None:
    """Over CDP, `Browser.close` of Playwright closes the socket and leaves Chromium running."""
    try:
        async with asyncio.timeout(DETACH_PATIENCE):
            await browser.close()
    except Exception as error:
        # The release that follows closes the socket from the other end.
        log.debug("Playwright did not detach cleanly: %s", error)
    finally:
        await in_thread(partial(shutil.rmtree, artifacts, ignore_errors=True))
