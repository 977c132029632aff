"""The URLs that the server hands out, built from the address that the caller used."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlencode

import attrs
from aiohttp import web

from browsercloud.models import Session, SessionProtocol
from browsercloud.server.parts import CALLER, parts


class Urls:
    """The URLs of one session, as its caller can reach them. Each carries the session's token."""

    def __init__(self, request: web.Request, session_id: str, *, token: bool = True) -> None:
        self._id = session_id
        trust, key_id = parts(request).trust, request[CALLER].key_id
        self._token = {"token": trust.token(session_id, key_id)} if token else {}
        self._viewer = partial(trust.viewer_token, session_id, key_id) if token else None
        self._http = f"{request.scheme}://{request.host}"
        self._ws = f"ws{self._http.removeprefix('http')}"

    def cdp(self) -> str:
        """CDP, browser level."""
        return f"{self._ws}/v1/sessions/{self._id}/cdp?{self._query()}"

    def socket(self, protocol: SessionProtocol) -> str:
        """The session's socket, by what it speaks."""
        if protocol is SessionProtocol.PLAYWRIGHT:
            return f"{self._ws}/v1/sessions/{self._id}/playwright?{self._query()}"
        return self.cdp()

    def webdriver(self) -> str:
        """W3C WebDriver. Clients append to it, so the token is in the path and not in a query."""
        base = f"{self._http}/v1/sessions/{self._id}/webdriver"
        return "/".join((base, *self._token.values()))

    def debug(self) -> str:
        """The session's page."""
        return f"{self._http}/sessions/{self._id}?{self._query()}"

    def viewer(
        self,
        page_id: str | None = None,
        *,
        fullscreen: bool = False,
        touches: bool = True,
        expires: int = 0,
    ) -> str:
        """The live picture of the session, or of one of its pages.

        Its token opens nothing else; see `Trust.viewer_token`.
        """
        more = {"pageId": page_id} if page_id is not None else {}
        if fullscreen:
            more["showControls"] = "false"
        if self._viewer is not None:
            more["token"] = self._viewer(touches=touches, expires=expires)
        return f"{self._http}/sessions/{self._id}/viewer?{urlencode(more)}"

    def _query(self, **more: str) -> str:
        return urlencode({**self._token, **more})


def with_urls(request: web.Request, session: Session, *, token: bool = True) -> Session:
    """The record with its URLs. Without *token* they open nothing by themselves."""
    urls = Urls(request, session.id, token=token)
    return attrs.evolve(
        session,
        websocket_url=urls.socket(session.protocol),
        webdriver_url=urls.webdriver(),
        debug_url=urls.debug(),
        session_viewer_url=urls.viewer(),
    )
