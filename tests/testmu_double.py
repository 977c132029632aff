"""A double of TestMu's cloud: its three addresses, with the real protocols behind them.

`/playwright` leads to Playwright's own run-server, `/puppeteer` to a server of ours, `/wd/hub` to a
chromedriver. Every field that comes in is checked; what the vendor does not know is 400.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import playwright
from aiohttp import web

from browsercloud.browser import chromedriver
from browsercloud.browser.find import find
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser
from browsercloud.server.app import Server
from browsercloud.server.config import ServerConfig
from browsercloud.stores.memory import MemoryStore

USER, ACCESS_KEY = "the-user@example.com", "the-secret-access-key"
KEY = "the-key-behind-the-double"
SWITCHES = ["--no-sandbox", "--disable-gpu"]

OUTER = {"browserName": str, "browserVersion": str, "LT:Options": dict}
KNOWN: dict[str, type | tuple[type, ...]] = {
    "user": str,
    "accessKey": str,
    "platformName": str,
    "build": str,
    "name": str,
    "tunnel": bool,
    "tunnelName": str,
    "geoLocation": str,
    "region": str,
    "resolution": str,
    "headless": bool,
    "idleTimeout": int,
    "video": bool,
    "console": (bool, str),
    "network": bool,
    "playwrightClientVersion": str,
}
"""What stands in `LT:Options`, and of which kind it is."""


class Double:
    """The vendor. `asked` is what sessions were asked for, `live` which of them go on."""

    def __init__(self, root: Path) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.live: set[str] = set()
        self.full = False
        self.slow = 0.0
        """Seconds that the hub waits before it answers New Session."""

        self.agents: list[str] = []
        self._root = root
        self._stack = AsyncExitStack()
        self._playwright: str | None = None
        self._gateway: str | None = None
        self._hub: str | None = None
        self._drivers: dict[str, str] = {}
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def cdp_url(self) -> str:
        """What stands for `wss://cdp.lambdatest.com`."""
        return self.url.replace("http", "ws", 1)

    @property
    def hub_url(self) -> str:
        """What stands for `https://hub.lambdatest.com/wd/hub`."""
        return f"{self.url}/wd/hub"

    def environ(self) -> dict[str, str]:
        """The environment of somebody who has a plan."""
        return {
            "LT_USERNAME": USER,
            "LT_ACCESS_KEY": ACCESS_KEY,
            "LT_CDP_URL": self.cdp_url,
            "LT_HUB_URL": self.hub_url,
        }

    async def hang_up(self) -> None:
        """End every session, as a vendor does whose time is over."""
        for ws in list(self._sockets):
            await ws.close(code=4000, message=b"idle timeout")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Double]:
        """Listen on loopback; what is behind an address starts when it is first asked for."""
        app = web.Application()
        app.router.add_get("/playwright", self._on_playwright)
        app.router.add_get("/puppeteer", self._on_puppeteer)
        app.router.add_post("/wd/hub/session", self._on_new_session)
        app.router.add_route("*", "/wd/hub/session/{id}{rest:.*}", self._on_command)
        runner = web.AppRunner(app, shutdown_timeout=1, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            yield self
        finally:
            await self.hang_up()
            await runner.cleanup()
            await self._stack.aclose()

    # ------------------------------------------------------------------ what comes in

    def _problem(self, asked: Any) -> tuple[int, str] | None:
        if not isinstance(asked, dict) or asked.keys() != OUTER.keys():
            return 400, f"not these fields: {asked}"
        if not all(isinstance(asked[name], kind) for name, kind in OUTER.items()):
            return 400, "a field of the wrong kind"
        options = asked["LT:Options"]
        for name, value in options.items():
            if name not in KNOWN or not isinstance(value, KNOWN[name]):
                return 400, f"LT:Options.{name}"
        if "resolution" in options and not re.fullmatch(r"\d+x\d+", options["resolution"]):
            return 400, "LT:Options.resolution"
        if asked["browserName"] not in ("Chrome", "MicrosoftEdge", "pw-chromium"):
            return 400, "browserName"
        if (options.get("user"), options.get("accessKey")) != (USER, ACCESS_KEY):
            return 401, "Invalid username or access key"
        return (429, "parallel limit reached") if self.full else None

    async def _on_playwright(self, request: web.Request) -> web.StreamResponse:
        target = {
            "executablePath": str(find(Browser.HEADLESS_SHELL).path),
            "args": SWITCHES,
            "headless": True,
        }
        if self._playwright is None:
            self._playwright = await self._stack.enter_async_context(_run_server())
        query = f"browser=chromium&launch-options={quote(json.dumps(target))}"
        return await self._on_socket(request, f"{self._playwright}?{query}", playwright=True)

    async def _on_puppeteer(self, request: web.Request) -> web.StreamResponse:
        if self._gateway is None:
            engine = LocalEngine(self._root / "vendor")
            server = Server(ServerConfig(port=0, api_key=KEY), engine, MemoryStore())
            self._stack.push_async_callback(server.stop)
            await server.start()
            self._gateway = server.url.replace("http", "ws", 1)
        shell = quote(json.dumps({"browserName": "chrome-headless-shell"}))
        upstream = f"{self._gateway}/puppeteer?capabilities={shell}&apiKey={KEY}"
        return await self._on_socket(request, upstream, playwright=False)

    async def _on_socket(
        self, request: web.Request, upstream: str, *, playwright: bool
    ) -> web.StreamResponse:
        asked = json.loads(request.query["capabilities"])
        if problem := self._problem(asked):
            return web.Response(status=problem[0], text=problem[1])
        if playwright != ("playwrightClientVersion" in asked["LT:Options"]):
            return web.Response(status=400, text="playwrightClientVersion")
        agent = request.headers["User-Agent"]
        self.agents.append(agent)
        self.asked.append(asked)
        name = f"socket {len(self.asked)}"
        headers = {"User-Agent": agent}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.ws_connect(upstream, max_msg_size=0, compress=0) as browser,
        ):
            client = web.WebSocketResponse(max_msg_size=0)
            await client.prepare(request)
            self.live.add(name)
            self._sockets.add(client)
            ways = [
                asyncio.create_task(_pass(*way)) for way in ((client, browser), (browser, client))
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
                self._sockets.discard(client)
                await client.close()
        self.live.discard(name)
        return client

    async def _on_new_session(self, request: web.Request) -> web.Response:
        pair = base64.b64encode(f"{USER}:{ACCESS_KEY}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            return _w3c(401, "session not created", "Unauthorized")
        asked = (await request.json())["capabilities"]["alwaysMatch"]
        problem = self._problem(asked)
        if problem and problem[0] == 429:
            return _w3c(500, "session not created", "Parallel tests limit reached, queue is full")
        if problem:
            return _w3c(problem[0], "session not created", problem[1])
        self.asked.append(asked)
        if self._hub is None:
            self._hub = await self._stack.enter_async_context(_chromedriver())
        program = str(find(Browser.CHROMIUM).path)
        chrome = {
            "binary": program,
            "args": [*SWITCHES, "--headless", f"--user-data-dir={self._root}/hub"],
        }
        body = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": chrome}}}
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{self._hub}/session", json=body) as reply:
                value = (await reply.json(content_type=None))["value"]
        self._drivers[value["sessionId"]] = self._hub
        self.live.add(value["sessionId"])
        await asyncio.sleep(self.slow)
        # The vendor repeats what it was asked for.
        value["capabilities"]["LT:Options"] = asked["LT:Options"]
        return web.json_response({"value": value})

    async def _on_command(self, request: web.Request) -> web.Response:
        pair = base64.b64encode(f"{USER}:{ACCESS_KEY}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            return _w3c(401, "unknown error", "Unauthorized")
        wanted = request.match_info["id"]
        if wanted not in self.live:
            return _w3c(404, "invalid session id", "no such session")
        path = f"/session/{wanted}{request.match_info['rest']}"
        async with aiohttp.ClientSession() as http:
            call = http.request(
                request.method,
                self._drivers[wanted] + path,
                data=await request.read() or None,
                headers={"Content-Type": "application/json"},
            )
            async with call as reply:
                body = await reply.read()
        if request.method == "DELETE" and not request.match_info["rest"]:
            self.live.discard(wanted)
        return web.Response(status=reply.status, body=body, content_type="application/json")


def _w3c(status: int, error: str, message: str) -> web.Response:
    value = {"error": error, "message": message, "stacktrace": ""}
    return web.json_response({"value": value}, status=status)


async def _pass(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    with suppress(ConnectionError, aiohttp.ClientError):
        async for message in source:
            if message.type is aiohttp.WSMsgType.TEXT:
                await target.send_str(message.data)
            else:
                await target.send_bytes(message.data)


@asynccontextmanager
async def _program(*command: str, says: str) -> AsyncIterator[str]:
    """A program while it runs, and what it says in the group of the pattern *says*."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while True:
                line = (await process.stdout.readline()).decode()
                assert line, f"{command[0]} ended"
                if found := re.search(says, line):
                    break
        yield found[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started and not ended
        # Read to the end: a transport that is left open is a warning.
        await process.communicate()


@asynccontextmanager
async def _run_server() -> AsyncIterator[str]:
    driver = Path(playwright.__file__).parent / "driver"
    node, script = str(driver / "node"), str(driver / "package" / "cli.js")
    words = [node, script, "run-server", "--unsafe", "--host", "127.0.0.1", "--port", "0"]
    async with _program(*words, says=r"(ws://\S+)") as url:
        yield url


@asynccontextmanager
async def _chromedriver() -> AsyncIterator[str]:
    program = str(chromedriver.choose(Path(find(Browser.CHROMIUM).path)))
    async with _program(program, "--port=0", says=r"successfully on port (\d+)") as port:
        yield f"http://127.0.0.1:{port}"


PLAYWRIGHT_AGENT = f"Playwright/{version('playwright')}"
