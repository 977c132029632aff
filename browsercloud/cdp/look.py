"""What the pages of a session are told about the browser that they are in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from browsercloud.cdp.agent import override
from browsercloud.options import Dimensions

Call = tuple[str, Mapping[str, Any]]
"""A CDP command and its parameters."""


@frozen(kw_only=True)
class Look:
    """What has to be said to each target anew; what is `None` is left as the browser has it."""

    user_agent: str | None = None
    viewport: Dimensions | None = None
    """Emulated: only for what no window can have."""

    def __bool__(self) -> bool:
        """Whether there is anything to say."""
        return self != Look()

    def calls(self, kind: str) -> Iterator[Call]:
        """What to say to a target of this *kind* (`page`, `iframe`, `worker`, …), in this order.

        `--user-agent` alone changes the header and leaves `sec-ch-ua` as it was.
        """
        if self.user_agent is not None:
            yield "Emulation.setUserAgentOverride", override(self.user_agent)
        if self.viewport is not None and kind == "page":
            yield "Emulation.setDeviceMetricsOverride", _metrics(self.viewport)


def _metrics(viewport: Dimensions) -> dict[str, Any]:
    # Scale factor 0: the screen's own.
    size = {"width": viewport.width, "height": viewport.height}
    return {**size, "deviceScaleFactor": 0, "mobile": False}
