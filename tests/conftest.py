"""Every test runs in a folder of its own and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.leaks import MARK, stray_tasks, wait_until_nothing_is_left

GONE_WITHIN = 5.0
"""Seconds within which everything a test started has to be gone after it."""


POOLS = ("BROWSERCLOUD_POOL", "BROWSERCLOUD_POOL_SIZE")


@pytest.fixture(autouse=True)
def root(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The test's own folder for temporary files; after the test nothing may be left of it."""
    # Now, as `tmp_path` would otherwise make it below the folder of whichever test is the first.
    tmp_path_factory.getbasetemp()
    # Short: Chromium puts a socket below it, and the path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="bc-", dir="/tmp" if sys.platform != "win32" else None))
    for name in list(os.environ):
        if name.startswith(("BROWSERCLOUD_", "LT_")):
            monkeypatch.delenv(name)
    for name in POOLS:  # a browser that nobody takes takes its time from the next test
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv(MARK, str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    try:
        yield folder
        wait_until_nothing_is_left(folder, GONE_WITHIN)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def pool(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clouds start browsers ahead, as they do for users."""
    for name in POOLS:
        monkeypatch.delenv(name)


@pytest.fixture
def no_pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For those that count browsers, in a file where all others have a `pool`."""
    request.getfixturevalue("pool")
    for name in POOLS:
        monkeypatch.setenv(name, "0")


@pytest.fixture(autouse=True)
async def no_task_is_left(root: Path) -> AsyncIterator[None]:
    """After the test no task runs on its loop."""
    before = set(stray_tasks())
    yield
    end = asyncio.get_running_loop().time() + GONE_WITHIN
    while found := set(stray_tasks()) - before:
        assert asyncio.get_running_loop().time() < end, f"tasks left: {found}"
        await asyncio.sleep(0.01)


class Site(ThreadingHTTPServer):
    """Pages for browsers to go to: `pages` maps a path to HTML, `seen` records the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, str] = {"/": "<!doctype html><title>Home</title><h1>Home</h1>"}
        self.scripts: dict[str, str] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        """`http://localhost:PORT`; localhost counts as secure, so service workers run."""
        return f"http://localhost:{self.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Site]:
        """Serve in the background while in the block."""
        thread = threading.Thread(target=self.serve_forever, name="site", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append((self.path, dict(self.headers)))
        script = self.server.scripts.get(path)
        body = script if script is not None else self.server.pages.get(path)
        self.send_response(404 if body is None else 200)
        kind = "text/javascript" if script is not None else "text/html; charset=utf-8"
        self.send_header("Content-Type", kind)
        content = (body or "").encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(ConnectionError):  # a browser that ends does not wait for its page
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[Site]:
    """A web site on loopback."""
    with Site().running() as server:
        yield server
