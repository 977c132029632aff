"""One page of a session's events, as the server tells them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from typing import Any

from attrs import frozen

from browsercloud.client.config import ClientConfig
from browsercloud.client.retries import CHANGES_NOTHING, repeat
from browsercloud.client.transport import Transport, read
from browsercloud.models import SessionEvent

HELD = 25.0
"""For how long the server may hold back its answer when there is nothing to tell, in seconds."""


@frozen(kw_only=True)
class Events:
    """Events of a session: awaited, one page of them; with `async for`, each as it comes."""

    page: Callable[[], Coroutine[Any, Any, tuple[SessionEvent, ...]]]
    live: Callable[[], AsyncIterator[SessionEvent]]

    def __await__(self) -> Generator[Any, None, tuple[SessionEvent, ...]]:
        return self.page().__await__()

    def __aiter__(self) -> AsyncIterator[SessionEvent]:
        return self.live()


async def events_page(
    transport: Transport,
    config: ClientConfig,
    session_id: str,
    query: Mapping[str, str],
    *,
    held: float = 0.0,
) -> tuple[tuple[SessionEvent, ...], str | None]:
    """The events, and the pointer for what follows them; `None` when nothing ever will.

    *held* is for how many seconds more than usual the server may take.
    """
    path = f"/v1/sessions/{session_id}/events"
    timeout = config.request_timeout
    answer, headers = await repeat(
        CHANGES_NOTHING,
        lambda: transport.exchange("GET", path, query=query, timeout=held + timeout),
        deadline=held + timeout * 2,
        what=f"GET {path}",
        endpoint=transport.url,
    )
    return tuple(read(event, SessionEvent) for event in answer), headers.get("Next-Cursor")
