"""`client.sessions`: make, find, extend and release sessions by id."""

from __future__ import annotations

import difflib
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, Unpack

import attrs

from browsercloud import wire
from browsercloud._aio import settle
from browsercloud.client.config import ClientConfig
from browsercloud.client.retries import AGAIN_IS_FINE, CHANGES_NOTHING, SAME_ID, Policy, repeat
from browsercloud.client.transport import Transport, read
from browsercloud.errors import (
    BrowserCloudError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    ServiceError,
    SessionNotFound,
    UsageError,
)
from browsercloud.models import (
    LATER_OPTIONS,
    MAX_TIMEOUT,
    Adapter,
    Browser,
    Dimensions,
    LiveDetails,
    Released,
    ReleaseReason,
    Session,
    SessionList,
    SessionOptions,
    SessionStatus,
)

KNOWN_OUTCOMES = (
    "invalid_request",
    "not_authorized",
    "forbidden",
    "conflict",
    "launch_failed",
    "rate_limited",
    "too_large",
)
"""Codes of a create that made nothing."""

CREATE_REQUEST_TIMEOUT = 60.0
"""One create call, in seconds: the server answers within 50."""


class SessionArgs(TypedDict, total=False):
    """The options of a session as keywords; `SessionOptions` says what each means."""

    timeout: float
    idle_timeout: float | None
    adapter: Adapter | Literal["playwright", "puppeteer", "selenium"]
    browser: Browser | Literal["chromium", "headless-shell"]
    dimensions: Dimensions | tuple[int, int]
    headless: bool
    user_agent: str | None
    name: str | None
    build: str | None
    metadata: Mapping[str, str]


class Sessions:
    """The sessions of the caller's project. An attribute of `BrowserCloud`."""

    def __init__(self, transport: Transport, config: ClientConfig) -> None:
        self._transport = transport
        self._config = config

    async def create(
        self,
        options: SessionOptions | None = None,
        /,
        *,
        session_id: str | None = None,
        **changes: Unpack[SessionArgs],
    ) -> Session:
        """Start a session that lives until it is released or its `timeout` is over.

        *changes* override single *options*. *session_id* is a UUID of the caller's choice, for
        creating again what may have been created before: the same id with the same options is the
        same session. The call is repeated when that helps, for `create_timeout` seconds in all.

        Raises `UsageError` (nothing was sent), `InvalidRequest`, `Conflict`, `NoCapacity`,
        `LaunchFailed`, `BrowserNotFound`, `NotAuthorized`, `ConnectionFailed`. When it is
        cancelled, or the outcome is not known, the session is released by its id before the error
        is raised.
        """
        return await self.start(build_options(options, changes), session_id=session_id)

    async def start(
        self, options: SessionOptions, *, session_id: str | None = None, lease_id: str | None = None
    ) -> Session:
        """Create from finished options, tied to a lease if one is given."""
        chosen = check_session_id(session_id) if session_id is not None else str(uuid.uuid4())
        body: dict[str, Any] = {"sessionId": chosen, **_changed(options)}
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
                maybe_made = maybe_made or _outcome_unknown(error)
                raise
            maybe_made = True
            return read(answer, Session)

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
            # After `Conflict` the id belongs to a session that this call did not make: hands off.
            if maybe_made and not isinstance(error, Conflict):
                await self._undo(chosen, error)
            raise

    async def retrieve(self, session_id: str) -> Session:
        """The session's record, also after its end. Raises `SessionNotFound`."""
        path = f"/v1/sessions/{check_session_id(session_id)}"
        return read(await self._call(CHANGES_NOTHING, "GET", path), Session)

    async def list(
        self,
        *,
        status: SessionStatus | str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        cursor_id: str | None = None,
    ) -> SessionList:
        """One page of sessions, newest first, at most *limit* (1 to 100).

        *metadata* keeps the sessions that have all these labels; *cursor_id* continues after that
        session: pass the page's `next_cursor` until it is `None`.
        """
        query = {"limit": str(limit)}
        if status is not None:
            query["status"] = str(status)
        if cursor_id is not None:
            query["cursorId"] = cursor_id
        for key, value in (metadata or {}).items():
            query[f"metadata.{key}"] = value
        return read(
            await self._call(CHANGES_NOTHING, "GET", "/v1/sessions", query=query), SessionList
        )

    async def live(self, session_id: str) -> LiveDetails:
        """What is open in the session now. Raises `SessionNotFound`, `SessionEnded`."""
        path = f"/v1/sessions/{check_session_id(session_id)}/live"
        return read(await self._call(CHANGES_NOTHING, "GET", path), LiveDetails)

    async def extend(self, session_id: str, timeout: float) -> Session:
        """Let the session live *timeout* seconds from now. Raises `SessionEnded` if it is over."""
        path = f"/v1/sessions/{check_session_id(session_id)}/extend"
        body = {"timeout": _milliseconds(timeout)}
        return read(await self._call(AGAIN_IS_FINE, "POST", path, body=body), Session)

    async def release(self, session_id: str) -> Released:
        """End the session; releasing it again is fine. Raises `SessionNotFound`.

        Runs to its end even when the caller is cancelled meanwhile.
        """
        chosen = check_session_id(session_id)
        return await settle(
            lambda: self._release(chosen),
            patience=self._config.release_timeout + 1,
            what=f"releasing session {chosen}",
        )

    async def release_all(self) -> int:
        """End every session of the caller's project; return how many there were."""
        answer = await settle(
            lambda: self._call(
                AGAIN_IS_FINE,
                "DELETE",
                "/v1/sessions",
                timeout=self._config.release_timeout,
                deadline=self._config.release_timeout,
            ),
            patience=self._config.release_timeout + 1,
            what="releasing all sessions",
        )
        return int(answer.get("released", 0))

    async def _release(self, session_id: str) -> Released:
        tries = 0

        async def send() -> Released:
            nonlocal tries
            tries += 1
            answer = await self._transport.request(
                "DELETE", f"/v1/sessions/{session_id}", timeout=self._config.release_timeout
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


def build_options(options: SessionOptions | None, changes: Mapping[str, Any]) -> SessionOptions:
    """*options* with *changes*, checked as the server checks them.

    Raises `UsageError` for a name that is no option or a time in the wrong unit, `InvalidRequest`
    for a value that the server would refuse.
    """
    if options is not None and not isinstance(options, SessionOptions):
        raise UsageError(
            f"options must be SessionOptions, not {options!r}; single options are keywords, "
            "such as browser='chromium'"
        )
    body = {} if options is None else _changed(options)
    for name, value in changes.items():
        body[_wire_name(name)] = _wire_value(name, value)
    body = {name: value for name, value in body.items() if value is not None}
    try:
        return wire.read(body, SessionOptions)
    except InvalidRequest as error:
        raise wire.invalid([_in_python(problem) for problem in error.details]) from None


def _in_python(problem: Mapping[str, str]) -> tuple[str, str]:
    """A path and its reason, with the option called as the caller calls it."""
    path = problem["path"]
    for attribute in attrs.fields(SessionOptions):
        path = re.sub(rf"^{wire.camel(attribute.name)}\b", attribute.name, path)
    return path, problem["reason"]


def check_session_id(value: str) -> str:
    """A UUID in canonical form; anything else is `UsageError`."""
    try:
        return wire.read_session_id(value)
    except ValueError as error:
        raise UsageError(f"session_id: {error}") from None


def _wire_name(name: str) -> str:
    known = [attribute.name for attribute in attrs.fields(SessionOptions)]
    if name in known:
        return wire.camel(name)
    for later, python in LATER_OPTIONS.items():
        if name == python:
            raise wire.invalid([(name, f"this version does not offer it ({later} on the wire)")])
    close = difflib.get_close_matches(name, [*known, "session_id"], n=1)
    known.append("session_id")
    hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
    raise UsageError(f"{name}: there is no such option{hint}")


def _wire_value(name: str, value: Any) -> Any:
    match value:
        case Dimensions():
            return wire.dump(value)
        case (width, height) if name == "dimensions":
            return {"width": width, "height": height}
        case _ if name == "dimensions":
            raise wire.invalid([(name, f"must be (width, height) in pixels, not {value!r}")])
        case float() | int() | bool() if name in ("timeout", "idle_timeout"):
            return _milliseconds(value, name)
        case _:
            return value


def _milliseconds(seconds: Any, name: str = "timeout") -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        raise wire.invalid([(name, f"must be a number of seconds, not {seconds!r}")])
    if seconds > MAX_TIMEOUT:
        raise UsageError(
            f"{name}: {seconds:g} seconds is more than 24 hours; timeouts are in seconds here: "
            f"did you mean {seconds / 1000:g}?"
        )
    return math.ceil(max(seconds, -1) * 1000)


def _changed(options: SessionOptions) -> dict[str, Any]:
    """The options that are not the default, in wire form."""
    plain = wire.dump(SessionOptions())
    return {name: value for name, value in wire.dump(options).items() if value != plain[name]}


def _outcome_unknown(error: BaseException) -> bool:
    """Whether a session may exist although this try of create failed."""
    match error:
        case ConnectionFailed():
            return error.sent
        case ServiceError():
            # Only our server's own words are known; whatever a proxy on the way says is not.
            return error.code not in KNOWN_OUTCOMES
        case _:
            return not isinstance(error, BrowserCloudError)
