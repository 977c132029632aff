"""Isolated Chromium sessions for agents, asyncio scripts and notebooks.

async with BrowserCloud() as client:
    async with client.session() as session:
        await session.page.goto("https://example.com")
"""

from typing import TYPE_CHECKING, Any

from browsercloud._later import load

if TYPE_CHECKING:
    from browsercloud.client.client import BrowserCloud
    from browsercloud.client.live import LiveSession
    from browsercloud.client.watching import Frame
    from browsercloud.context import Cookie, SessionContext
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
        LiveDetails,
        LivePage,
        Released,
        ReleaseReason,
        ServerCapacity,
        Session,
        SessionEvent,
        SessionFailure,
        SessionList,
        SessionStatus,
    )
    from browsercloud.options import Adapter, Browser, Dimensions, Record, SessionOptions
    from browsercloud.stealth import Stealth
    from browsercloud.wanted import Coordinates, Device, Permission

__all__ = [
    "Adapter",
    "Browser",
    "BrowserCloud",
    "BrowserCloudError",
    "BrowserCrashed",
    "BrowserNotFound",
    "Conflict",
    "ConnectionFailed",
    "Cookie",
    "Coordinates",
    "Device",
    "Dimensions",
    "Frame",
    "InvalidRequest",
    "LaunchFailed",
    "LeaseLost",
    "LiveDetails",
    "LivePage",
    "LiveSession",
    "NoCapacity",
    "NotAuthorized",
    "Permission",
    "Record",
    "ReleaseReason",
    "Released",
    "ReleasedElsewhere",
    "ServerCapacity",
    "ServiceError",
    "Session",
    "SessionContext",
    "SessionEnded",
    "SessionEvent",
    "SessionFailure",
    "SessionList",
    "SessionNotFound",
    "SessionOptions",
    "SessionStatus",
    "SessionTimedOut",
    "Stealth",
    "UsageError",
]

_HOMES = {
    "browsercloud.client.client": ("BrowserCloud",),
    "browsercloud.client.live": ("LiveSession",),
    "browsercloud.client.watching": ("Frame",),
    "browsercloud.context": (
        "Cookie",
        "SessionContext",
    ),
    "browsercloud.errors": (
        "BrowserCloudError",
        "BrowserCrashed",
        "BrowserNotFound",
        "Conflict",
        "ConnectionFailed",
        "InvalidRequest",
        "LaunchFailed",
        "LeaseLost",
        "NoCapacity",
        "NotAuthorized",
        "ReleasedElsewhere",
        "ServiceError",
        "SessionEnded",
        "SessionNotFound",
        "SessionTimedOut",
        "UsageError",
    ),
    "browsercloud.models": (
        "LiveDetails",
        "LivePage",
        "Released",
        "ReleaseReason",
        "ServerCapacity",
        "Session",
        "SessionEvent",
        "SessionFailure",
        "SessionList",
        "SessionStatus",
    ),
    "browsercloud.options": (
        "Adapter",
        "Browser",
        "Dimensions",
        "Record",
        "SessionOptions",
    ),
    "browsercloud.stealth": ("Stealth",),
    "browsercloud.wanted": (
        "Coordinates",
        "Device",
        "Permission",
    ),
}
"""Where each name is defined: that module is loaded when one of its names is asked for."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    __version__: str
else:  # hidden from type checkers, for which any name would be there otherwise

    def __getattr__(name: str) -> Any:
        if name in _HOME_OF:
            value = globals()[name] = getattr(load(_HOME_OF[name]), name)
            return value
        if name == "__version__":
            # Looked up when it is asked for: reading package metadata takes time.
            from importlib.metadata import version

            return version("browsercloud")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
