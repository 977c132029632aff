"""The server's own secrets on disk: the hash of a key it made, and what signs session tokens."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import attrs

from browsercloud.errors import UsageError
from browsercloud.server.config import DEFAULT_PROJECT, SECRET_BYTES, ServerConfig

FILE_NAME = "secrets.json"


def hash_key(key: str) -> str:
    """What is stored of a key. Keys are long and random, so a fast hash is enough."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def ready(config: ServerConfig) -> tuple[ServerConfig, str | None]:
    """*config* with the secrets kept in its `data_dir`, and a newly made key to show once.

    A key is made when none is configured, none is stored, and `no_auth` is off. Nothing is written:
    `keep` does that once the server runs, so that no key is stored which nobody was shown.
    Raises `UsageError` when the file cannot be read.
    """
    if config.data_dir is None:
        return config, None
    path = config.data_dir / FILE_NAME
    try:
        stored = _load(path)
        secret = bytes.fromhex(stored["tokenSecret"]) if stored else config.token_secret
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unusable(path, error) from error
    new_key, hashes = None, {}
    if not (config.api_key or config.no_auth):
        if "keyHash" not in stored:
            new_key = f"bc_{secrets.token_urlsafe(SECRET_BYTES)}"
        hashes = {stored.get("keyHash") or hash_key(new_key or ""): DEFAULT_PROJECT}
    return attrs.evolve(config, token_secret=secret, key_hashes=hashes), new_key


def keep(config: ServerConfig, new_key: str | None) -> None:
    """Store what `ready` made: the hash of the key, never the key. Raises `UsageError`."""
    if config.data_dir is None:
        return
    path = config.data_dir / FILE_NAME
    try:
        stored = _load(path)
        wanted = {**stored, "tokenSecret": config.token_secret.hex()}
        if new_key is not None:
            wanted["keyHash"] = hash_key(new_key)
        if wanted != stored:
            _save(path, wanted)
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path} cannot be used ({error}); mend or remove it, or choose another --data-dir"
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError("it holds no object")
    return value


def _save(path: Path, value: dict[str, Any]) -> None:
    """Write whole or not at all, and readable by its owner only from the first byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
