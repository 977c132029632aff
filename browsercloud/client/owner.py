"""`Owner`: what a live session needs of its client."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from browsercloud.client.adapters.base import Adapter
from browsercloud.client.config import ClientConfig
from browsercloud.client.contexts import Contexts
from browsercloud.client.lease import Lease
from browsercloud.client.sessions import Sessions
from browsercloud.options import SessionOptions

if TYPE_CHECKING:
    from browsercloud.client.live import LiveSession


class Owner(Protocol):
    """What a live session needs of its client."""

    config: ClientConfig
    sessions: Sessions
    contexts: Contexts
    lease: Lease

    def adapter(self, options: SessionOptions) -> Adapter:
        """What a session with these options is driven with."""

    def apart(self) -> AbstractAsyncContextManager[Sessions]:
        """`sessions` for a loop that is not the client's, while in the block."""

    def adopt(self, live: LiveSession) -> None:
        """Release *live* when the client is closed; `UsageError` if it is not open."""

    def disown(self, live: LiveSession) -> None:
        """It has been released."""
