"""Descriptors are limited, and a server without any left waits quietly for the next."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from browsercloud.server import app
from browsercloud.server.descriptors import use_all_descriptors
from tests.server.conftest import KEY, StartCloud
from tests.serving import SERVE


def test_silent_connections_cannot_end_a_server(root: Path) -> None:
    """The limit is raised; when it is reached one line says so; once there is room all goes on."""
    log = root / "serve.log"
    limited = ["sh", "-c", 'ulimit -Sn 64; ulimit -Hn 128; exec "$@"', "sh"]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*limited, *SERVE, "--port", "0", "--data-dir", str(root / "data")],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"BROWSERCLOUD_API_KEY": KEY},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("listening on http://").strip()
            host, port = url.split(":")
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            assert re.search(r"Max open files +128 +128 ", limits)
            silent = [socket.create_connection((host, int(port))) for _ in range(200)]
            assert not answers(silent[-1], within=1.5)
            for one in silent[:-1]:
                one.close()
            assert answers(silent[-1], within=5)
            silent[-1].close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    lines = [line for line in log.read_text().splitlines() if "descriptors" in line]
    assert len(lines) == 1
    assert "Traceback" not in log.read_text()


def answers(connection: socket.socket, *, within: float) -> bool:
    """Whether the server answers there."""
    connection.settimeout(within)
    try:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(100).startswith(b"HTTP/1.1 ")
    except TimeoutError:
        return False


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_connection_without_a_whole_request_is_closed(
    monkeypatch: pytest.MonkeyPatch, start_cloud: StartCloud, said: bytes
) -> None:
    """One that says nothing, and one that never comes to the end of its headers."""
    monkeypatch.setattr(app, "KEEPALIVE_TIMEOUT", 0.1)
    cloud = await start_cloud()
    host, port = cloud.host.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(said)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_other_problems_of_the_loop_are_told_as_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only what is known to be harmless is kept quiet."""
    loop = asyncio.get_running_loop()
    use_all_descriptors(loop)
    loop.call_exception_handler({"message": "something else", "exception": OSError(5, "x")})
    assert "something else" in caplog.text
