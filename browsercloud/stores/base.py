"""What the server asks of the place where sessions, keys and limits are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from attrs import field, frozen

from browsercloud.models import CreateRequest, Session, SessionEvent, SessionStatus


@frozen(kw_only=True)
class SessionRow:
    """A session's record with what only the server may know of it."""

    project: str
    session: Session
    request: CreateRequest = field(repr=False)
    engine_state: Mapping[str, Any] | None = field(default=None, repr=False)
    """What the engine needs to find the browser again; `None` before it has started."""


Label = tuple[str, str]
"""What sessions are found by: `name`, `build`, or `.KEY` for their metadata, and its value."""


def labels_of(of: Session | Query) -> frozenset[Label]:
    """The labels of a session, or those that a query asks for."""
    named = (("name", of.name), ("build", of.build))
    labels = [(f".{key}", value) for key, value in of.metadata.items()]
    return frozenset([*labels, *((name, value) for name, value in named if value is not None)])


@frozen(kw_only=True)
class Query:
    """Which sessions to list, newest first."""

    project: str
    status: SessionStatus | None = None
    name: str | None = None
    build: str | None = None
    metadata: Mapping[str, str] = field(factory=dict)
    """Every key must be there with this value."""

    limit: int = 50
    cursor_id: str | None = None
    """Strictly after this session, whether it still lives or has ended."""

    @property
    def labels(self) -> frozenset[Label]:
        """All that the sessions have to have."""
        return labels_of(self)


@frozen(kw_only=True)
class KeyRow:
    """What is known of a project's key; never the key itself."""

    id: str
    hash: str = field(repr=False)
    """SHA-256, in hex."""

    prefix: str
    """How the key begins, for people to recognise it; empty when only its hash was known."""

    project: str
    created_at: datetime
    used_at: datetime | None = None
    """The last use, to a minute or so; `None` if there was none."""

    revoked_at: datetime | None = None


@frozen(kw_only=True)
class Limits:
    """What a project may do at most; `None` sets no limit."""

    max_sessions: int | None = None
    """Sessions at the same time."""

    rate: int | None = None
    """New sessions in a minute."""


class Store(Protocol):
    """Records of sessions, and the keys and limits of projects.

    Answers never ask a browser, so they cost the same with any number of them.
    """

    async def open(self) -> None:
        """Make ready for use."""

    async def close(self) -> None:
        """Let go. Safe to call twice."""

    async def put(self, row: SessionRow) -> None:
        """Insert the row, or replace the one with this id."""

    async def get(self, session_id: str) -> SessionRow | None:
        """The row with this id, of whatever project; `None` if there is none."""

    async def list(self, query: Query) -> tuple[Sequence[SessionRow], int]:
        """The rows of one page, and how many match in all.

        Raises `KeyError` when `cursor_id` names no session of the project.
        """

    async def unended(self) -> Sequence[SessionRow]:
        """Every row whose session has not ended, of all projects, oldest first."""

    async def append(self, session_id: str, events: Sequence[SessionEvent]) -> None:
        """Add events to a session's, in the order of their numbers.

        One whose number is not greater than the last one's is there already: the call may be
        repeated. Those of an unknown session are dropped.
        """

    async def events(
        self, session_id: str, *, after: int = 0, limit: int = 100
    ) -> Sequence[SessionEvent]:
        """At most *limit* events whose number is greater than *after*, in their order."""

    async def bury(self, project: str, session_id: str) -> None:
        """Leave a tombstone: this id was released before it was created."""

    async def buried(self, project: str, session_id: str) -> bool:
        """Whether this id has a tombstone in the project."""

    async def prune(self, before: datetime) -> int:
        """Forget sessions that ended, and tombstones that were left, before then.

        Their events go with them. Returns how many sessions were forgotten; one that has not ended
        never is.
        """

    async def add_key(self, row: KeyRow) -> None:
        """Insert the key; one that is there already stays as it is."""

    async def keys(self) -> Sequence[KeyRow]:
        """Every key, revoked ones too, oldest first."""

    async def revoke_key(self, key_id: str, at: datetime) -> KeyRow | None:
        """Revoke the key, for good; the first time counts. `None` if there is none with this id."""

    async def note_use(self, used: Mapping[str, datetime]) -> None:
        """Keep when keys, by id, were used last. That alone leaves `access_version` as it is."""

    async def set_limits(self, project: str, limits: Limits) -> None:
        """Replace the project's limits."""

    async def limits(self) -> Mapping[str, Limits]:
        """The limits of every project that was ever given any."""

    async def access_version(self) -> int:
        """A number that is another one after every change of keys and limits, whoever made it.

        Cheap: a server asks all the time.
        """
