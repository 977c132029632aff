"""Hundreds of sessions on one server while owners are killed: nothing is left, nothing grows.

Run by `nox -s soak`; `-- --sessions 50` for a short one. Ends with 1 if anything is left or grew.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil
from attrs import define, frozen
from rich.console import Console
from rich.table import Table

from browsercloud import BrowserCloud
from tests.conftest import Site
from tests.leaks import MARK, browsers, left
from tests.serving import KEY, Serving, serving

EACH = 5
"""Sessions that one owner has, one after the other."""

LEASE_GRACE = 3
KILLED = 10
"""One owner in so many is killed in the middle of a session."""

SETTLED_WITHIN = 20.0
GROWTH = 1.10
"""How much more memory than after the first third the server may have at the end."""


@define
class Tally:
    """What has happened so far."""

    owners: int = 0
    killed: int = 0
    failed: int = 0
    begun: int = 0


@frozen
class Sample:
    """The server at one moment."""

    sessions: int
    seconds: float
    memory: int
    descriptors: int
    threads: int
    browsers: int


async def own(url: str, site: str, each: int) -> None:
    """An owner, in a process of its own: use sessions as a program does, one after the other."""
    async with BrowserCloud(url, api_key=KEY) as client:
        for number in range(each):
            kind = "chromium" if number == 0 else "headless-shell"
            async with client.session(browser=kind, timeout=120) as session:  # type: ignore[arg-type]
                print("began", flush=True)
                await session.page.goto(site)
                assert await session.page.title() == "Home"
                await session.page.screenshot()


class Soak:
    """The owners, so many at a time, and what the server looks like meanwhile."""

    def __init__(self, server: Serving, site: Site, sessions: int, at_once: int) -> None:
        self.server = server
        self.site = site
        self.sessions = sessions
        self.at_once = at_once
        self.tally = Tally()
        self.samples: list[Sample] = []
        self.process = psutil.Process(server.process.pid)
        self.start = time.monotonic()

    async def run(self, root: Path, console: Console) -> None:
        """Begin owners until there were enough sessions."""
        await asyncio.gather(
            self._sampling(root, console), *(self._owners() for _ in range(self.at_once))
        )

    async def _owners(self) -> None:
        while self.tally.begun < self.sessions:
            self.tally.owners += 1
            await self._one(kill=self.tally.owners % KILLED == 0)

    async def _one(self, *, kill: bool) -> None:
        owner = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.soak", "--own", self.server.url, self.site.url),
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert owner.stdout is not None
        mine = 0
        while await owner.stdout.readline():
            mine += 1
            self.tally.begun += 1
            if kill and mine == EACH // 2 + 1:
                self.tally.killed += 1
                os.killpg(owner.pid, signal.SIGKILL)
        code = await owner.wait()
        if code != 0 and not kill:
            self.tally.failed += 1

    async def _sampling(self, root: Path, console: Console) -> None:
        step = max(1, self.sessions // 10)
        while len(self.samples) * step < self.sessions:
            if self.tally.begun >= (len(self.samples) + 1) * step:
                self.samples.append(self.sample(root))
                console.print(f"{self.tally.begun} sessions", style="dim")
            await asyncio.sleep(0.2)

    def sample(self, root: Path) -> Sample:
        """The server now."""
        with self.process.oneshot():
            return Sample(
                sessions=self.tally.begun,
                seconds=time.monotonic() - self.start,
                memory=self.process.memory_info().rss,
                descriptors=self.process.num_fds(),
                threads=self.process.num_threads(),
                browsers=len(browsers(root)),
            )

    async def settle(self, root: Path) -> list[str]:
        """Wait until every session has ended; what is left of any."""
        end = time.monotonic() + SETTLED_WITHIN
        while found := self._left(root):
            if time.monotonic() > end:
                return found
            await asyncio.sleep(0.2)
        return []

    def _left(self, root: Path) -> list[str]:
        alive = [
            f"{record['id']} {record['status']}"
            for status in ("queued", "starting", "live", "releasing")
            for record in self.server.get(f"/v1/sessions?status={status}")["sessions"]
        ]
        folders = [str(path) for path in (self.server.data_dir / "sessions").iterdir()]
        sockets = [
            f"{found.laddr} {found.raddr} {found.status}"
            for found in self.process.net_connections("tcp")
            if found.status != psutil.CONN_LISTEN and found.raddr
        ]
        return [*alive, *map(str, browsers(root)), *folders, *sockets]


def show(console: Console, soak: Soak) -> None:
    """The samples as a table, and what they come to."""
    table = Table("sessions", "seconds", "server MB", "descriptors", "threads", "browsers")
    for one in soak.samples:
        table.add_row(
            str(one.sessions),
            f"{one.seconds:.0f}",
            f"{one.memory / 2**20:.1f}",
            str(one.descriptors),
            str(one.threads),
            str(one.browsers),
        )
    console.print(table)
    tally = soak.tally
    console.print(
        f"{tally.begun} sessions of {tally.owners} owners, {soak.at_once} at a time; "
        f"{tally.killed} owners killed, {tally.failed} failed"
    )


def problems(soak: Soak, found: list[str], after: list[str]) -> list[str]:
    """What must not be."""
    told = [f"left while the server ran: {entry}" for entry in found]
    told += [f"left after it: {entry}" for entry in after]
    if soak.tally.failed:
        told.append(f"{soak.tally.failed} owners failed")
    busy = soak.samples[len(soak.samples) // 3 : -1]
    last = soak.samples[-1]
    if last.memory > GROWTH * busy[0].memory:
        told.append(f"memory grew from {busy[0].memory} to {last.memory}")
    if last.descriptors > min(one.descriptors for one in soak.samples):
        told.append(f"{last.descriptors} descriptors at the end")
    return told


async def whole(server: Serving, site: Site, root: Path, options: argparse.Namespace) -> list[str]:
    """Run it, and say what is wrong."""
    console = Console()
    soak = Soak(server, site, options.sessions, options.at_once)
    await soak.run(root, console)
    found = await soak.settle(root)
    soak.samples.append(soak.sample(root))
    show(console, soak)
    assert server.stop() == 0
    return problems(soak, found, left(root))


def main() -> int:
    """Run the soak, or one owner of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--own", nargs=2, metavar=("URL", "SITE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own:
        asyncio.run(own(*options.own, EACH))
        return 0
    with tempfile.TemporaryDirectory(prefix="bc-") as folder:
        os.environ |= {MARK: folder, "TMPDIR": folder}
        root = Path(folder)
        with (
            Site().running() as site,
            serving(root, "--lease-grace", str(LEASE_GRACE)) as server,
        ):
            wrong = asyncio.run(whole(server, site, root, options))
    for problem in wrong:
        print(problem)
    print("nothing is left, nothing grew" if not wrong else f"{len(wrong)} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
