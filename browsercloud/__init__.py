"""Isolated Chromium sessions for agents, asyncio scripts and notebooks.

async with BrowserCloud() as client:
    async with client.session() as session:
        await session.page.goto("https://example.com")
"""

from browsercloud.client.client import BrowserCloud
from browsercloud.client.live import LiveSession
from browsercloud.errors import (
    BrowserCloudError,
    BrowserCrashed,
    BrowserNotFound,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    LaunchFailed,
    LeaseLost,
    NoCapacity,
    NotAuthorized,
    ReleasedElsewhere,
    ServiceError,
    SessionEnded,
    SessionNotFound,
    SessionTimedOut,
    UsageError,
)
from browsercloud.models import (
    Adapter,
    Browser,
    Dimensions,
    LiveDetails,
    LivePage,
    Released,
    ReleaseReason,
    ServerCapacity,
    Session,
    SessionEvent,
    SessionFailure,
    SessionList,
    SessionOptions,
    SessionStatus,
)

__all__ = [
    "Adapter",
    "Browser",
    "BrowserCloud",
    "BrowserCloudError",
    "BrowserCrashed",
    "BrowserNotFound",
    "Conflict",
    "ConnectionFailed",
    "Dimensions",
    "InvalidRequest",
    "LaunchFailed",
    "LeaseLost",
    "LiveDetails",
    "LivePage",
    "LiveSession",
    "NoCapacity",
    "NotAuthorized",
    "ReleaseReason",
    "Released",
    "ReleasedElsewhere",
    "ServerCapacity",
    "ServiceError",
    "Session",
    "SessionEnded",
    "SessionEvent",
    "SessionFailure",
    "SessionList",
    "SessionNotFound",
    "SessionOptions",
    "SessionStatus",
    "SessionTimedOut",
    "UsageError",
]


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for: reading package metadata takes time."""
    if name == "__version__":
        from importlib.metadata import version

        return version("browsercloud")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
