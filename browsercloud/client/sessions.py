"""`client.sessions`: make, find, extend and release sessions by id."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import attrs

from browsercloud._aio import give_up, settle
from browsercloud._later import later
from browsercloud.client.config import ClientConfig
from browsercloud.client.events import HELD, Events, events_page
from browsercloud.client.options import (
    SessionArgs,
    build_options,
    changed,
    check_session_id,
    milliseconds,
)
from browsercloud.client.retries import (
    AGAIN_IS_FINE,
    CHANGES_NOTHING,
    SAME_ID,
    Policy,
    outcome_unknown,
    repeat,
)
from browsercloud.client.transport import Transport, read
from browsercloud.client.watching import Frame, frames
from browsercloud.errors import (
    BrowserCloudError,
    Conflict,
    ConnectionFailed,
    NoCapacity,
    SessionNotFound,
)
from browsercloud.models import (
    LiveDetails,
    Released,
    ReleaseReason,
    ServerCapacity,
    Session,
    SessionEvent,
    SessionList,
    SessionStatus,
)
from browsercloud.options import SessionOptions

if TYPE_CHECKING:
    from browsercloud import wire
else:
    wire = later("browsercloud.wire")

log = logging.getLogger(__name__)

OnQueue = Callable[[int], None]
"""Called with a session's place in the line, 1 for the next one."""

PLACE_INTERVAL = 0.5
"""How often the place in the line is asked for, in seconds, if anybody wants to know it."""

_UNTIL_GONE = {"wait": "true"}

CREATE_REQUEST_TIMEOUT = 60.0
"""One create call, in seconds: the server answers within 50."""


class Sessions:
    """The sessions of the caller's project. An attribute of `BrowserCloud`."""

    def __init__(
        self,
        transport: Transport,
        config: ClientConfig,
        defaults: SessionOptions | None = None,
    ) -> None:
        self._transport = transport
        self._config = config
        self.defaults = defaults
        """What new ones are like unless told otherwise."""

    async def create(
        self,
        options: SessionOptions | None = None,
        /,
        *,
        session_id: str | None = None,
        on_queue: OnQueue | None = None,
        **changes: Unpack[SessionArgs],
    ) -> Session:
        """Start a session that lives until it is released or its `timeout` is over.

        *changes* override single *options*. *session_id* is a UUID of the caller's choice, for
        creating again what may have been created before: the same id with the same options is the
        same session. The call is repeated when that helps, for `create_timeout` seconds in all.

        A server without room lets it wait in a line, which is part of `create_timeout`. *on_queue*
        is called with the place, 1 for the next one, whenever that changes.

        Raises `UsageError` (nothing was sent), `InvalidRequest`, `Conflict`, `NoCapacity`,
        `LaunchFailed`, `BrowserNotFound`, `NotAuthorized`, `ConnectionFailed`. When it is
        cancelled, or the outcome is not known, the session is released by its id before the error
        is raised.
        """
        finished = build_options(options, changes, self.defaults)
        return await self.start(finished, session_id=session_id, on_queue=on_queue)

    async def start(
        self,
        options: SessionOptions,
        *,
        session_id: str | None = None,
        lease_id: str | None = None,
        on_queue: OnQueue | None = None,
    ) -> Session:
        """Create from finished options, tied to a lease if one is given."""
        chosen = check_session_id(session_id) if session_id is not None else str(uuid.uuid4())
        body: dict[str, Any] = {"sessionId": chosen, **changed(options)}
        if lease_id is not None:
            body["leaseId"] = lease_id
        maybe_made = False

        async def send() -> Session:
            nonlocal maybe_made
            try:
                answer = await self._transport.request(
                    "POST", "/v1/sessions", body=body, timeout=CREATE_REQUEST_TIMEOUT
                )
            except BaseException as error:
                maybe_made = maybe_made or outcome_unknown(error)
                raise
            maybe_made = True
            return read(answer, Session)

        watching = None if on_queue is None else asyncio.create_task(self._places(chosen, on_queue))
        # Nothing is awaited before this `try`: from the first byte on, the id can be released.
        try:
            return await repeat(
                SAME_ID,
                send,
                deadline=self._config.create_timeout,
                what=f"creating session {chosen}",
                endpoint=self._transport.url,
            )
        except BaseException as error:
            told: BrowserCloudError | None = None
            # After `Conflict` the id belongs to a session that this call did not make: hands off.
            if maybe_made and not isinstance(error, Conflict):
                try:
                    if isinstance(error, ConnectionFailed):
                        told = await self._in_line(chosen)
                finally:
                    await self._undo(chosen, told or error)
            if told is not None:
                raise told from None
            raise
        finally:
            if watching is not None:
                give_up(watching)

    async def capacity(self) -> ServerCapacity:
        """For how many sessions the server has room, and the project's own part of it."""
        return read(await self._call(CHANGES_NOTHING, "GET", "/v1/capacity"), ServerCapacity)

    async def retrieve(self, session_id: str) -> Session:
        """The session's record, also after its end. Raises `SessionNotFound`."""
        path = f"/v1/sessions/{check_session_id(session_id)}"
        return read(await self._call(CHANGES_NOTHING, "GET", path), Session)

    async def list(
        self,
        *,
        status: SessionStatus | str | None = None,
        name: str | None = None,
        build: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        cursor_id: str | None = None,
    ) -> SessionList:
        """One page of sessions, newest first, at most *limit* (1 to 100).

        *status*, *name*, *build* and *metadata* keep the sessions that have all of these;
        *cursor_id* continues after that session: pass the page's `next_cursor` until it is `None`.
        """
        wanted = {"status": status, "name": name, "build": build, "cursorId": cursor_id}
        query = {key: str(value) for key, value in wanted.items() if value is not None}
        query["limit"] = str(limit)
        for key, value in (metadata or {}).items():
            query[f"metadata.{key}"] = value
        return read(
            await self._call(CHANGES_NOTHING, "GET", "/v1/sessions", query=query), SessionList
        )

    async def live(self, session_id: str) -> LiveDetails:
        """What is open in the session now. Raises `SessionNotFound`, `SessionEnded`."""
        path = f"/v1/sessions/{check_session_id(session_id)}/live"
        return read(await self._call(CHANGES_NOTHING, "GET", path), LiveDetails)

    def events(self, session_id: str, *, after: int = 0, limit: int = 100) -> Events:
        """What happened in the session, oldest first.

        Awaited, at most *limit* (1 to 1000) events: pass the last one's number as *after* for what
        follows it. With `async for` every event after it and each as it comes, as `follow`. Works
        during its life and after its end, until the record is pruned. Raises `SessionNotFound`.
        """
        return Events(
            page=partial(self._events, session_id, after, limit),
            live=partial(self.follow, session_id, after=after),
        )

    async def _events(self, session_id: str, after: int, limit: int) -> tuple[SessionEvent, ...]:
        query = {"pointer": str(after), "limit": str(limit)}
        page, _ = await events_page(
            self._transport, self._config, check_session_id(session_id), query
        )
        return page

    async def follow(self, session_id: str, *, after: int = 0) -> AsyncIterator[SessionEvent]:
        """Every event with a greater number than *after*, those that were and each as it comes.

            async for event in client.sessions.follow(session.id):
                print(event.at, event.type, dict(event.details))

        Ends when the session has ended and all is told. A lost connection is made again, and
        nothing is left out or told twice. Raises as `events` does.
        """
        chosen, cursor = check_session_id(session_id), str(after)
        while True:
            query = {"pointer": cursor, "limit": "1000", "wait": "true"}
            page, following = await events_page(
                self._transport, self._config, chosen, query, held=HELD
            )
            for event in page:
                yield event
            if following is None:
                return
            cursor = following

    async def screenshot(
        self, session_id: str, *, format: str = "png", page_id: str | None = None
    ) -> bytes:
        """A picture of a tab; see `LiveSession.screenshot`."""
        query = {"format": format} | ({} if page_id is None else {"pageId": page_id})
        path = f"/sessions/{check_session_id(session_id)}/screenshot"
        return await self._transport.picture(path, query)

    async def viewer_link(
        self, session_id: str, *, interactive: bool = False, expires_in: float | None = 3600.0
    ) -> str:
        """A link to the live viewer, for *expires_in* seconds or (`None`) the session's life.

        It opens nothing else. With *interactive* its holder may reach into the browser.
        """
        path = f"/v1/sessions/{check_session_id(session_id)}/viewer"
        body: dict[str, Any] = {"interactive": interactive}
        if expires_in is not None:
            body["expiresIn"] = milliseconds(expires_in)
        answer = await self._call(AGAIN_IS_FINE, "POST", path, body=body)
        return str(answer["url"])

    def frames(
        self, session_id: str, *, max_fps: float | None = None
    ) -> AsyncGenerator[Frame, None]:
        """What the session shows, as JPEGs, until it ends; see `LiveSession.frames`."""
        path = f"/v1/sessions/{check_session_id(session_id)}/viewer/ws?interactive=false"
        return frames(self._transport, path, max_fps)

    async def extend(self, session_id: str, timeout: float) -> Session:
        """Let the session live *timeout* seconds from now. Raises `SessionEnded` if it is over."""
        path = f"/v1/sessions/{check_session_id(session_id)}/extend"
        body = {"timeout": milliseconds(timeout)}
        return read(await self._call(AGAIN_IS_FINE, "POST", path, body=body), Session)

    async def release(self, session_id: str, *, wait: bool = False) -> Released:
        """End the session; releasing it again is fine. Raises `SessionNotFound`.

        Returns when nobody can reach the session any more and its browser is told to go; with
        *wait*, when all of it is gone. Only then `success` tells whether something is left over,
        which `retrieve` tells later too. Runs to its end even when the caller is cancelled.
        """
        chosen = check_session_id(session_id)
        return await settle(
            lambda: self._release(chosen, wait),
            patience=self._config.release_timeout + 1,
            what=f"releasing session {chosen}",
        )

    async def release_all(self, *, wait: bool = False) -> int:
        """End every session of the caller's project; return how many there were.

        *wait* as for `release`.
        """
        answer = await settle(
            lambda: self._call(
                AGAIN_IS_FINE,
                "DELETE",
                "/v1/sessions",
                query=_UNTIL_GONE if wait else None,
                timeout=self._config.release_timeout,
                deadline=self._config.release_timeout,
            ),
            patience=self._config.release_timeout + 1,
            what="releasing all sessions",
        )
        return int(answer.get("released", 0))

    async def _release(self, session_id: str, wait: bool) -> Released:
        tries = 0

        async def send() -> Released:
            nonlocal tries
            tries += 1
            answer = await self._transport.request(
                "DELETE",
                f"/v1/sessions/{session_id}",
                query=_UNTIL_GONE if wait else None,
                timeout=self._config.release_timeout,
            )
            return read(answer, Released)

        released = await repeat(
            AGAIN_IS_FINE,
            send,
            deadline=self._config.release_timeout,
            what=f"releasing session {session_id}",
            endpoint=self._transport.url,
        )
        if tries > 1 and released.release_reason is ReleaseReason.USER_REQUESTED:
            # The first try did it, and only its answer was lost.
            return attrs.evolve(released, already_ended=False)
        return released

    async def _in_line(self, session_id: str) -> NoCapacity | None:
        """The error for a create whose time was over while it still waited in the line."""
        try:
            path = f"/v1/sessions/{session_id}"
            session = read(await self._transport.request("GET", path, timeout=2.0), Session)
        except BrowserCloudError as error:
            log.debug("session %s: not known whether it waits: %s", session_id, error)
            return None
        if session.queue_position is None:
            return None
        return NoCapacity(
            f"session {session_id} was still number {session.queue_position} in the line after "
            f"{self._config.create_timeout:g} s; release others, or give create_timeout= more"
        )

    async def _places(self, session_id: str, on_queue: OnQueue) -> None:
        """Tell *on_queue* each new place, until the session has left the line or it is cancelled.

        What goes wrong here is no reason for the create to fail.
        """
        told = None
        while True:
            await asyncio.sleep(PLACE_INTERVAL)
            try:
                session = await self.retrieve(session_id)
            except BrowserCloudError as error:
                log.debug("session %s: its place is not known: %s", session_id, error)
                continue
            if session.queue_position is not None and session.queue_position != told:
                told = session.queue_position
                try:
                    on_queue(told)
                except Exception:
                    log.exception("on_queue failed")
            elif session.queue_position is None and session.status is not SessionStatus.QUEUED:
                return

    async def _undo(self, session_id: str, error: BaseException) -> None:
        """Release what a create may have made. What goes wrong becomes a note of *error*."""
        try:
            await self.release(session_id)
        except SessionNotFound:
            return  # it never arrived, and the server will refuse it if it still does
        except (BrowserCloudError, TimeoutError) as failure:
            error.add_note(f"session {session_id} may be left over: {failure}")

    async def _call(
        self,
        policy: Policy,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
    ) -> Any:
        async def send() -> Any:
            return await self._transport.request(
                method, path, body=body, query=query, timeout=timeout
            )

        return await repeat(
            policy,
            send,
            deadline=self._config.request_timeout * 2 if deadline is None else deadline,
            what=f"{method} {path}",
            endpoint=self._transport.url,
        )
