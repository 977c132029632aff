"""`browsercloud serve` in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.leaks import MARK, wait_until_nothing_is_left

KEY = "a-key-for-tests"
SERVE = [sys.executable, "-m", "browsercloud", "serve"]


class Serving:
    """A running server: where it is, and how to end it."""

    def __init__(self, process: subprocess.Popen[str], url: str, data_dir: Path) -> None:
        self.process = process
        self.url = url
        self.key = KEY
        self.data_dir = data_dir
        self.known: set[str] = set()
        """Sessions of tests before this one."""

    def kill(self) -> None:
        """SIGKILL: it has no chance to clean up."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def get(self, path: str) -> Any:
        """The JSON at *path*."""
        request = urllib.request.Request(self.url + path, headers={"x-api-key": self.key})
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def wait_for_sessions(self, *, ended: int, within: float) -> list[dict[str, Any]]:
        """The records, once so many have ended and no other is left."""
        end = time.monotonic() + within
        while True:
            listed: list[dict[str, Any]] = self.get("/v1/sessions?limit=100")["sessions"]
            records = [record for record in listed if record["id"] not in self.known]
            over = [record for record in records if record["status"] in ("released", "failed")]
            if len(over) == ended == len(records):
                return over
            assert time.monotonic() < end, records
            time.sleep(0.02)

    def next_test(self) -> None:
        """What is listed now has nothing to do with the test that begins."""
        self.known = {each["id"] for each in self.get("/v1/sessions?limit=100")["sessions"]}

    def no_session_is_left(self, within: float = 5.0) -> None:
        """Return when no folder of a session is left, which goes when its processes have."""
        end = time.monotonic() + within
        while found := list((self.data_dir / "sessions").glob("*")):
            assert time.monotonic() < end, found
            time.sleep(0.02)


NO_POOL = ("--pool-size", "0")
"""For tests that count browsers and folders."""


@contextmanager
def shared_server(*arguments: str) -> Iterator[Serving]:
    """For all tests of a module, in a folder of its own; at the end nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="bc-", dir="/tmp"))
    try:
        with ExitStack() as stack:
            with pytest.MonkeyPatch.context() as environ:
                environ.setenv("TMPDIR", str(folder))
                environ.setenv(MARK, str(folder))
                server = stack.enter_context(serving(folder, *NO_POOL, *arguments))
            yield server
        wait_until_nothing_is_left(folder, 5)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serving(root: Path, *arguments: str, port: int = 0) -> Iterator[Serving]:
    """Start it, on a free port if none is given, with its data below *root*; stop it at the end."""
    data_dir = root / "data"
    log = root / "serve.log"
    with (
        log.open("a") as errors,
        subprocess.Popen(
            [*SERVE, "--port", str(port), "--data-dir", str(data_dir), *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"BROWSERCLOUD_API_KEY": KEY},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("listening on http://"), log.read_text()
            server = Serving(process, first.removeprefix("listening on ").strip(), data_dir)
            yield server
            if process.poll() is None:
                assert server.stop() == 0
        finally:
            process.kill()
