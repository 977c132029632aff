"""`session.frames()`: what a session shows, picture by picture."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

from attrs import field, frozen

from browsercloud._aio import stop_task
from browsercloud.client.transport import Transport
from browsercloud.errors import ConnectionFailed, UsageError


@frozen(kw_only=True)
class Frame:
    """One picture of a session."""

    picture: bytes = field(repr=False)
    """A JPEG."""

    width: float
    """Of what is shown, in CSS pixels."""

    height: float

    page_id: str | None = None
    """The tab that is shown."""


class _Latest:
    """The newest frame of a socket. What nobody took in time is dropped."""

    def __init__(self) -> None:
        self.frame: Frame | None = None
        self.ended = False
        self.news = asyncio.Event()

    async def read(self, transport: Transport, path: str) -> None:
        """Until the socket closes."""
        width, height, page_id = 0.0, 0.0, None
        try:
            async with aclosing(transport.messages(path)) as messages:
                async for said in messages:
                    if isinstance(said, bytes):
                        self.frame = Frame(
                            picture=said, width=width, height=height, page_id=page_id
                        )
                        self.news.set()
                        continue
                    told = json.loads(said)
                    match told.get("type"):
                        case "size":
                            width, height = told["width"], told["height"]
                        case "view":
                            page_id = told.get("shown")
                        case "ended":
                            self.ended = True
        finally:
            self.news.set()


async def frames(
    transport: Transport, path: str, max_fps: float | None
) -> AsyncGenerator[Frame, None]:
    """The frames at *path*, each at most once; see `LiveSession.frames`."""
    if max_fps is not None and not (0 < max_fps < math.inf):
        raise UsageError(f"max_fps must be more than 0, not {max_fps!r}")
    pause = 0.0 if max_fps is None else 1 / max_fps
    latest = _Latest()
    loop = asyncio.get_running_loop()
    reading = asyncio.create_task(latest.read(transport, path), name="frames")
    try:
        while True:
            await latest.news.wait()
            frame, latest.frame = latest.frame, None
            if not reading.done():
                latest.news.clear()
            if frame is not None:
                due = loop.time() + pause
                yield frame
                await asyncio.sleep(max(due - loop.time(), 0.0))
            elif reading.done():
                break
        await reading  # raises what went wrong
        if not latest.ended:
            raise ConnectionFailed("the viewer's socket was closed", endpoint=transport.url)
    finally:
        await stop_task(reading)
