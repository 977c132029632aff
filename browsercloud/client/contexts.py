"""`client.contexts`: cookies and storage of sessions, by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from browsercloud._later import later
from browsercloud.client.config import ClientConfig
from browsercloud.client.options import check_session_id
from browsercloud.client.retries import AGAIN_IS_FINE, CHANGES_NOTHING, Policy, repeat
from browsercloud.client.transport import Transport, read
from browsercloud.context import Cookie, SessionContext

if TYPE_CHECKING:
    from browsercloud import wire
else:
    wire = later("browsercloud.wire")

AT_LEAST = 70.0
"""Seconds for one call, however short others may take: a context may be large."""


class Contexts:
    """Takes cookies and storage out of sessions, and puts them into others.

    What origins have stored is found where the session's pages have been, and where a context that
    it was given has something.
    """

    def __init__(self, transport: Transport, config: ClientConfig) -> None:
        self._transport = transport
        self._config = config

    async def get(self, session_id: str) -> SessionContext:
        """All cookies, and the storage of every origin that the session has shown.

        Good as `session_context` of another session. Raises `SessionNotFound`, `SessionEnded`, and
        `Conflict` naming what cannot leave a browser, such as a `CryptoKey` in IndexedDB.
        """
        answer = await self._call(CHANGES_NOTHING, "GET", session_id, "")
        return read(answer, SessionContext)

    async def set(self, session_id: str, context: SessionContext | Mapping[str, Any]) -> None:
        """Replace cookies and storage by *context*; Playwright's `storage_state` is good too.

        Open pages see it at once, and keep what they hold in memory: reload them. Raises
        `InvalidRequest` with the path of what is wrong or what the browser refuses.
        """
        body = wire.dump(wire.read(_plain(context), SessionContext))
        await self._call(AGAIN_IS_FINE, "PUT", session_id, "", body)

    async def clear(self, session_id: str) -> None:
        """Remove all cookies, and everything that any origin has stored."""
        await self._call(AGAIN_IS_FINE, "DELETE", session_id, "")

    async def cookies(self, session_id: str) -> tuple[Cookie, ...]:
        """All cookies, `HttpOnly` and partitioned ones included."""
        answer = await self._call(CHANGES_NOTHING, "GET", session_id, "/cookies")
        return read(answer, SessionContext).cookies

    async def set_cookies(
        self, session_id: str, cookies: Sequence[Cookie | Mapping[str, Any]]
    ) -> None:
        """Replace all cookies by these, and leave storage as it is."""
        given = {"cookies": [_plain(each) for each in cookies]}
        body = {"cookies": wire.dump(wire.read(given, SessionContext).cookies)}
        await self._call(AGAIN_IS_FINE, "PUT", session_id, "/cookies", body)

    async def _call(
        self,
        repeats: Policy,
        method: str,
        session_id: str,
        part: str,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        path = f"/v1/sessions/{check_session_id(session_id)}/context{part}"
        timeout = max(AT_LEAST, self._config.request_timeout)
        return await repeat(
            repeats,
            lambda: self._transport.request(method, path, body=body, timeout=timeout),
            deadline=timeout * 2,
            what=f"{method} {path}",
            endpoint=self._transport.url,
        )


def _plain(value: Any) -> Any:
    return wire.dump(value) if isinstance(value, SessionContext | Cookie) else value
