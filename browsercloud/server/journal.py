"""What happened in each session's life: noted at once, written to the store by and by."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from browsercloud._aio import settle, stop_task
from browsercloud.models import SessionEvent
from browsercloud.server.records import now
from browsercloud.stores.base import Store
from browsercloud.wire import camel, dump

log = logging.getLogger(__name__)

MAX_EVENTS = 10_000
"""Events that one session may have; the last of them is `EVENTS_DROPPED`."""

MAX_UNSAVED = 50_000
"""Events of all sessions that may wait for the store at the same time."""

MAX_DETAILS = 16_384
"""Characters of JSON that the details of one event may take."""

AT_ONCE = 500
"""Events that are taken out of the line together."""

READ_AT_ONCE = 100
RETRY_PAUSES = (0.05, 0.1, 0.2, 0.4)
"""Seconds before each further try to write, when the store fails."""

CLOSE_PATIENCE = 5.0
LATE_WITHIN, MAX_LATE = 60.0, 1_000
"""For how many seconds, and how many sessions, it is known that they were forgotten."""


class EventType(StrEnum):
    """What an event tells."""

    QUEUED = "session.queued"
    """There is no room for it yet; it waits in the line."""

    STARTING = "session.starting"
    """Its browser is being started."""

    LIVE = "session.live"
    """It can be used; its life is counted from here."""

    RESTORED = "session.restored"
    """Another server has taken it over, with its browser as it was."""

    EXTENDED = "session.extended"
    """It was given a new life."""

    TIMEOUT_SOON = "session.timeout_soon"
    """Its life is about to be over."""

    RELEASING = "session.releasing"
    """Its end has begun, and why."""

    RELEASED = "session.released"
    """It has ended in order."""

    FAILED = "session.failed"
    """It has ended by a fault, with the evidence."""

    EVENTS_DROPPED = "session.events_dropped"
    """It has had as many events as are kept; what comes after this one is not."""


class Journal:
    """The events of the sessions that this server runs. Used on its event loop.

    A session's events count from 1. `note` them once the session's row has been given to the store,
    which drops those of a session that it does not know; `resume` a session that an earlier server
    has run before its next one is noted; `forget` it after its last one.
    """

    def __init__(
        self, store: Store, *, max_events: int = MAX_EVENTS, max_unsaved: int = MAX_UNSAVED
    ) -> None:
        self._store = store
        self._max_events = max_events
        self._max_unsaved = max_unsaved
        self._counts: dict[str, int] = {}
        self._forgotten: OrderedDict[str, float] = OrderedDict()
        self._unsaved: deque[tuple[str, SessionEvent]] = deque()
        self._noted = 0
        self._settled = 0
        """How many of those noted are in the store, or given up."""

        self._places: dict[str, int] = {}
        """What `_settled` has to reach for a session's last event, until it has."""

        self._lost = 0
        self._failures = 0
        self._listeners: dict[str, set[asyncio.Future[None]]] = {}
        self._progress: set[asyncio.Future[None]] = set()
        self._writer: asyncio.Task[None] | None = None
        self._state = "new"

    async def open(self) -> None:
        """Begin to write. The store must be open. Safe to call twice."""
        if self._state == "new":
            self._state = "open"
            self._write_soon()

    async def close(self) -> None:
        """Write what is left, within 5 s, and end every `follow`. Safe to call twice.

        What is noted afterwards is dropped.
        """
        if self._state != "open":
            self._state = "closed"
            return
        self._state = "closing"
        self.wake()
        try:
            await settle(self.flush, patience=CLOSE_PATIENCE, what="writing the last events")
        finally:
            self._state = "closed"
            await stop_task(self._writer)

    def note(self, session_id: str, kind: str, /, **details: Any) -> None:
        """Keep that this has happened. Returns at once and never fails.

        *details* become JSON as `wire.dump` makes it, their names camelCase; durations are given
        in milliseconds. They must hold nothing secret. Details that cannot be JSON, or take more
        than 16 KiB, are left out and logged. Beyond 10 000 events of a session, and when the store
        is 50 000 events behind, an event is dropped.
        """
        if self._state in ("closing", "closed") or self._was_forgotten(session_id):
            log.debug("session %s: %s came too late to be kept", session_id, kind)
            return
        number = self._counts.get(session_id, 0) + 1
        if number > self._max_events:
            return
        if number == self._max_events:
            kind, details = EventType.EVENTS_DROPPED, {"kept": number}
        self._counts[session_id] = number
        if len(self._unsaved) >= self._max_unsaved:
            self._lose()
            return
        event = SessionEvent(
            number=number, at=now(), type=str(kind), details=_plain(session_id, kind, details)
        )
        self._unsaved.append((session_id, event))
        self._noted += 1
        self._places[session_id] = self._noted
        self._write_soon()
        self._tell(session_id)

    async def flush(self, session_id: str | None = None) -> None:
        """Return when all events noted so far, or those of one session, have been written.

        Events that the store refuses five times in a row are given up, which is logged: it does not
        wait for them, and raises nothing. Before `open` there is nothing to wait for.
        """
        place = self._noted if session_id is None else self._places.get(session_id, 0)
        while self._settled < place and self._state in ("open", "closing"):
            self._write_soon()
            step = asyncio.get_running_loop().create_future()
            self._progress.add(step)
            try:
                await _either(step, self._writer)
            finally:
                self._progress.discard(step)

    async def read(
        self, session_id: str, *, after: int = 0, limit: int = READ_AT_ONCE
    ) -> Sequence[SessionEvent]:
        """As `Store.events`, with all that has been noted so far."""
        await self.flush(session_id)
        return await self._store.events(session_id, after=after, limit=limit)

    async def resume(self, session_id: str) -> int:
        """Let the numbers go on after the last one in the store, and return that.

        Raises what the store raises.
        """
        self._forgotten.pop(session_id, None)
        last = 0
        while page := await self.read(session_id, after=last, limit=1_000):
            last = page[-1].number
        self._counts[session_id] = max(last, self.count(session_id))
        return self._counts[session_id]

    def count(self, session_id: str) -> int:
        """The number of the session's last event; 0 if there is none, or it was forgotten."""
        return self._counts.get(session_id, 0)

    def knows(self, session_id: str) -> bool:
        """Whether more may come: something was noted, or it was resumed, and is not forgotten."""
        return session_id in self._counts

    def forget(self, session_id: str) -> None:
        """Nothing more will happen in this session. What was noted is written all the same."""
        if self._counts.pop(session_id, None) is not None:
            self._forgotten[session_id] = asyncio.get_running_loop().time()
            if len(self._forgotten) > MAX_LATE:
                self._forgotten.popitem(last=False)
        self._tell(session_id)

    async def follow(self, session_id: str, after: int = 0) -> AsyncIterator[SessionEvent]:
        """The events with a greater number than *after*: those that were, then each as it comes.

        Ends when the session is forgotten, or was never known, and all its events are told. It
        reads from the store, so a slow reader holds nothing up and loses nothing.
        """
        while True:
            # Listen first and look then: what happens in between is not missed.
            with self.listen(session_id) as news:
                more = self.knows(session_id) and self._state == "open"
                page = await self.read(session_id, after=after)
                if more and not page:
                    await asyncio.wait({news})
            for event in page:
                after = event.number
                yield event
            if not page and not more:
                return

    @contextmanager
    def listen(self, session_id: str) -> Iterator[asyncio.Future[None]]:
        """A future for the block that is done when something is noted, or nothing more will be."""
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listeners.setdefault(session_id, set()).add(news)
        try:
            yield news
        finally:
            others = self._listeners.get(session_id, set())
            others.discard(news)
            if not others:
                self._listeners.pop(session_id, None)

    def wake(self) -> None:
        """Let go of everyone who listens, as when the server ends."""
        for session_id in list(self._listeners):
            self._tell(session_id)

    def _tell(self, session_id: str) -> None:
        _done(self._listeners.pop(session_id, set()))

    def _was_forgotten(self, session_id: str) -> bool:
        since = self._forgotten.get(session_id)
        if since is None:
            return False
        if asyncio.get_running_loop().time() - since < LATE_WITHIN:
            return True
        del self._forgotten[session_id]  # that long ago, it is another session with this id
        return False

    def _lose(self) -> None:
        self._lost += 1
        if self._lost == 1:
            log.error("the store is %d events behind; more are dropped", len(self._unsaved))

    # ------------------------------------------------------------------ writing

    def _write_soon(self) -> None:
        # No task while there is nothing to do; one that somebody cancelled is begun anew.
        idle = self._writer is None or self._writer.done()
        if idle and self._unsaved and self._state in ("open", "closing"):
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="journal")

    async def _write(self) -> None:
        while self._unsaved:
            batch = list(itertools.islice(self._unsaved, AT_ONCE))
            of_each: dict[str, list[SessionEvent]] = {}
            for session_id, event in batch:
                of_each.setdefault(session_id, []).append(event)
            for session_id, events in of_each.items():
                await self._save(session_id, events)
            # Only now: if this is cancelled, all of the batch is written again, which is harmless.
            for _ in batch:
                self._unsaved.popleft()
            self._settled += len(batch)
            for session_id in of_each:
                if self._places[session_id] <= self._settled:
                    del self._places[session_id]
            _done(self._progress)
        if self._lost:
            log.error("%d events were dropped while the store was behind", self._lost)
            self._lost = 0

    async def _save(self, session_id: str, events: Sequence[SessionEvent]) -> None:
        while True:
            try:
                await self._store.append(session_id, events)
            except Exception as error:
                self._failures += 1
                if self._failures > len(RETRY_PAUSES):
                    # Once it has failed that often, what comes next is tried once, until it works.
                    log.error("session %s: %d events lost: %s", session_id, len(events), error)
                    return
                log.warning("session %s: events not written, again: %s", session_id, error)
                await asyncio.sleep(RETRY_PAUSES[self._failures - 1])
            else:
                self._failures = 0
                return


def _plain(session_id: str, kind: str, details: Mapping[str, Any]) -> Mapping[str, Any]:
    """*details* as they will be read: JSON, and no part of anything that may change later."""
    if not details:
        return {}
    why = f"they take more than {MAX_DETAILS} characters"
    plain: Mapping[str, Any] = {}
    try:
        text = json.dumps({camel(k): dump(v) for k, v in details.items()}, allow_nan=False)
        if len(text) <= MAX_DETAILS:
            plain = json.loads(text)
    except Exception as error:  # whatever is wrong with them, the caller is not to fail
        why = type(error).__name__
    if not plain:
        log.error("session %s: %s is kept without its details: %s", session_id, kind, why)
    return plain


def _done(waiting: set[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


async def _either(*waited: asyncio.Future[None] | None) -> None:
    """Return when one of them is done; cancelling this cancels none."""
    some = {future for future in waited if future is not None}
    await asyncio.wait(some, return_when=asyncio.FIRST_COMPLETED)
