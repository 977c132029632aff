"""Which browsers an engine can start."""

from __future__ import annotations

import os
from collections.abc import Mapping

from browsercloud.browser.find import Found, find
from browsercloud.errors import BrowserNotFound
from browsercloud.options import Browser


class Programs:
    """The program of each kind of browser; *settings* are paths, `None` to have it looked for."""

    def __init__(self, settings: Mapping[Browser, str | os.PathLike[str] | None]) -> None:
        self._settings = settings
        self._found: dict[Browser, Found] = {}

    def look(self) -> None:
        """Look for all; blocks. Raises `BrowserNotFound` for a wrong setting, or without any."""
        missing: BrowserNotFound | None = None
        for kind, setting in self._settings.items():
            try:
                self._found[kind] = find(kind, setting)
            except BrowserNotFound as error:
                if setting is not None:
                    raise
                missing = missing or error
        if not self._found and missing is not None:
            raise missing

    def usual(self) -> Browser:
        """The kind that is likely to be asked for: one with a setting before one that was found."""
        return min(self._found, key=lambda kind: self._settings[kind] is None)

    def __contains__(self, kind: Browser) -> bool:
        """Whether it was there when last looked for."""
        return kind in self._found

    def of(self, kind: Browser) -> Found:
        """The program for *kind*, looked for again if there was none: it may be there by now."""
        if kind not in self._found:
            self._found[kind] = find(kind, self._settings[kind])
        return self._found[kind]
