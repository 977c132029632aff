"""Every error that browsercloud raises.

    BrowserCloudError
      UsageError            the call cannot be meant: closed client, unknown option, wrong unit
      ServiceError          the server answered: status, code, request_id, retry_after, details
        NotAuthorized       401 not_authorized
        SessionNotFound     404 session_not_found
        InvalidRequest      400 invalid_request
        Conflict            409 conflict
        NoCapacity          429 no_capacity, rate_limited
        LaunchFailed        502 launch_failed
      SessionEnded          410 session_ended: reason, and the session's record as evidence
        SessionTimedOut     timeout, inactivity_timeout, creation_timeout
        BrowserCrashed      browser_crashed, browser_closed, out_of_memory
        LeaseLost           lease_lost
        ReleasedElsewhere   user_requested, shutdown
      ConnectionFailed      the server, or the browser behind it, cannot be reached: endpoint
      BrowserNotFound       no Chromium on this machine: where it looked, how to install one

Both sides use this tree: the server raises an error, `server/middleware.py` writes its status and
code, `client/transport.py` reads them and raises the same class again. Other codes (`too_large`,
`shutting_down`, `internal`, `not_found`) are a plain `ServiceError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from browsercloud.models import Session, SessionFailure


class BrowserCloudError(Exception):
    """The root: catch this one to catch them all."""


class UsageError(BrowserCloudError):
    """The call cannot be meant as written. Nothing was sent."""


class ServiceError(BrowserCloudError):
    """The server answered with an error.

    `retry_after` is in seconds, `None` when the server did not say. `details` is a list of
    `{"path", "reason"}` for a refused body.
    """

    default_status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        details: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.default_status if status is None else status
        self.code = self.default_code if code is None else code
        self.request_id = request_id
        self.retry_after = retry_after
        self.details = list(details)


class NotAuthorized(ServiceError):
    """No key, an unknown one, or a token that does not open this session."""

    default_status = 401
    default_code = "not_authorized"


class SessionNotFound(ServiceError):
    """No such session in the caller's project."""

    default_status = 404
    default_code = "session_not_found"


class InvalidRequest(ServiceError):
    """A field is unknown, has the wrong type, is out of range, or does not go with another."""

    default_status = 400
    default_code = "invalid_request"


class Conflict(ServiceError):
    """The id is in use with other options, or was released before it was created."""

    default_status = 409
    default_code = "conflict"


class NoCapacity(ServiceError):
    """The server has no room now."""

    default_status = 429
    default_code = "no_capacity"


class LaunchFailed(ServiceError):
    """The browser did not start; the message holds what it said last."""

    default_status = 502
    default_code = "launch_failed"


class SessionEnded(BrowserCloudError):
    """The session has ended: `reason` says why, `session` is its last record if it is known."""

    def __init__(
        self, message: str, *, reason: str | None = None, session: Session | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.session = session

    @property
    def evidence(self) -> SessionFailure | None:
        """Why it ended, in the server's words: exit code or signal, last words, open pages, memory.

        `None` when its end was asked for, or its record is not known.
        """
        return self.session.error if self.session is not None else None


class SessionTimedOut(SessionEnded):
    """Its `timeout` or `idle_timeout` was over, or it waited too long for its start."""


class BrowserCrashed(SessionEnded):
    """Its browser is gone: `session.error` holds exit code or signal, and the last words."""


class LeaseLost(SessionEnded):
    """The server lost the connection to this client for longer than `lease_grace`."""


class ReleasedElsewhere(SessionEnded):
    """Somebody else released it, or the server was shut down."""


class ConnectionFailed(BrowserCloudError):
    """The endpoint cannot be reached. `endpoint` never contains a secret.

    `sent` tells whether the request may have arrived all the same.
    """

    def __init__(self, message: str, *, endpoint: str, sent: bool = True) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.sent = sent


class BrowserNotFound(BrowserCloudError):
    """There is no such browser on the machine. `looked` lists the places, in order."""

    def __init__(self, message: str, *, looked: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.looked = list(looked)


SERVICE_ERRORS: dict[str, type[ServiceError]] = {
    "not_authorized": NotAuthorized,
    "session_not_found": SessionNotFound,
    "invalid_request": InvalidRequest,
    "conflict": Conflict,
    "no_capacity": NoCapacity,
    "rate_limited": NoCapacity,
    "launch_failed": LaunchFailed,
}

ENDINGS: dict[str, type[SessionEnded]] = {
    "timeout": SessionTimedOut,
    "inactivity_timeout": SessionTimedOut,
    "creation_timeout": SessionTimedOut,
    "browser_crashed": BrowserCrashed,
    "browser_closed": BrowserCrashed,
    "out_of_memory": BrowserCrashed,
    "lease_lost": LeaseLost,
    "user_requested": ReleasedElsewhere,
    "shutdown": ReleasedElsewhere,
}
