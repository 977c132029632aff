"""The leak matrix: whatever ends a session, nothing of it is left within a stated time.

"Nothing" is: no browser process, no driver, no guard, no folder, no task, no thread, and no session
that the server still calls live. `GONE_WITHIN` (5 s) holds for every row but one: when a client
that used a server elsewhere is killed, its sessions live on for `lease_grace`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.async_api import Error as PlaywrightError

from browsercloud import (
    BrowserCloud,
    BrowserCrashed,
    LiveSession,
    ReleasedElsewhere,
    ReleaseReason,
    SessionStatus,
)
from browsercloud.local import LocalServer
from tests.cancelling import at_every_await
from tests.conftest import GONE_WITHIN, Site
from tests.leaks import browsers, stray_folders, wait_until_nothing_is_left
from tests.processes import until
from tests.serving import Serving, serving

pytestmark = pytest.mark.usefixtures("pool")

LEASE_GRACE = 1.0


@pytest.fixture(params=[False, True], ids=["handlers-go-on", "handlers-are-cancelled"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[BrowserCloud]:
    """A client of a server whose handlers are, or are not, cancelled when a client goes away."""
    async with (
        LocalServer(handler_cancellation=request.param, lease_grace=LEASE_GRACE) as server,
        BrowserCloud(server.url, api_key=server.api_key) as client,
    ):
        yield client


async def gone(client: BrowserCloud, root: Path, within: float = GONE_WITHIN) -> None:
    """No browser, no folder, and no session that has not ended."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while True:
        listed = (await client.sessions.list(limit=100)).sessions
        living = [f"{s.id} {s.status}" for s in listed if not s.status.ended]
        left = [*living, *map(str, browsers(root)), *stray_folders(root)]
        left = [entry for entry in left if not entry.endswith("/sessions")]
        if not sessions_left(left):
            return
        assert loop.time() < end, f"left over: {left}"
        await asyncio.sleep(0.02)


def sessions_left(left: list[str]) -> list[str]:
    """What belongs to a session; the folder of an embedded server belongs to the server."""
    return [entry for entry in left if "browsercloud-" not in entry or "/sessions/" in entry]


async def one_session(client: BrowserCloud) -> None:
    """Create, attach, use, release: what the rows below cancel somewhere in the middle."""
    async with client.session(browser="headless-shell") as session:
        await session.page.evaluate("1 + 1")


# ---------------------------------------------------------------------- cancellation


async def test_cancelled_at_every_await(client: BrowserCloud, root: Path) -> None:
    """A cancellation at any await of create, attach, use or release leaves nothing."""
    await one_session(client)  # the driver is there now, as it is for every session but the first
    before = asyncio.all_tasks()
    places = await at_every_await(lambda: one_session(client), lambda: gone(client, root))
    assert places >= 5
    await until(lambda: asyncio.all_tasks() <= before, "the end of every task")


async def test_cancelled_twice(client: BrowserCloud, root: Path) -> None:
    """A second cancellation, while the first one is being cleaned up after, leaves nothing."""
    for distance in (1, 2):
        places = await at_every_await(
            lambda: one_session(client), lambda: gone(client, root), again=distance, every=2
        )
        assert places >= 5


async def test_cancelled_while_creating_by_id(client: BrowserCloud, root: Path) -> None:
    """`sessions.create` undoes what it began, wherever it is cancelled."""

    async def create() -> None:
        session = await client.sessions.create(browser="headless-shell")
        await client.sessions.release(session.id)

    # Cancelled between the two calls the session is the caller's to release: nothing awaits there.
    places = await at_every_await(create, lambda: gone(client, root))
    assert places >= 2


async def test_first_session_cancelled_at_every_await(root: Path) -> None:
    """The same with everything cold: server, driver and lease start in the cancelled task."""

    async def whole() -> None:
        async with BrowserCloud() as client:
            await one_session(client)

    async def nothing() -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + GONE_WITHIN
        while browsers(root) or stray_folders(root):
            assert loop.time() < end, [*browsers(root), *stray_folders(root)]
            await asyncio.sleep(0.02)

    assert await at_every_await(whole, nothing) >= 10


def test_loop_torn_down_at_every_await() -> None:
    """`asyncio.run` cancels *every* task when main is done, the ones that clean up included.

    A whole client lives in another task, and main ends when that task is suspended for the n-th
    time, for every n. No browser, driver or folder is left, and no thread.
    """
    loops = subprocess.run(
        [sys.executable, "-m", "tests.torn_loops"],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=100,
    )
    assert int(loops.stdout) > 10


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.1, 0.2, 0.4])
async def test_asyncio_timeout(client: BrowserCloud, root: Path, seconds: float) -> None:
    """`asyncio.timeout` around a session raises `TimeoutError` and leaves nothing."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            async with client.session(browser="headless-shell"):
                await asyncio.sleep(60)
    await gone(client, root)


# ---------------------------------------------------------------------- the body


async def test_body_raises(client: BrowserCloud, root: Path) -> None:
    """The body's own error comes out, and the session goes."""
    with pytest.raises(ZeroDivisionError):
        async with client.session(browser="headless-shell") as session:
            raise ZeroDivisionError
    await gone(client, root)
    record = await client.sessions.retrieve(session.id)
    assert record.status is SessionStatus.RELEASED
    assert record.release_reason is ReleaseReason.USER_REQUESTED


async def test_body_leaves_by_base_exception(client: BrowserCloud, root: Path) -> None:
    """What is no `Exception` releases as well: here a generator that is closed."""

    async def generate() -> AsyncIterator[LiveSession]:
        async with client.session(browser="headless-shell") as session:
            yield session

    generator = generate()
    await anext(generator)
    await generator.aclose()  # type: ignore[attr-defined]
    await gone(client, root)


@pytest.mark.usefixtures("no_pool")  # counts browsers while the client is open
async def test_fifty_sessions(root: Path) -> None:
    """50 sessions, 8 at a time, through one client: all work, and none is left."""
    async with BrowserCloud() as client:
        turn = asyncio.Semaphore(8)

        async def use(number: int) -> int:
            async with turn, client.session(browser="headless-shell") as session:
                return int(await session.page.evaluate(f"{number} * 2"))

        assert [2 * n for n in range(50)] == await asyncio.gather(*(use(n) for n in range(50)))
        await gone(client, root)
        assert (await client.sessions.list(status="released")).total_count == 50


# ---------------------------------------------------------------------- browsers that die


async def test_chromium_gets_sigkill(client: BrowserCloud, root: Path) -> None:
    """The body's call fails, and leaving raises `BrowserCrashed` with the evidence, from it."""
    with pytest.raises(BrowserCrashed) as caught:
        async with client.session(browser="headless-shell") as session:
            browsers(root)[0].kill()
            await session.page.wait_for_selector("#never")
    assert isinstance(caught.value.__cause__, PlaywrightError)
    record = caught.value.session
    assert record is not None
    assert record.error is not None
    assert (record.error.code, record.error.signal) == ("browser_crashed", "SIGKILL")
    await gone(client, root)


async def test_renderer_crashes(client: BrowserCloud, root: Path) -> None:
    """A crashed tab does not end the session, and hinders no release."""
    async with client.session() as session:
        with pytest.raises(PlaywrightError):
            await session.page.goto("chrome://crash", timeout=5_000)
        page = await session.context.new_page()
        assert await page.evaluate("1 + 1") == 2
    await gone(client, root)


# ---------------------------------------------------------------------- processes that die

SCRIPT = """
import asyncio, os, sys
from browsercloud import BrowserCloud

async def main():
    async with BrowserCloud() as client:
        async with client.session(browser="headless-shell") as session:
            print("ready", flush=True)
            await asyncio.sleep(120)

asyncio.run(main())
"""


@contextmanager
def script(program: str = SCRIPT, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A user's program with a live session, in a process group of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("to_group", [False, True], ids=["to-the-process", "as-ctrl-c"])
def test_sigint(root: Path, to_group: bool) -> None:
    """SIGINT ends the program through its `async with`; Ctrl-C reaches the driver as well."""
    with script() as process:
        send = os.killpg if to_group else os.kill
        send(process.pid, signal.SIGINT)
        process.wait(GONE_WITHIN)
        wait_until_nothing_is_left(root, GONE_WITHIN)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_client_with_embedded_server_is_killed(root: Path, number: int) -> None:
    """Killed without a chance to clean up, the program leaves no browser, driver or folder."""
    with script() as process:
        os.kill(process.pid, number)
        process.wait(GONE_WITHIN)
        wait_until_nothing_is_left(root, GONE_WITHIN)


FORKING = SCRIPT.replace(
    'print("ready", flush=True)',
    "child = os.fork() or (time.sleep(60), os._exit(0)); print('ready', flush=True)",
).replace("import asyncio, os, sys", "import asyncio, os, sys, time")


def test_killed_client_has_a_forked_child(root: Path) -> None:
    """A child that the program forked does not hold its parent's lease."""
    with serving(root, "--lease-grace", str(LEASE_GRACE)) as server:
        elsewhere = {"BROWSERCLOUD_URL": server.url, "BROWSERCLOUD_API_KEY": server.key}
        with script(FORKING, **elsewhere) as process:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(GONE_WITHIN)
            try:
                records = server.wait_for_sessions(ended=1, within=LEASE_GRACE + GONE_WITHIN)
                assert [record["releaseReason"] for record in records] == ["lease_lost"]
            finally:
                os.killpg(process.pid, signal.SIGKILL)


def test_program_ends_without_closing(root: Path) -> None:
    """A client that was never closed is closed by the end of the program, folders included."""
    program = """if True:
        import asyncio
        from browsercloud import BrowserCloud
        loop = asyncio.new_event_loop()
        client = loop.run_until_complete(BrowserCloud().open())
        session = loop.run_until_complete(client.session(browser="headless-shell").open())
        """
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    wait_until_nothing_is_left(root, GONE_WITHIN)


async def test_server_is_stopped_under_the_body(root: Path) -> None:
    """Its last word reaches the client: leaving tells that the server was stopped."""
    with serving(root) as server:
        async with BrowserCloud(server.url, api_key=server.key) as client:
            with pytest.raises(ReleasedElsewhere, match="its server was stopped") as caught:
                async with client.session(browser="headless-shell") as session:
                    await asyncio.to_thread(server.stop)
                    await session.page.title()
            assert caught.value.reason == "shutdown"
    assert browsers(root) == []


@pytest.mark.usefixtures("no_pool")  # counts browsers while the server runs
def test_client_of_a_server_elsewhere_is_killed(root: Path) -> None:
    """The lease breaks with its process: the server releases its sessions after the grace."""
    with serving(root, "--lease-grace", str(LEASE_GRACE)) as server:
        with script(BROWSERCLOUD_URL=server.url, BROWSERCLOUD_API_KEY=server.key) as process:
            assert len(browsers(root)) == 1
            process.kill()
            process.wait(GONE_WITHIN)
        records = server.wait_for_sessions(ended=1, within=LEASE_GRACE + GONE_WITHIN)
        assert [record["releaseReason"] for record in records] == ["lease_lost"]
        assert browsers(root) == []


async def test_server_is_killed_and_started_again(root: Path, site: Site) -> None:
    """Its browsers and folders are gone at once; the next one starts clean on the same folder."""
    with serving(root, "--orphan-grace", "0") as first:
        async with BrowserCloud(first.url, api_key=first.key, release_timeout=2) as client:
            with pytest.raises(PlaywrightError) as caught:
                async with client.session(browser="headless-shell") as session:
                    await session.page.goto(site.url)
                    first.kill()
                    await session.page.wait_for_selector("#never")
            assert any("releasing" in note for note in caught.value.__notes__)
            await _until(lambda: not browsers(root) and not _session_folders(first), GONE_WITHIN)
    with serving(root) as second:
        async with BrowserCloud(second.url, api_key=second.key) as client:
            assert (await client.sessions.list(status="live")).total_count == 0
            await one_session(client)


def _session_folders(server: Serving) -> list[Path]:
    return list((server.data_dir / "sessions").glob("*"))


async def _until(condition: object, within: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not condition():  # type: ignore[operator]
        assert loop.time() < end
        await asyncio.sleep(0.02)
