"""What goes through the gateway: how much, and when the driver was last heard."""

from __future__ import annotations

from attrs import define


@define(eq=False)
class Traffic:
    """Counts of one session's driver traffic, or of all sessions' together.

    *in* is from the driver to the browser. *last* is when a driver last sent a command or was
    sent an answer, in the loop's time; events do not count, as a page makes them by itself.
    """

    last: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
