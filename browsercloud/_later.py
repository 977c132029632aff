"""Modules that are loaded when they are first used, not when the file is that names them.

`import aiohttp` alone takes as long as a browser needs to begin. A file that uses such a module
inside its functions only writes, at its top:

    if TYPE_CHECKING:
        import aiohttp
    else:
        aiohttp = later("aiohttp")
"""

from __future__ import annotations

import gc
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any


def later(name: str) -> ModuleType:
    """What stands for the module *name*, and loads it when it is first asked for something."""
    return _Later(name)


def load(name: str) -> ModuleType:
    """Import the module *name*, while the collector of cycles rests.

    Loading makes very many objects that stay. To look through them again and again for what could
    go takes a fifth of the time.
    """
    with _rest:
        return import_module(name)


class _Rest:
    """The collector rests while anybody is inside."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._was_on = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._was_on = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._was_on:
                gc.enable()


_rest = _Rest()


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(load(self.__name__), name)
