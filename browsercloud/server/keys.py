"""Making keys, and the server's own secret on disk: what signs session tokens."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

import attrs

from browsercloud.errors import UsageError
from browsercloud.server.config import DEFAULT_PROJECT, SECRET_BYTES, ServerConfig
from browsercloud.server.records import now
from browsercloud.stores.base import KeyRow

FILE_NAME = "secrets.json"
SHOWN = 10
"""Characters of a key that are kept for people to recognise it: 42 of its 256 bits."""

_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def hash_key(key: str) -> str:
    """What is stored of a key: SHA-256, in hex.

    Slow hashes are for passwords, which can be guessed. A key is 256 random bits: there is nothing
    to try, at any speed, and every request pays for the hash.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def make_key(project: str) -> tuple[str, KeyRow]:
    """A new key, to be shown once, and what is stored of it.

    Raises `UsageError` for a project that cannot be named so.
    """
    if not _PROJECT.fullmatch(project):
        raise UsageError(
            "--project: give 1 to 64 letters, digits, dots, dashes or underscores, "
            "with a letter or digit first"
        )
    key = f"bc_{secrets.token_urlsafe(SECRET_BYTES)}"
    return key, key_row(hash_key(key), project, prefix=key[:SHOWN])


def key_row(key_hash: str, project: str, *, prefix: str = "") -> KeyRow:
    """The row of a key with this hash, made now."""
    return KeyRow(id=key_hash[:12], hash=key_hash, prefix=prefix, project=project, created_at=now())


def ready(config: ServerConfig) -> ServerConfig:
    """*config* with the token secret that its `data_dir` keeps, if it does already.

    Raises `UsageError` when the file cannot be read.
    """
    if config.data_dir is None:
        return config
    path = config.data_dir / FILE_NAME
    try:
        stored = _load(path)
        secret = bytes.fromhex(stored["tokenSecret"]) if stored else config.token_secret
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unusable(path, error) from error
    return attrs.evolve(config, token_secret=secret)


def older_key(config: ServerConfig) -> KeyRow | None:
    """The key whose hash an earlier version kept beside the secret; `None` if there is none."""
    if config.data_dir is None:
        return None
    path = config.data_dir / FILE_NAME
    try:
        found = _load(path).get("keyHash")
        return None if found is None else key_row(bytes.fromhex(found).hex(), DEFAULT_PROJECT)
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(path, error) from error


def keep(config: ServerConfig) -> None:
    """Store the token secret, and nothing else. Raises `UsageError`."""
    if config.data_dir is None:
        return
    path = config.data_dir / FILE_NAME
    try:
        wanted = {"tokenSecret": config.token_secret.hex()}
        if wanted != _load(path):
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
