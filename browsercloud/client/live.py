"""`client.session(...)`: a browser that is there inside `async with`, and gone afterwards."""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import attrs

from browsercloud._aio import close_all, deadline, join, settle
from browsercloud._later import load
from browsercloud.client.adapters.base import Connection
from browsercloud.client.adapters.playwright import PlaywrightConnection
from browsercloud.client.adapters.selenium import SeleniumConnection
from browsercloud.client.endings import QUIET_ENDINGS, ended_record, ending
from browsercloud.client.options import check_session_id
from browsercloud.client.owner import Owner
from browsercloud.client.sessions import OnQueue
from browsercloud.client.watching import Frame
from browsercloud.context import SessionContext
from browsercloud.errors import (
    BrowserCloudError,
    ConnectionFailed,
    ServiceError,
    SessionEnded,
    SessionNotFound,
    UsageError,
)
from browsercloud.models import Released, ReleaseReason, Session
from browsercloud.options import SessionOptions

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page
    from selenium.webdriver import Remote

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

EVIDENCE_PATIENCE = 5.0
"""How long to ask the server why a session has ended, in seconds."""

_NOT_OPEN = "the session is not open; use `async with client.session() as session:`"


class LiveSession:
    """One browser of your own, connected.

    Use it with `async with`, which releases it whatever happens inside. Leaving raises the
    `SessionEnded` that tells why, if the session ended before it was released; if the body raised,
    from the body's error. A release that fails never hides the body's error: it becomes a note.
    """

    def __init__(
        self,
        owner: Owner,
        options: SessionOptions,
        session_id: str | None,
        on_queue: OnQueue | None = None,
    ) -> None:
        self._owner = owner
        self._options = options
        self._on_queue = on_queue
        self.id = str(uuid.uuid4()) if session_id is None else check_session_id(session_id)
        """Chosen by the client, before anything is sent."""

        self._info: Session | None = None
        self._adapter = owner.adapter(options)
        self._connection: Connection | None = None
        self._begun = False
        self._left = False
        self._nothing_made = False
        self._asked = False
        self._released: Released | None = None

    def __repr__(self) -> str:
        return f"<LiveSession {self.id} {self._info.status if self._info else 'not open'}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """The live view itself, where a notebook shows this."""
        notebook = load("browsercloud.client.notebook")
        apart = self._owner.apart if self._released is None else None
        shown: dict[str, str] = notebook.bundle(repr(self), self._info, apart)
        return shown

    # ------------------------------------------------------------------ what it has

    @property
    def info(self) -> Session:
        """The session's record: as it was when it went live, and after its end the last one."""
        if self._info is None:
            raise UsageError(_NOT_OPEN)
        return self._info

    @property
    def page(self) -> Page:
        """The first tab, a Playwright page."""
        return self._playwright().page

    @property
    def context(self) -> BrowserContext:
        """The Playwright context that holds the session's cookies, storage and tabs."""
        return self._playwright().context

    @property
    def browser(self) -> Browser:
        """The Playwright browser."""
        return self._playwright().browser

    @property
    def driver(self) -> Remote:
        """The Selenium driver, with `adapter="selenium"`. Its calls block: see `run`."""
        return self._selenium().driver

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`call(*args, **kwargs)` in the session's own thread: for the blocking calls of `driver`.

            await session.run(session.driver.get, "https://example.com")

        One call after the other. Cancelled, it stops waiting; the call goes on until it is
        answered, at the latest when the session ends.
        """
        return await self._selenium().run(call, *args, **kwargs)

    @property
    def websocket_url(self) -> str:
        """CDP at browser level, for any client. Opens this session to whoever has it."""
        return self.info.websocket_url

    @property
    def webdriver_url(self) -> str:
        """W3C WebDriver, for Selenium in any language. Opens this session to whoever has it."""
        return self.info.webdriver_url

    @property
    def debug_url(self) -> str:
        """The session's page for people. Opens this session to whoever has it."""
        return self.info.debug_url

    @property
    def session_viewer_url(self) -> str:
        """The session's live picture. Opens this session to whoever has it."""
        return self.info.session_viewer_url

    # ------------------------------------------------------------------ its life

    async def open(self) -> Self:
        """What `async with` does on entering, for sessions that outlive a block or a notebook cell.

        `release` must follow; closing the client releases it at the latest. Raises as
        `client.sessions.create` does, and `ConnectionFailed` when it cannot be attached to; nothing
        is left then, nor after a cancellation.
        """
        if self._begun:
            raise UsageError("a LiveSession is used once; call client.session() again")
        self._owner.adopt(self)
        self._begun = True
        try:
            await self._open()
        except BaseException as error:
            await self._release_after(error)
            self._left = True
            self._owner.disown(self)
            raise
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self.release()
            else:
                await self._release_after(error)
        finally:
            # Whether it is gone or not has been said; the end of the lease does the rest.
            self._left = True
            self._owner.disown(self)
        if error is None or isinstance(error, Exception):
            surprise = await self._surprise(error)
            if surprise is not None:
                raise surprise from error

    async def release(self, *, wait: bool = False) -> Released:
        """End the session, and detach from it. Again is fine.

        Returns when nobody can reach the session any more and its browser is told to go; with
        *wait*, when all of it is gone, and `ServiceError` is raised when something is left over.
        Runs to its end even when the caller is cancelled, within `release_timeout`. Raises
        `ConnectionFailed` or `ServiceError` when the server did not confirm: the session may then
        live until its lease or its `timeout` ends it, and `release` may be called again.
        """
        if self._released is None or wait:
            patience = self._owner.config.release_timeout + 5
            await settle(
                lambda: self._let_go(wait), patience=patience, what=f"releasing session {self.id}"
            )
        if self._released is None:
            raise UsageError("the session was never opened")
        return self._released

    async def get_context(self) -> SessionContext:
        """Its cookies and storage, for another session; see `client.contexts.get`."""
        return await self._owner.contexts.get(self.id)

    async def set_context(self, context: SessionContext | Mapping[str, Any]) -> None:
        """Replace its cookies and storage; see `client.contexts.set`."""
        await self._owner.contexts.set(self.id, context)

    async def screenshot(self, *, format: str = "png", page_id: str | None = None) -> bytes:
        """A picture of the first tab, or of *page_id*: its viewport, as `png` or `jpeg`.

        Whatever the session is driven with. Raises `SessionEnded`.
        """
        return await self._owner.sessions.screenshot(self.id, format=format, page_id=page_id)

    def frames(self, *, max_fps: float | None = None) -> AsyncGenerator[Frame, None]:
        """What the tab in front shows: now, and whenever it changes, until the session ends.

            async for frame in session.frames(max_fps=5):
                show(frame.picture)

        At most *max_fps* in a second. A slow consumer gets the newest frame; those between are
        dropped. Watching keeps no session alive. A loop that is left early closes the connection
        with the generator, as `contextlib.aclosing` does at once. Raises `SessionEnded` when the
        session is over already, `ConnectionFailed` when the connection is lost.
        """
        return self._owner.sessions.frames(self.id, max_fps=max_fps)

    async def viewer_url(
        self, *, interactive: bool = False, expires_in: float | None = 3600.0
    ) -> str:
        """A link to the live viewer; see `Sessions.viewer_link`."""
        return await self._owner.sessions.viewer_link(
            self.id, interactive=interactive, expires_in=expires_in
        )

    async def reconnect(self) -> Page:
        """Attach again after the connection was lost; `page` is the same tab, as it is now.

        Returns it. Raises `SessionEnded` when the session is over, else `ConnectionFailed`.
        """
        lost = self._playwright()
        same_tab = await lost.page_target_id()
        await lost.close()
        connection = lost.successor()
        self._connection = connection
        try:
            await connection.open(page_target_id=same_tab)
        except (ConnectionFailed, SessionEnded) as error:
            raise (await self._ending() or error) from error
        return connection.page

    async def _open(self) -> None:
        driver = self._adapter.start()  # both of these go on beside the create
        self._owner.lease.hold()
        try:
            self._info = await self._owner.sessions.start(
                self._options,
                session_id=self.id,
                lease_id=self._owner.lease.id,
                on_queue=self._on_queue,
            )
        except BaseException:
            # It has undone what it may have made. If the id is somebody else's, hands off.
            self._nothing_made = True
            raise
        await join(driver)
        connection = self._adapter.of(self._info)
        self._connection = connection
        try:
            await connection.open()
        except (ConnectionFailed, SessionEnded) as error:
            raise (await self._ending() or error) from error

    async def _let_go(self, wait: bool) -> None:
        """The way out, the last opened first. Safe to begin again at any point."""
        await close_all([lambda: self._delete(wait), self._detach])
        self._owner.disown(self)

    async def _detach(self) -> None:
        if isinstance(self._connection, PlaywrightConnection):
            # Beside the release and after it: nobody has to wait for a goodbye between programs.
            self._connection.close_behind()
        elif self._connection is not None:
            await self._connection.close()

    async def _delete(self, wait: bool) -> None:
        if self._released is not None and not wait:
            return
        if self._nothing_made:
            self._released = Released(success=True, message="nothing was created")
            return
        again, self._asked = self._asked, True
        try:
            released = await self._owner.sessions.release(self.id, wait=wait)
        except SessionNotFound as error:
            # Its create has not arrived yet; the tombstone keeps it out.
            released = Released(success=True, message=error.message)
        except ConnectionFailed as error:
            if not self._owner.lease.server_stopped:
                raise
            reason = ReleaseReason.SHUTDOWN
            released = Released(
                success=True, message=str(error), release_reason=reason, already_ended=True
            )
        if again and released.release_reason is ReleaseReason.USER_REQUESTED:
            released = attrs.evolve(released, already_ended=False)  # by us, the first time
        self._released = released
        self._info = ended_record(self._info, released, wait=wait)
        if not released.success:
            raise ServiceError(released.message, code="cleanup_failed")

    async def _release_after(self, error: BaseException) -> None:
        """Release without hiding *error*; a cancellation meanwhile comes out all the same."""
        try:
            await self.release()
        except (BrowserCloudError, TimeoutError, ExceptionGroup) as failure:
            log.warning("session %s: the release failed: %s", self.id, failure)
            error.add_note(f"releasing session {self.id} failed too: {failure}")

    async def _surprise(self, error: BaseException | None) -> SessionEnded | None:
        """Why the session had ended before its release, if the body did not ask for it."""
        if isinstance(error, SessionEnded) or self._released is None:
            return None
        if not self._released.already_ended:
            return None
        if error is None and self._released.release_reason in QUIET_ENDINGS:
            return None
        return await self._ending()

    async def _ending(self) -> SessionEnded | None:
        """The error that tells why the session is over; `None` while it is not, or if unknown."""
        try:
            async with deadline(EVIDENCE_PATIENCE, "asking why the session ended"):
                session: Session | None = await self._owner.sessions.retrieve(self.id)
        except (BrowserCloudError, TimeoutError) as error:
            log.info("session %s: its record cannot be had any more: %s", self.id, error)
            session = self._info
        if session is None or session.release_reason is None:
            return None
        self._info = session
        return ending(session)

    def _playwright(self) -> PlaywrightConnection:
        connection = self._attached()
        if not isinstance(connection, PlaywrightConnection):
            raise UsageError(
                f"this session was asked for with adapter={self._options.adapter.value!r}, and "
                "this is Playwright's; leave adapter out, or use client.playwright.connect(info)"
            )
        return connection

    def _selenium(self) -> SeleniumConnection:
        connection = self._attached()
        if not isinstance(connection, SeleniumConnection):
            raise UsageError(
                f"this session was asked for with adapter={self._options.adapter.value!r}, and "
                "this is Selenium's; ask for the session with adapter='selenium'"
            )
        return connection

    def _attached(self) -> Connection:
        if self._connection is None:
            raise UsageError(_NOT_OPEN)
        if self._released is not None:
            raise UsageError(f"session {self.id} has been released")
        return self._connection

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if getattr(self, "_begun", False) and not self._left and self._released is None:
            _warn(f"session {self.id} was not released", ResourceWarning, source=self)
