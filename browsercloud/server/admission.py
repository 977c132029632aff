"""Who may start, and when: the server's slots, the line before them, and refusals.

A session takes a slot when its turn comes and gives it back when all of it is gone. The line is
first come, first served within a project, and goes round the projects: whoever asks for a hundred
sessions at once keeps nobody waiting who asks for one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from attrs import define, field

from browsercloud.errors import NoCapacity
from browsercloud.models import Capacity, ServerCapacity
from browsercloud.server.limits import Rates, refused
from browsercloud.stores.base import Limits

MAX_LINE = 100
"""How many sessions of one project may wait."""

FULL_RETRY = 5.0
"""Seconds after which to ask again when not even the line has room."""

PLACE_RETRY = 1.0
"""Seconds after which a session in the line may ask again; its place is kept meanwhile."""


@define(eq=False)
class Ticket:
    """A session's claim: it waits in the line until `granted`, and has a slot from then on."""

    project: str
    session_id: str
    since: float
    granted: asyncio.Future[None] = field(repr=False)
    """Done when its turn has come. Never cancelled, never an error."""

    returned: bool = False


class Admission:
    """Hands out slots. Lives on one event loop; every decision is made without an await."""

    def __init__(self, limits_of: Callable[[str], Limits], *, max_line: int = MAX_LINE) -> None:
        self.capacity = Capacity(sessions=0, reason="the server is starting")
        self._limits_of = limits_of
        self._rates = Rates(limits_of)
        self._max_line = max_line
        self._in_use: Counter[str] = Counter()
        self._total = 0
        self._lines: dict[str, deque[Ticket]] = {}
        self._rotation: deque[str] = deque()  # the projects that have a line; the next one first

    @property
    def room(self) -> int:
        """Slots in all; none before the server knows what its engine can carry."""
        return self.capacity.sessions

    @property
    def in_use(self) -> int:
        """Slots that are taken."""
        return self._total

    @property
    def length(self) -> int:
        """Sessions in the line, of all projects."""
        return sum(len(line) for line in self._lines.values())

    def seen_by(self, project: str) -> ServerCapacity:
        """What the project may know: all slots, and of those in use only its own."""
        own = self._limits_of(project).max_sessions
        in_use = self._in_use[project]
        free = max(0, self.room - self._total - self.length)
        return ServerCapacity(
            sessions=self.room,
            reason=self.capacity.reason,
            available=free if own is None else max(0, min(free, own - in_use)),
            in_use=in_use,
            queued=self._waiting_of(project),
            limit=own,
        )

    def _waiting_of(self, project: str) -> int:
        return len(self._lines.get(project, ()))

    def enter(self, project: str, session_id: str) -> Ticket:
        """Claim a slot; the ticket is granted at once when one is free and nobody is before it.

        Raises `NoCapacity` when the project's line is full, or it begins too many in a minute.
        """
        if self._waiting_of(project) >= self._max_line:
            raise self._full(project)
        self._rates.count(project)
        return self.rejoin(project, session_id)

    def rejoin(self, project: str, session_id: str) -> Ticket:
        """Claim a slot for a session that had entered before a restart."""
        ticket = _ticket(project, session_id)
        line = self._lines.get(project)
        if line is None:
            line = self._lines[project] = deque()
            self._rotation.append(project)
        line.append(ticket)
        self._serve()
        return ticket

    def occupy(self, project: str, session_id: str) -> Ticket:
        """A slot for a session that runs already, whether there is room for it or not."""
        ticket = _ticket(project, session_id)
        self._grant(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Leave the line, or give the slot back, and let the next one in. Safe to call twice."""
        if ticket.returned:
            return
        ticket.returned = True
        if ticket.granted.done():
            self._total -= 1
            self._in_use[ticket.project] -= 1
            if not self._in_use[ticket.project]:
                del self._in_use[ticket.project]
        else:
            self._lines[ticket.project].remove(ticket)
            self._tidy(ticket.project)
        self._serve()

    def place(self, ticket: Ticket) -> int | None:
        """How many turns until this one's, from 1; `None` when it does not wait."""
        if ticket.granted.done() or ticket.returned:
            return None
        ahead = self._lines[ticket.project].index(ticket)
        earlier = True
        place = ahead + 1
        for project in self._rotation:
            if project == ticket.project:
                earlier = False
            else:
                place += min(len(self._lines[project]), ahead + earlier)
        return place

    def wait_longer(self, ticket: Ticket) -> NoCapacity:
        """The answer to a create that is still in the line: it keeps its place."""
        limit, in_use, whose = self._bound(ticket.project)
        place = self.place(ticket)
        return refused(
            f"{in_use} of {limit} sessions {whose} are in use; this one has place {place} in the "
            "line and keeps it: ask again with the same sessionId",
            code="no_capacity",
            limit=limit,
            in_use=in_use,
            retry_after=PLACE_RETRY,
            place=place,
        )

    def waited_too_long(self, ticket: Ticket, patience: float) -> NoCapacity:
        """The answer to a create whose session has waited so many seconds and waits no more."""
        limit, in_use, whose = self._bound(ticket.project)
        return refused(
            f"no turn came within {patience:g} s: {in_use} of {limit} sessions {whose} are in use",
            code="no_capacity",
            limit=limit,
            in_use=in_use,
            retry_after=FULL_RETRY,
            retryable=False,
        )

    def _full(self, project: str) -> NoCapacity:
        limit, in_use, whose = self._bound(project)
        return refused(
            f"{in_use} of {limit} sessions {whose} are in use, and {self._max_line} of this "
            "project wait already; release some, or ask again later",
            code="no_capacity",
            limit=limit,
            in_use=in_use,
            retry_after=FULL_RETRY,
        )

    def _bound(self, project: str) -> tuple[int, int, str]:
        """What keeps the project's next session waiting: the limit, how much is in use, whose."""
        own = self._limits_of(project).max_sessions
        if own is not None and self._in_use[project] >= own:
            return own, self._in_use[project], "that this project may have"
        return self.room, self._total, "of this server"

    def open(self, capacity: Capacity) -> None:
        """Hand out so many slots."""
        self.capacity = capacity
        self.look_again()

    def look_again(self) -> None:
        """Let in whoever may start now: a limit may have been raised."""
        self._serve()

    def _serve(self) -> None:
        while self._total < self.room and (project := self._next()) is not None:
            self._rotation.remove(project)
            self._rotation.append(project)
            ticket = self._lines[project].popleft()
            self._tidy(project)
            self._grant(ticket)

    def _next(self) -> str | None:
        """The next project in the round that may have one more."""
        for project in self._rotation:
            own = self._limits_of(project).max_sessions
            if own is None or self._in_use[project] < own:
                return project
        return None

    def _tidy(self, project: str) -> None:
        if not self._lines[project]:
            del self._lines[project]
            self._rotation.remove(project)

    def _grant(self, ticket: Ticket) -> None:
        self._total += 1
        self._in_use[ticket.project] += 1
        ticket.granted.set_result(None)


def _ticket(project: str, session_id: str) -> Ticket:
    loop = asyncio.get_running_loop()
    return Ticket(project, session_id, loop.time(), loop.create_future())
