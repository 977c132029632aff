"""What may be secret in a request, sealed before it is written to a file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

URLS = ("customWebSocketUrl", "startUrl")
HEADERS = "extraHeaders"
CONTEXT = "sessionContext"
LOST = "wss://sealed.invalid/"
"""Stands for a URL that cannot be read any more: nothing is ever found there."""


class Seal:
    """Seals with *secret*; without one, what may be secret is not kept at all."""

    def __init__(self, secret: bytes | None) -> None:
        # A key of its own: the secret signs tokens too.
        derived = hashlib.blake2b(secret or b"", digest_size=32, person=b"browsercloud row")
        self._key = None if secret is None else base64.urlsafe_b64encode(derived.digest())

    def close(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request as it may be written."""
        return _with(request, self._closed)

    def open(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request as it was; what cannot be opened any more is a URL that leads nowhere."""
        return _with(request, self._opened)

    def _closed(self, url: str) -> str:
        if self._key is None:
            return LOST
        from cryptography.fernet import Fernet  # when there is something to seal: it takes a while

        return LOST + Fernet(self._key).encrypt(url.encode()).decode()

    def _opened(self, url: str) -> str:
        from cryptography.fernet import Fernet, InvalidToken

        if self._key is None:
            return LOST
        try:
            return Fernet(self._key).decrypt(url.removeprefix(LOST)).decode()
        except InvalidToken:
            return LOST


def _with(request: Mapping[str, Any], change: Callable[[str], str]) -> Mapping[str, Any]:
    """*request* with URLs and headers changed wherever they stand."""
    changed = dict(request)
    for place in ("options", "given"):
        fields = dict(changed.get(place, {}))
        fields |= {name: change(fields[name]) for name in URLS if fields.get(name) is not None}
        if fields.get(HEADERS):
            fields[HEADERS] = {name: change(text) for name, text in fields[HEADERS].items()}
        if fields.get(CONTEXT):
            fields |= _context(fields.pop(CONTEXT), change)
        if place in changed:
            changed[place] = fields
    return changed


def _context(told: Any, change: Callable[[str], str]) -> Mapping[str, Any]:
    """A context as one sealed text, or that text as a context again; none if it is lost."""
    if not isinstance(told, str):
        return {CONTEXT: change(json.dumps(told))}
    text = change(told)
    return {} if text == LOST else {CONTEXT: json.loads(text)}
