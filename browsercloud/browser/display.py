"""A screen for a session that shows its window where there is none: an Xvfb of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from browsercloud.browser.child import Child
from browsercloud.errors import LaunchFailed
from browsercloud.options import Dimensions

PROGRAM = "Xvfb"
START_PATIENCE = 10.0
STOP_PATIENCE = 5.0
COOKIE = b"MIT-MAGIC-COOKIE-1"
ANY_HOST = 0xFFFF
PANEL = 48
"""Pixels that a screen is higher than its window: Chromium makes one that would fill it smaller."""

NOTE = "display"
"""File in a session's folder with the number of its display and the process behind it."""


def has_display(environ: Mapping[str, str]) -> bool:
    """Whether a window can be shown on a display of the machine's."""
    named = environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    return sys.platform == "darwin" or bool(named)


def program() -> str:
    """Where Xvfb is. Raises `LaunchFailed` if it is nowhere."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise LaunchFailed(
            "headless: False needs a display on the browser's machine; neither DISPLAY nor "
            "WAYLAND_DISPLAY is set, and there is no Xvfb. Use headless=True, or install Xvfb: "
            "`browsercloud install --xvfb`"
        )
    return found


class Display:
    """An X server that one session has alone: only who has the cookie in its folder gets in.

    Its command line names the folder, by which it is taken for the session's own whoever cleans up.
    """

    def __init__(self, child: Child, folder: Path) -> None:
        self._child = child
        self._folder = folder
        self.number = ""

    @classmethod
    async def start(cls, folder: Path, screen: Dimensions) -> Self:
        """Start it with a *screen* of this size; returns when windows can be shown.

        Raises `LaunchFailed` if there is no Xvfb, or it does not start. Cancelled, it is gone.
        """
        path = program()
        cookie = folder / "xauthority"
        cookie.touch(mode=0o600)
        cookie.write_bytes(_authority(secrets.token_bytes(16)))
        reading, writing = os.pipe()
        size = f"{screen.width}x{screen.height + PANEL}x24"
        try:
            child = Child(
                [
                    f"{PROGRAM}={folder}/{NOTE}",
                    *("-displayfd", str(writing)),
                    *("-screen", "0", size),
                    *("-auth", str(cookie)),
                    *("-nolisten", "tcp"),
                ],
                program=path,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd=folder,
                pass_fds=(writing,),
            )
        except OSError as error:
            os.close(reading)
            raise LaunchFailed(f"headless: Xvfb cannot be run: {error}") from error
        finally:
            os.close(writing)
        display = cls(child, folder)
        try:
            await display._ready(reading)
        except BaseException:
            await display.stop()
            raise
        finally:
            os.close(reading)
        return display

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """*ours*, with this display."""
        own = {"DISPLAY": f":{self.number}", "XAUTHORITY": str(self._folder / "xauthority")}
        return {**ours, **own}

    async def stop(self) -> None:
        """End it, if it still runs. Safe to call twice."""
        if not self._child.exited.done() and self._child.held:
            self._child.popen.terminate()  # it takes its lock away
            await asyncio.wait({self._child.exited}, timeout=STOP_PATIENCE)
            if not self._child.exited.done():
                self._child.popen.kill()
                await asyncio.wait({self._child.exited}, timeout=STOP_PATIENCE)
        self._child.release()

    async def _ready(self, reading: int) -> None:
        """Wait until it says its number."""
        loop = asyncio.get_running_loop()
        said: asyncio.Future[None] = loop.create_future()
        words = bytearray()

        def read() -> None:
            piece = os.read(reading, 32)
            words.extend(piece)  # it may come in pieces, and ends with the line
            if (not piece or words.endswith(b"\n")) and not said.done():
                loop.remove_reader(reading)
                said.set_result(None)

        loop.add_reader(reading, read)
        try:
            await asyncio.wait({said}, timeout=START_PATIENCE)
        finally:
            loop.remove_reader(reading)
        number = bytes(words).strip()
        if not number.isdigit():
            raise LaunchFailed("headless: Xvfb does not start; try `Xvfb :99` by hand")
        self.number = number.decode()
        (self._folder / NOTE).write_text(f"{self.number} {self._child.pid}")


def _authority(cookie: bytes) -> bytes:
    """A file of one cookie, good for any display: the number is not known yet."""
    fields = (b"", b"", COOKIE, cookie)
    return struct.pack(">H", ANY_HOST) + b"".join(
        struct.pack(">H", len(one)) + one for one in fields
    )
