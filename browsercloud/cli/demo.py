"""`browsercloud demo`: one live session on an embedded cloud, shown as it happens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from browsercloud.client.client import BrowserCloud
from browsercloud.errors import UsageError
from browsercloud.options import Browser

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>It works: a browser of your own</title><style>
  html { color-scheme: light dark; font: 18px/1.6 system-ui, sans-serif }
  body { margin: 0; min-height: 100vh; display: grid; place-content: center; text-align: center;
         background: linear-gradient(135deg, #10243e, #1f6f8b); color: #fff }
  h1 { font-size: 2.6rem; margin: 0 0 .3em } code { background: #0004; padding: .4em .8em;
  border-radius: .4em; display: inline-block; max-width: 46rem } p { margin: .3em; opacity: .9 }
</style></head><body><main><h1>It works.</h1>
<p>This page is open in a Chromium that belongs to one session alone.</p>
<p><code id="agent"></code></p></main>
<script>
  document.getElementById("agent").textContent =
    `${innerWidth} × ${innerHeight} · ${navigator.userAgent}`
</script></body></html>
"""


def demo(
    url: str | None = None,
    /,
    *,
    browser: Browser = Browser.CHROMIUM,
    screenshot: Path = Path("demo.png"),
    hold: Annotated[float, Parameter(help="Keep it open for so many seconds, to look.")] = 0,
) -> None:
    """Open a live session, go to a page, take a screenshot, release it.

    On an embedded cloud, or on the server that BROWSERCLOUD_URL names.

    Parameters
    ----------
    url
        Where to go; a small page of the demo's own by default.
    browser
        Which browser to run.
    screenshot
        Where to save the picture.
    """
    with _page_of_our_own() as own:
        asyncio.run(_show(url or own, browser, screenshot, hold))


async def _show(url: str, browser: Browser, screenshot: Path, hold: float) -> None:
    steps = _Steps(Console(highlight=False))
    client = BrowserCloud()
    steps.begin(f"Using {client.config.url}" if client.config.url else "Starting an embedded cloud")
    async with client:
        await client.sessions.list(limit=1)  # it is there, and the key is the right one
        steps.done("Cloud", client.url)
        steps.begin("Starting a Chromium and connecting to it")
        async with client.session(browser=browser, name="demo") as session:
            steps.done("Session", session.id)
            steps.more("WebSocket URL", session.websocket_url)
            steps.more("Debug URL", session.debug_url)
            steps.more("Viewer URL", session.session_viewer_url)
            steps.begin(f"Going to {url}")
            try:
                await session.page.goto(url)
            except Exception as error:  # Playwright's own, which is not imported here
                raise UsageError(f"cannot go to {url}: {str(error).splitlines()[0]}") from None
            steps.done("Title", await session.page.title())
            steps.begin("Taking a screenshot")
            await session.page.screenshot(path=screenshot)
            steps.done("Screenshot", str(screenshot))
            if hold > 0:
                steps.begin(f"Open for {hold:g} s more: look at the viewer URL")
                await asyncio.sleep(hold)
            steps.begin("Releasing")
        steps.done("Released", "browser, processes and folders are gone")
        steps.begin("Stopping the cloud")
    steps.end()


class _Steps:
    """One line for each thing done, with the time it took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("")
        self._first = self._begun = time.perf_counter()
        console.print(Panel(Text("browsercloud demo", style="bold"), expand=False, style="cyan"))

    def begin(self, what: str) -> None:
        self._begun = time.perf_counter()
        self._status.update(f"{what} …")
        self._status.start()

    def done(self, label: str, value: str) -> None:
        self._status.stop()
        took = time.perf_counter() - self._begun
        self._line(Text("✔ ", "green"), label, f"{took:6.2f} s", value)

    def more(self, label: str, value: str) -> None:
        self._line(Text("  "), label, " " * 8, value)

    def end(self) -> None:
        self._status.stop()
        self._console.print(
            f"[green]✔[/] Done in {time.perf_counter() - self._first:.2f} s. "
            "Nothing of it is left running. To look around in it: browsercloud demo --hold 60"
        )

    def _line(self, mark: Text, label: str, took: str, value: str) -> None:
        shown = Text(value, f"link {value}" if value.startswith("http") else "")
        line = Text.assemble(mark, (f"{label:<14}", "bold"), (f" {took}  ", "dim"), shown)
        self._console.print(line, soft_wrap=True)


@contextmanager
def _page_of_our_own() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, name="demo page", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the demo's own lines are what one looks at."""
