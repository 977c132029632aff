"""What notebooks show, and that nothing is left of what their cells leave open: in real kernels."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import urllib.request
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from re import search
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from browsercloud import BrowserCloud, Session, SessionStatus, UsageError
from browsercloud.client.notebook import Apart, bundle
from browsercloud.client.sessions import Sessions
from tests.conftest import Site
from tests.leaks import browsers, stray_folders
from tests.serving import NO_POOL, Serving, serving

OPEN = """
import asyncio, time
from browsercloud import BrowserCloud
client = await BrowserCloud().open()
session = await client.session(name="<i>mine", timeout=60).open()
"""
EXAMPLE = Path(__file__).parents[2] / "examples" / "10_notebook.ipynb"
CRASH = """
async with client.session() as doomed:
    cdp = await doomed.browser.new_browser_cdp_session()
    await cdp.send("Browser.crash")
"""


class Notebook:
    """A notebook that is open, and the kernel that runs its cells."""

    def __init__(self, client: NotebookClient) -> None:
        self.client = client
        self.cells: list[Any] = client.nb.cells

    async def run(self, source: str) -> Any:
        """The outputs of a new cell, as the notebook keeps them."""
        self.cells.append(nbformat.v4.new_code_cell(source))
        await self.client.async_execute_cell(self.cells[-1], len(self.cells) - 1)
        return self.cells[-1].outputs

    async def do(self, source: str) -> None:
        """Run a cell that has nothing to show and must not fail."""
        outputs = await self.run(source)
        assert [each for each in outputs if each.output_type != "stream"] == []

    async def shown(self, source: str) -> dict[str, str]:
        """What the cell's last expression shows, by MIME type."""
        (output,) = await self.run(source)
        assert output.output_type == "execute_result", output
        return dict(output.data)

    async def interrupted(self, source: str) -> str:
        """The traceback of a cell that is interrupted when it has printed something."""
        running = asyncio.create_task(self.run(source))
        await until(lambda: self.cells[-1].source == source and self.cells[-1].outputs)
        await self.client.km.interrupt_kernel()
        await running
        return traceback(self.cells[-1].outputs)

    def signal(self, number: signal.Signals) -> None:
        """Send it to the kernel and all that belongs to its group."""
        os.killpg(self.client.km.provisioner.pgid, number)

    async def restart(self) -> None:
        """What the menu's entry does."""
        await self.client.km.restart_kernel()
        await self.client.kc.wait_for_ready(timeout=20)


@asynccontextmanager
async def notebook(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Notebook]:
    """A new notebook in a kernel of its own."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(root / name.lower()))
    client = NotebookClient(nbformat.v4.new_notebook(), allow_errors=True, timeout=20)
    async with client.async_setup_kernel():
        yield Notebook(client)


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that waits one second for a client that is gone; clients find it by themselves."""
    with serving(root, *NO_POOL, "--lease-grace", "1") as server:
        monkeypatch.setenv("BROWSERCLOUD_URL", server.url)
        monkeypatch.setenv("BROWSERCLOUD_API_KEY", server.key)
        yield server


def traceback(outputs: Any) -> str:
    """Of a cell that failed."""
    (error,) = [each for each in outputs if each.output_type == "error"]
    return "\n".join(error.traceback)


async def until(condition: Callable[[], object]) -> None:
    """Wait for it, ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


def endings(server: Serving) -> dict[str | None, int]:
    """How many sessions ended by what; `None` for those that live."""
    reasons = [each.get("releaseReason") for each in server.get("/v1/sessions")["sessions"]]
    return {reason: reasons.count(reason) for reason in reasons}


async def test_a_notebook_on_a_server(
    root: Path, site: Site, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows what it has; standing still loses no session, and its end leaves none."""
    async with notebook(root, monkeypatch) as cells:
        await cells.do(OPEN)
        await cells.do(f"await session.page.goto({site.url!r});")
        await it_shows_the_live_view(cells, server)
        await it_shows_tables(cells)
        await it_shows_evidence(cells)
        await a_hung_page_holds_no_cell_up(cells)
        await a_blocked_loop_loses_nothing(cells, server)
        await an_interrupt_ends_what_its_cell_began(cells, server)
        await a_closed_laptop_loses_nothing_and_keeps_nothing(cells, server)
        cells.signal(signal.SIGKILL)
        await until(lambda: None not in endings(server))
        assert endings(server)["lease_lost"] == 1
        server.no_session_is_left()


async def it_shows_the_live_view(cells: Notebook, server: Serving) -> None:
    """The viewer by a link that opens nothing else, with a still picture inside it."""
    shown = await cells.shown("session")
    assert b64decode(shown["image/jpeg"]).startswith(b"\xff\xd8")
    html = shown["text/html"]
    assert f"data:image/jpeg;base64,{shown['image/jpeg'].strip()}".replace("\n", "") in html
    assert "aspect-ratio:1280/720" in html
    assert "<i>" not in html
    found = search(r'<object [^>]*data="([^"]+)"', html)
    assert found is not None
    url = unescape(found[1])
    assert url.startswith(server.url)
    assert "token=reach-" in url
    with urllib.request.urlopen(url, timeout=10) as page:
        assert b"<canvas" in page.read()
    ((told,),) = [await cells.run("print(session.websocket_url.partition('token=')[2])")]
    assert told.text.strip()
    assert told.text.strip() not in str(shown)
    assert server.key not in str(shown)


async def it_shows_tables(cells: Notebook) -> None:
    """A record and a list are tables, and text where there is no HTML."""
    shown = await cells.shown("session.info")
    assert "<th" in shown["text/html"]
    assert "&lt;i&gt;mine" in shown["text/html"]
    shown = await cells.shown("await client.sessions.list()")
    assert "<td" in shown["text/html"]
    assert "&lt;i&gt;mine" in shown["text/html"]
    first, second, count = shown["text/plain"].splitlines()
    assert ["id", "status"] == first.split()[:2]
    assert "<i>mine" in second
    assert count == "1 of 1 sessions."


async def it_shows_evidence(cells: Notebook) -> None:
    """An error tells what is known of the end, and so does the session itself afterwards."""
    told = traceback(await cells.run(CRASH))
    assert "BrowserCrashed" in told
    assert search(r"ended by: SIG|exit code: ", told)
    assert "was open: about:blank" in told
    shown = await cells.shown("doomed")
    assert "browser_crashed" in shown["text/html"]


async def a_hung_page_holds_no_cell_up(cells: Notebook) -> None:
    """Without a picture the view is shown all the same, within two seconds."""
    await cells.do(
        "hung = await client.session().open()\n"
        "await hung.page.evaluate('setTimeout(() => { for (;;); })'); await asyncio.sleep(0.2)"
    )
    begun = time.monotonic()
    shown = await cells.shown("hung")
    assert time.monotonic() - begun < 2
    assert "<object" in shown["text/html"]
    assert "image/jpeg" not in shown
    assert "released" in (await cells.shown("await hung.release(wait=True)"))["text/plain"]


async def a_blocked_loop_loses_nothing(cells: Notebook, server: Serving) -> None:
    """`time.sleep` for longer than the server waits for a client that is gone."""
    await cells.do("time.sleep(2)")
    assert (await cells.shown("await session.page.title()"))["text/plain"] == "'Home'"
    assert endings(server)[None] == 1


async def an_interrupt_ends_what_its_cell_began(cells: Notebook, server: Serving) -> None:
    """Whether the cell waits, blocks or is still being served; a session of other cells goes on."""
    before = endings(server)["user_requested"]
    waits = "async with client.session():\n    print('in'); await asyncio.sleep(60)"
    assert "CancelledError" in await cells.interrupted(waits)
    assert "CancelledError" in await cells.interrupted("print('in'); await client.session().open()")
    assert "KeyboardInterrupt" in await cells.interrupted("print('in'); time.sleep(60)")
    await until(lambda: endings(server)[None] == 1)
    assert endings(server)["user_requested"] > before
    assert (await cells.shown("await session.page.title()"))["text/plain"] == "'Home'"


async def a_closed_laptop_loses_nothing_and_keeps_nothing(cells: Notebook, server: Serving) -> None:
    """A kernel that stands still keeps its sessions, and they still end on time."""
    await cells.do("short = await client.session(timeout=1).open()")
    cells.signal(signal.SIGSTOP)
    await asyncio.sleep(2)  # longer than the server waits for a client that is gone
    assert endings(server)["timeout"] == 1
    cells.signal(signal.SIGCONT)
    assert (await cells.shown("await session.page.title()"))["text/plain"] == "'Home'"
    shown = await cells.shown("short")
    assert "timeout of 1 s was over" in shown["text/html"]
    assert "already" in (await cells.shown("await short.release()"))["text/plain"]


async def test_a_notebook_of_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the server inside the kernel the example runs; restarted and killed, all is gone."""
    async with notebook(root, monkeypatch) as cells:
        outputs = [await cells.run(cell.source) for cell in example() if cell.cell_type == "code"]
        assert "error" not in [each.output_type for output in outputs for each in output]
        assert b64decode(outputs[1][0].data["image/jpeg"]).startswith(b"\xff\xd8")
        assert "'Hello'" in outputs[2][0].data["text/plain"]
        assert "<td" in outputs[3][0].data["text/html"]
        await until(lambda: not browsers(root) and not stray_folders(root))
        for end in (cells.restart, lambda: cells.client.km.shutdown_kernel(now=True)):
            await cells.do(OPEN)
            assert browsers(root)
            await end()
            await until(lambda: not browsers(root) and not stray_folders(root))


def example() -> Any:
    """The cells of the example; what it was run with last is not kept in it."""
    cells = nbformat.read(EXAMPLE, as_version=4).cells
    assert [] == [output for cell in cells for output in cell.get("outputs", [])]
    return cells


@asynccontextmanager
async def hangs() -> AsyncIterator[Sessions]:
    """A server that accepts and says nothing."""
    await asyncio.sleep(60)
    yield NotImplemented


@asynccontextmanager
async def refuses() -> AsyncIterator[Sessions]:
    """What cannot be asked, with HTML in why."""
    raise UsageError("<b>closed</b>")
    yield


@pytest.mark.parametrize(("apart", "said"), [(hangs, "within 1.5 s"), (refuses, "&lt;b&gt;")])
async def test_a_server_that_does_not_answer_holds_no_cell_up(apart: Apart, said: str) -> None:
    """The record that is known is shown, with what went wrong, within two seconds."""
    created = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    known = Session(id="0", status=SessionStatus.LIVE, created_at=created)
    begun = time.monotonic()
    shown = bundle("<LiveSession>", known, apart)
    assert time.monotonic() - begun < 2
    assert {"text/plain", "text/html"} == set(shown)
    assert said in shown["text/html"]
    assert "2026-01-02 03:04:05 UTC" in shown["text/html"]
    await until(
        lambda: "what a notebook shows" not in [each.name for each in threading.enumerate()]
    )


async def test_what_was_never_open_is_text() -> None:
    """There is nothing else to show of it, and nobody to ask."""
    session = BrowserCloud().session()
    assert {"text/plain": repr(session)} == session._repr_mimebundle_()
