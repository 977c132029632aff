"""Selenium as its users write it, for tests: every call in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from selenium.webdriver import ChromeOptions, Remote
from selenium.webdriver.remote.client_config import ClientConfig

T = TypeVar("T")


def connect(url: str, *, key: str | None = None, **capabilities: Any) -> Remote:
    """A driver at *url*, with the key as Basic password if there is one. Blocks."""
    options = ChromeOptions()
    for name, value in capabilities.items():
        options.set_capability(name.replace("__", ":"), value)
    who = {} if key is None else {"username": "me", "password": key}
    return Remote(url, options=options, client_config=ClientConfig(url, timeout=60, **who))


async def driven(work: Callable[[], T]) -> T:
    """Blocking *work*, in a thread."""
    return await asyncio.to_thread(work)
