"""Any sequence of create, extend, release, crash and restart, against a model of what must be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from browsercloud.errors import Conflict, NoCapacity, SessionEnded, SessionNotFound
from browsercloud.models import CreateRequest
from browsercloud.options import Seconds, SessionOptions
from browsercloud.server.journal import Journal
from browsercloud.server.sessions import Sessions
from browsercloud.stores.base import Query
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import DyingEngine
from tests.server.conftest import sessions_on

T = TypeVar("T")
PROJECTS = ("a", "b")
ROOM = 3
NAMES = st.sampled_from((None, "x"))


class Life(RuleBasedStateMachine):
    """The server's sessions beside a dictionary that says what each of them must be."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.ids = itertools.count(1)
        self.loop = asyncio.new_event_loop()
        self.store = MemoryStore()
        self.journal = Journal(self.store)
        self.engine = DyingEngine()
        self.sessions: Sessions = None  # type: ignore[assignment]  # made by `begin`
        self.requests: dict[str, CreateRequest] = {}
        self.owners: dict[str, str] = {}
        self.live: set[str] = set()
        self.line: list[str] = []
        self.ended: dict[str, str] = {}
        self.buried: set[tuple[str, str]] = set()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it, and whatever follows from it at once."""

        async def whole() -> T:
            try:
                return await work
            finally:
                await self.settle()

        return self.loop.run_until_complete(whole())

    async def settle(self) -> None:
        """Let everything happen that waits for nothing but its turn."""
        for _ in range(30):
            await asyncio.sleep(0)

    @initialize()
    def begin(self) -> None:
        """A server with nothing in it."""
        self.sessions = self.server()
        self.run(self.journal.open())
        self.run(self.sessions.open())

    def server(self) -> Sessions:
        """Another `Sessions` on the same store."""
        return sessions_on(
            self.engine,
            self.store,
            journal=self.journal,
            max_sessions=ROOM,
            create_wait=0.0,
            attendance=1000.0,
            regularly=1000.0,
        )

    # ------------------------------------------------------------------ what may happen

    @rule(target=known, project=st.sampled_from(PROJECTS), name=NAMES)
    def create(self, project: str, name: str | None) -> Any:
        """A new session."""
        chosen = SessionOptions(name=name, timeout=Seconds(1000))
        wanted = CreateRequest(session_id=self.new_id(), options=chosen)
        self.requests[wanted.session_id], self.owners[wanted.session_id] = wanted, project
        self.ask(project, wanted)
        (self.live.add if self.has_room() else self.line.append)(wanted.session_id)
        return wanted.session_id

    @rule(session_id=known)
    def create_again(self, session_id: str) -> None:
        """The same once more: it is the same session, or has ended."""
        project, wanted = self.owners[session_id], self.requests[session_id]
        if session_id in self.ended:
            self.refused(project, wanted)
        else:
            self.ask(project, wanted)

    @rule(session_id=known, project=st.sampled_from(PROJECTS), name=st.sampled_from(("y", "z")))
    def create_otherwise(self, session_id: str, project: str, name: str) -> None:
        """The same id with other options, or by another project: never."""
        chosen = SessionOptions(name=name, timeout=Seconds(1000))
        self.refused(project, CreateRequest(session_id=session_id, options=chosen))

    @rule(session_id=known, timeout=st.floats(1.0, 1000.0))
    def extend(self, session_id: str, timeout: float) -> None:
        """Only what is live can be extended."""
        call = self.sessions.extend(self.owners[session_id], session_id, timeout)
        try:
            record = self.run(call)
        except SessionEnded:
            assert session_id in self.ended
        except Conflict:
            assert session_id in self.line
        else:
            assert session_id in self.live
            assert record.timeout == timeout

    @rule(session_id=known)
    def release(self, session_id: str) -> None:
        """It ends, whatever it was; a second time says so."""
        released = self.run(self.sessions.release(self.owners[session_id], session_id))
        assert released.success
        assert released.already_ended == (session_id in self.ended)
        self.over(session_id, "user_requested")
        assert released.release_reason == self.ended[session_id]

    @rule(session_id=known)
    def release_of_another_project(self, session_id: str) -> None:
        """Is not found, and does nothing."""
        other = next(project for project in PROJECTS if project != self.owners[session_id])
        try:
            self.run(self.sessions.release(other, session_id))
        except SessionNotFound:
            return
        raise AssertionError("it was found")

    @rule(project=st.sampled_from(PROJECTS))
    def release_before_create(self, project: str) -> None:
        """A release that comes first keeps the create out."""
        wanted = CreateRequest(session_id=self.new_id())
        try:
            self.run(self.sessions.release(project, wanted.session_id))
        except SessionNotFound:
            self.refused(project, wanted)
            return
        raise AssertionError("it was found")

    @rule(project=st.sampled_from(PROJECTS))
    def release_all(self, project: str) -> None:
        """All of the project's, and nobody else's."""
        mine = [one for one in (*self.live, *self.line) if self.owners[one] == project]
        assert self.run(self.sessions.release_all(project)) == len(mine)
        # Together: a slot that one gives back lets none of the others in.
        for session_id in mine:
            self.live.discard(session_id)
            if session_id in self.line:
                self.line.remove(session_id)
            self.ended[session_id] = "user_requested"
        self.let_in()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A browser dies."""
        session_id = data.draw(st.sampled_from(sorted(self.live)))
        self.engine.die(session_id)
        self.run(self.settle())
        self.over(session_id, "browser_crashed")

    @rule(data=st.data())
    def killed_and_restarted(self, data: st.DataObject) -> None:
        """The server is killed and comes again; some of the browsers have survived it."""
        survivors = data.draw(st.sets(st.sampled_from(sorted(self.live)))) if self.live else set()
        self.run(self.stop_without_a_word())
        self.engine = DyingEngine(survivors=survivors)
        self.journal = Journal(self.store)
        self.sessions = self.server()
        self.run(self.journal.open())
        self.run(self.sessions.open())
        for session_id in self.live - survivors:
            self.ended[session_id] = "shutdown"
        self.live = set(survivors)
        self.let_in()

    # ------------------------------------------------------------------ what must be so

    @invariant()
    def each_is_what_it_must_be(self) -> None:
        """By its record, one after the other, and by the list."""
        if self.sessions is None:
            return
        for session_id, owner in self.owners.items():
            record = self.run(self.sessions.get(owner, session_id))
            if session_id in self.ended:
                assert record.status.ended
                assert record.release_reason == self.ended[session_id]
            else:
                assert record.status == ("live" if session_id in self.live else "queued")
        for project in PROJECTS:
            rows, total = self.run(self.sessions.list(Query(project=project, limit=100)))
            mine = [one for one, owner in self.owners.items() if owner == project]
            assert total == len(mine)
            assert [row.id for row in rows] == mine[::-1][:100]

    @invariant()
    def what_runs_is_what_lives(self) -> None:
        """No browser without a session, no session without a browser, no slot without either."""
        if self.sessions is None:
            return
        assert set(self.engine.running()) == self.live
        assert self.sessions.admission.in_use == len(self.live)
        assert self.sessions.admission.length == len(self.line)
        unended = {row.session.id for row in self.run(self.store.unended())}
        assert unended == self.live | set(self.line)

    @invariant()
    def slots_are_used(self) -> None:
        """Nobody waits while there is room."""
        assert not self.line or len(self.live) >= ROOM

    def teardown(self) -> None:
        """Nothing is left when the server has been stopped."""
        if self.sessions is not None:
            self.run(self.sessions.close_down())
            assert not self.engine.running()
            assert not self.run(self.store.unended())
            self.run(self.journal.close())
        self.loop.close()

    # ------------------------------------------------------------------ helpers

    def ask(self, project: str, wanted: CreateRequest) -> None:
        """Create; without room it waits."""
        with contextlib.suppress(NoCapacity):  # the invariants look whether that was right
            self.run(self.sessions.create(project, wanted))

    def refused(self, project: str, wanted: CreateRequest) -> None:
        """Create; it must conflict."""
        try:
            self.run(self.sessions.create(project, wanted, wait=False))
        except Conflict:
            return
        raise AssertionError("it was created")

    def new_id(self) -> str:
        """The same in every run: chance here would hide from Hypothesis what it has chosen."""
        return str(uuid.UUID(int=next(self.ids)))

    def has_room(self) -> bool:
        """Whether one more may live."""
        return len(self.live) < ROOM

    def over(self, session_id: str, reason: str) -> None:
        """It has ended, if it had not."""
        if session_id in self.ended:
            return
        self.live.discard(session_id)
        if session_id in self.line:
            self.line.remove(session_id)
        self.ended[session_id] = reason
        self.let_in()

    def let_in(self) -> None:
        """The model does not say whose turn it is, only that somebody's is; `Admission` does."""
        moved = [one for one in self.line if one in self.engine.running()]
        for session_id in moved:
            self.line.remove(session_id)
            self.live.add(session_id)

    async def stop_without_a_word(self) -> None:
        """Take the killed server's tasks away, and leave the store as it is."""
        old = self.sessions
        old._store = old.life._store = MemoryStore()
        self.journal._store = MemoryStore()
        await old.close_down()
        await self.journal.close()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
