"""`client.selenium`: a real `selenium.webdriver.Remote` for a session, and a thread for its calls.

Selenium's calls block. Each connection has one thread of its own, so that they can be awaited.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from browsercloud._aio import in_thread, join, settle
from browsercloud.client.config import ClientConfig
from browsercloud.errors import ConnectionFailed, UsageError
from browsercloud.models import Session

if TYPE_CHECKING:
    from selenium.webdriver import Remote

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

DETACH_PATIENCE = 3.0
"""How long Selenium may take to let go of a browser, in seconds: it may be dead or frozen."""

COMMAND_TIMEOUT = 600.0
"""How long Selenium waits for the answer to one command, in seconds."""


class SeleniumAdapter:
    """Attaches Selenium to sessions. Imports it when the first one needs it."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config

    async def connect(self, session: Session) -> SeleniumConnection:
        """Attach to a session that `client.sessions.create` made.

        The result is an async context manager; closing it detaches and leaves the session alone.
        Raises `UsageError` without the extra `selenium`, or `ConnectionFailed`.
        """
        if not isinstance(session, Session):
            raise UsageError(
                "connect() takes a Session: `await client.sessions.retrieve(id)` returns one"
            )
        if session.webdriver_url.endswith("/webdriver"):
            raise UsageError(
                "the URLs of a listed session hold no token: "
                "connect to `await client.sessions.retrieve(session.id)`"
            )
        await join(self.start())
        connection = self.of(session)
        try:
            await connection.open()
        except BaseException:
            await settle(connection.close, patience=DETACH_PATIENCE + 1)
            raise
        return connection

    def require(self) -> None:
        """Raise `UsageError` unless Selenium is installed."""
        if find_spec("selenium") is None:
            raise UsageError(
                "adapter='selenium' needs Selenium: pip install 'browsercloud[selenium]'"
            )

    def start(self) -> asyncio.Task[object]:
        """Begin to import Selenium, which takes a while."""
        self.require()
        return asyncio.create_task(in_thread(_import), name="import Selenium")

    def of(self, session: Session) -> SeleniumConnection:
        """A connection that is not open yet."""
        return SeleniumConnection(session, timeout=self._config.connect_timeout)

    async def close(self) -> None:
        """There is nothing that connections share."""


class SeleniumConnection:
    """Selenium attached to one session: `driver`, and `run` for its calls.

    `async with` closes it; closing detaches and never ends the session.
    """

    def __init__(self, session: Session, *, timeout: float) -> None:
        self._session = session
        self._timeout = timeout
        self._thread: _Thread | None = None
        self._driver: Remote | None = None

    async def open(self) -> None:
        """Attach; see `Connection.open`."""
        self._thread = _Thread(f"browsercloud selenium {self._session.id}")
        try:
            async with asyncio.timeout(self._timeout):
                await self._thread.run(self._attach)
        except TimeoutError:
            raise self._failed(f"no answer within {self._timeout:g} s") from None

    @property
    def driver(self) -> Remote:
        """Selenium's driver. Its calls block: await them with `run`."""
        if self._driver is None:
            raise UsageError("this connection is not open")
        return self._driver

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`call(*args, **kwargs)` in the connection's own thread, one call after the other.

        Raises what the call raises. Cancelled, it stops waiting; the call itself cannot be stopped,
        and goes on until it is answered, at the latest when the session ends.
        """
        if self._thread is None or self._driver is None:
            raise UsageError("this connection is not open")
        return await self._thread.run(partial(call, *args, **kwargs))

    async def close(self) -> None:
        """Detach; see `Connection.close`. A call that is still under way is given up."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if thread.idle and self._driver is not None:
            try:
                async with asyncio.timeout(DETACH_PATIENCE):
                    await thread.run(self._driver.quit)
            except Exception as error:
                # The release that follows ends the WebDriver session with its browser.
                log.debug("Selenium did not detach cleanly: %s", type(error).__name__)
        quiet = thread.idle
        thread.end(self._hang_up)
        if quiet:
            await thread.wait(DETACH_PATIENCE)

    async def __aenter__(self) -> SeleniumConnection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await settle(self.close, patience=3 * DETACH_PATIENCE, what="detaching Selenium")

    def _attach(self) -> None:
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver import ChromeOptions, Remote
        from selenium.webdriver.remote.client_config import ClientConfig as SeleniumConfig
        from urllib3.exceptions import HTTPError

        url = self._session.webdriver_url
        try:
            self._driver = Remote(
                url,
                options=ChromeOptions(),
                client_config=SeleniumConfig(url, timeout=int(COMMAND_TIMEOUT)),
            )
        except WebDriverException as error:
            # What it says is the server's sentence; further lines are Selenium's advertisement.
            said = (error.msg or "").partition("; For documentation")[0]
            raise self._failed(said) from None
        except HTTPError as error:
            raise self._failed(type(error).__name__) from None  # its text holds the token

    def _hang_up(self) -> None:
        """The last thing its thread does, whatever became of the calls before."""
        if self._driver is not None:
            # Selenium's driver shows a connection or the text that it was made from.
            executor: Any = self._driver.command_executor
            executor.close()

    def _failed(self, reason: str) -> ConnectionFailed:
        place = self._session.webdriver_url.rpartition("/")[0]
        return ConnectionFailed(f"cannot attach Selenium at {place}: {reason}", endpoint=place)


class _Thread:
    """One thread for calls that block, one after the other, in the order they came.

    A daemon: a call that hangs must not keep a program alive.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._calls = queue.SimpleQueue()
        self._begun = 0  # each counted by one thread only
        self._done = 0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether no call is under way or waits for its turn."""
        return self._begun == self._done

    async def run(self, call: Callable[[], T]) -> T:
        """Make the call. A cancelled one that has not begun is never made."""
        future: Future[T] = Future()
        self._begun += 1
        self._calls.put((future, call))
        return await asyncio.wrap_future(future)

    def end(self, last: Callable[[], None]) -> None:
        """End after the calls that are waiting, with *last*."""
        self._calls.put((Future(), last))
        self._calls.put(None)

    async def wait(self, patience: float) -> None:
        """Wait up to so many seconds for its end."""
        await in_thread(partial(self._thread.join, patience))

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            self._make(*item)
            del item  # it would keep alive what the call has used

    def _make(self, future: Future[Any], call: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            self._done += 1
            return
        try:
            result = call()
        except BaseException as error:
            self._done += 1
            future.set_exception(error)
        else:
            self._done += 1
            future.set_result(result)


def _import() -> None:
    import selenium.webdriver.remote.webdriver  # noqa: F401 - only so that it is loaded
