"""What the server asks of the place where sessions are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from attrs import field, frozen

from browsercloud.models import CreateRequest, Session, SessionStatus


@frozen(kw_only=True)
class SessionRow:
    """A session's record with what only the server may know of it."""

    project: str
    session: Session
    request: CreateRequest = field(repr=False)


@frozen(kw_only=True)
class Query:
    """Which sessions to list, newest first."""

    project: str
    status: SessionStatus | None = None
    metadata: Mapping[str, str] = field(factory=dict)
    """Every key must be there with this value."""

    limit: int = 50
    cursor_id: str | None = None
    """Strictly after this session, whether it still lives or has ended."""


class Store(Protocol):
    """Records of sessions. Answers never ask a browser, so they cost the same with any number."""

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

    async def bury(self, project: str, session_id: str) -> None:
        """Leave a tombstone: this id was released before it was created."""

    async def buried(self, project: str, session_id: str) -> bool:
        """Whether this id has a tombstone in the project."""

    async def prune(self, before: datetime) -> int:
        """Forget sessions that ended, and tombstones that were left, before then.

        Returns how many sessions were forgotten; one that has not ended never is.
        """
