"""Modules that are loaded when they are first used, not when the file is that names them.

`import aiohttp` alone takes as long as a browser needs to begin. A file that uses such a module
inside its functions only writes, at its top:

    if TYPE_CHECKING:
        import aiohttp
    else:
        aiohttp = later("aiohttp")
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


def later(name: str) -> ModuleType:
    """What stands for the module *name*, and loads it when it is first asked for something."""
    return _Later(name)


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)
