"""Which keys open this server right now, and what the project of each may do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from attrs import define, field

from browsercloud._aio import close_all, stop_task
from browsercloud.server.config import DEFAULT_PROJECT
from browsercloud.server.keys import hash_key, make_key
from browsercloud.server.records import now
from browsercloud.stores.base import KeyRow, Limits, Store

log = logging.getLogger(__name__)

CHECK_EVERY = 0.5
"""Seconds after which a key that was made or revoked elsewhere is noticed at the latest.

The store is asked for one number; a command that had to find and tell the server would need a way
in of its own, and could not tell a server that starts at that moment.
"""

NOTE_EVERY = 60.0
"""Seconds between two notes of when keys were used; nobody needs to know more exactly."""

NO_LIMITS = Limits()


@define(eq=False)
class KnownKey:
    """A key as the running server knows it."""

    project: str
    id: str | None = None
    """`None` for the configured key, which cannot be revoked while the server runs."""

    revoked: asyncio.Future[None] | None = field(default=None, repr=False)
    """Done once the key is revoked. Whoever holds something open for it lets go then."""

    @property
    def good(self) -> bool:
        """Whether it opens anything."""
        return self.revoked is None or not self.revoked.done()


class Keyring:
    """The store's keys and the configured one, in memory; follows the store by asking it often."""

    def __init__(
        self, store: Store, api_key: str | None = None, *, check_every: float = CHECK_EVERY
    ) -> None:
        self._store = store
        self._configured: dict[str, KnownKey] = {}
        if api_key is not None:
            self._configured[hash_key(api_key)] = KnownKey(DEFAULT_PROJECT)
        self._by_hash = dict(self._configured)
        self._by_id: dict[str, KnownKey] = {}
        self._limits: Mapping[str, Limits] = {}
        self._used: dict[str, datetime] = {}
        self._version = -1
        self._check_every = check_every
        self._regular: asyncio.Task[None] | None = None
        self.changed: Callable[[], None] = lambda: None
        """Called after keys or limits have changed."""

    async def open(self) -> None:
        """Read the keys, and follow their changes from now on."""
        await self.refresh()
        self._regular = asyncio.create_task(self._run(), name="keyring")

    async def close(self) -> None:
        """Stop following, and note the last uses. Safe to call twice."""
        regular, self._regular = self._regular, None
        if regular is not None:
            await close_all([self._note_use, lambda: stop_task(regular)])

    def find(self, key: str) -> KnownKey | None:
        """The known key that *key* is; `None` for one that is unknown or revoked.

        A plain look-up: its delay could tell about hashes at most, and nobody can choose a key
        whose hash begins as they like.
        """
        return self._use(self._by_hash.get(hash_key(key)))

    def by_id(self, key_id: str) -> KnownKey | None:
        """The known key with this id; `None` for one that is unknown or revoked."""
        return self._use(self._by_id.get(key_id))

    def configured(self, digest: str) -> KnownKey | None:
        """The configured key, if its hash begins with *digest*."""
        found = next(iter(self._configured.items()), None)
        return found[1] if found is not None and found[0].startswith(digest) else None

    def limits(self, project: str) -> Limits:
        """What the project may do."""
        return self._limits.get(project, NO_LIMITS)

    async def refresh(self) -> None:
        """Read everything again; whoever uses a key that is revoked now is told at once."""
        # The version first: what changes after it is read will be noticed the next time.
        version = await self._store.access_version()
        rows, limits = await self._store.keys(), await self._store.limits()
        by_hash = dict(self._configured)
        for row in rows:
            if self._know(row).good:
                by_hash[row.hash] = self._by_id[row.id]
        self._by_hash, self._limits, self._version = by_hash, limits, version
        self._warn(rows)
        self.changed()

    async def make_first(self, older: KeyRow | None = None) -> str | None:
        """Make a key of the project `default` if there is none at all; it is shown this once.

        *older* is a key from before the store kept them: it is taken over.
        """
        if older is not None:
            await self._store.add_key(older)
        key = None
        if not (self._configured or await self._store.keys()):
            key, row = make_key(DEFAULT_PROJECT)
            await self._store.add_key(row)
        await self.refresh()
        return key

    def _know(self, row: KeyRow) -> KnownKey:
        known = self._by_id.get(row.id)
        if known is None:
            gone = asyncio.get_running_loop().create_future()
            known = self._by_id[row.id] = KnownKey(row.project, row.id, gone)
        if row.revoked_at is not None and known.revoked is not None and known.good:
            known.revoked.set_result(None)
        return known

    def _warn(self, rows: Sequence[KeyRow]) -> None:
        if rows and not self._by_hash:
            log.warning("every key is revoked; make another with: browsercloud keys create")

    def _use(self, known: KnownKey | None) -> KnownKey | None:
        if known is None or not known.good:
            return None
        if known.id is not None:
            self._used[known.id] = now()
        return known

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        note_at = loop.time() + NOTE_EVERY
        while True:
            await asyncio.sleep(self._check_every)
            try:
                if await self._store.access_version() != self._version:
                    await self.refresh()
                if loop.time() >= note_at:
                    note_at = loop.time() + NOTE_EVERY
                    await self._note_use()
            except Exception as error:
                # What is known stays in force; the next round may find the store mended.
                log.error("the keys could not be looked at: %s", error)

    async def _note_use(self) -> None:
        used, self._used = self._used, {}
        if used:
            await self._store.note_use(used)
