"""A live session in JupyterLab, in a real browser: python -m tests.jupyterlab [FOLDER].

Not part of the suite: JupyterLab is large. `nox -s jupyterlab` installs it and runs this. What the
pages looked like is kept in the folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
from playwright.async_api import Frame, Locator, Page, expect

from browsercloud import BrowserCloud
from tests.conftest import Site
from tests.leaks import MARK, wait_until_nothing_is_left

FORM = """<!doctype html><title>Form</title><style>
input { position: absolute; left: 100px; top: 100px; width: 400px; height: 60px; font-size: 2em }
</style><h1>Reach in</h1><input>"""

OPEN = """from browsercloud import BrowserCloud
client = await BrowserCloud().open()
session = await client.session(name="in JupyterLab").open()
await session.page.goto({url!r})
session"""
READ = "await session.page.input_value('input')"
CLOSE = "await session.release()\nawait client.close()\nsession.info"


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """Where it listens, with *folder* as its root. Whoever can reach it needs no password."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    options += ["--IdentityProvider.token=", "--ServerApp.password=", f"--notebook-dir={folder}"]
    url = f"http://127.0.0.1:{port}"
    said = folder / "lab.log"
    with said.open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_own(folder))
    try:
        end = time.monotonic() + 60
        while not listens(port):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def _own(folder: Path) -> dict[str, str]:
    names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    own = {f"JUPYTER_{name}": str(folder / "jupyter" / name.lower()) for name in names}
    return os.environ | own | {"IPYTHONDIR": str(folder / "ipython")}


async def look(lab: str, folder: Path, pictures: Path, site: Site) -> None:
    """Run the notebook's cells as a person does, reach in, and open what was saved."""
    cells = [nbformat.v4.new_code_cell(text) for text in (OPEN.format(url=site.url), READ, CLOSE)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "live.ipynb")
    async with BrowserCloud() as client:
        async with client.session(dimensions=(1300, 1000), timeout=180) as session:
            page = session.page
            page.set_default_timeout(30_000)
            expect.set_options(timeout=20_000)
            try:
                await walk(page, f"{lab}/lab/tree", folder, pictures)
            finally:
                await page.screenshot(path=pictures / "lab_last.png")


async def walk(page: Page, tree: str, folder: Path, pictures: Path) -> None:
    """Run the cells, reach into what the first one shows, come back when it is over."""
    await page.goto(f"{tree}/live.ipynb")
    await page.get_by_text("| Idle").wait_for()
    await run_cell(page, 0)
    await reach_in(await the_viewer(page))
    await page.screenshot(path=pictures / "lab_live.png")
    await run_cell(page, 1)
    await expect(output(page, 1)).to_contain_text("'hello from here'")
    await run_cell(page, 2)
    await expect(output(page, 2)).to_contain_text("user_requested")
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+s")
    await saved(folder / "live.ipynb")
    await page.reload()
    await shows_the_still_picture(page)
    await page.screenshot(path=pictures / "lab_over.png")
    untrusted(folder)
    await page.goto(f"{tree}/untrusted.ipynb?reset")
    await page.get_by_text("sent by mail").wait_for()
    await shows_the_still_picture(page)
    assert await page.locator(".jp-OutputArea object").count() == 0


def output(page: Page, place: int) -> Locator:
    """What a cell shows."""
    return page.locator(".jp-CodeCell").nth(place).locator(".jp-OutputArea-output")


async def run_cell(page: Page, place: int) -> None:
    """Click into it and press Shift+Enter, again if JupyterLab has lost that while it began."""
    cell = page.locator(".jp-CodeCell").nth(place)
    prompt = cell.locator(".jp-InputPrompt").first
    async with asyncio.timeout(30):
        while await prompt.inner_text() == "[ ]:":
            await cell.locator(".cm-content").click()
            await page.keyboard.press("Shift+Enter")
            with suppress(AssertionError):
                await expect(prompt).not_to_have_text("[ ]:", timeout=3000)


async def the_viewer(page: Page) -> Frame:
    """The frame inside the output, once it shows a picture."""
    await page.locator(".jp-OutputArea object").wait_for()
    async with asyncio.timeout(10):
        while not (viewers := [each for each in page.frames if "/viewer?" in each.url]):
            await asyncio.sleep(0.05)
    (viewer,) = viewers
    await viewer.wait_for_selector("canvas[data-frames]")
    return viewer


async def reach_in(viewer: Frame) -> None:
    """Click the input that the canvas shows, and type."""
    box = await viewer.evaluate(
        "() => { const c = document.querySelector('canvas');"
        " const r = c.getBoundingClientRect(); return [r.width / 1280, r.height / 720]; }"
    )
    await viewer.locator("canvas").click(position={"x": 200 * box[0], "y": 130 * box[1]})
    await viewer.page.keyboard.type("hello from here")
    await asyncio.sleep(0.5)  # for the picture of it only: the cell that reads it proves it


async def saved(path: Path) -> None:
    """Return when the file holds the outputs."""
    async with asyncio.timeout(20):
        while "user_requested" not in path.read_text():
            await asyncio.sleep(0.1)
    outputs = json.loads(path.read_text())["cells"][0]["outputs"]
    (shown,) = [each["data"] for each in outputs if "data" in each]
    assert {"text/plain", "text/html", "image/jpeg"} == set(shown)


async def shows_the_still_picture(page: Page) -> None:
    """The picture that was kept is there to see, in place of the viewer."""
    picture = page.locator(".jp-OutputArea img").first
    await picture.wait_for()
    width = await picture.evaluate("async img => { await img.decode(); return img.naturalWidth; }")
    assert width == 1280, width


def untrusted(folder: Path) -> None:
    """The same notebook as somebody else gets it: nobody has signed it there."""
    text = (folder / "live.ipynb").read_text().replace("in JupyterLab", "sent by mail")
    (folder / "untrusted.ipynb").write_text(text)


def main() -> None:
    """Everything in a folder that is gone afterwards, but for the pictures."""
    pictures = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    pictures.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bc-", dir="/tmp"))
    os.environ |= {"TMPDIR": str(folder), MARK: str(folder)}
    tempfile.tempdir = None
    site = Site()
    site.pages["/"] = FORM
    try:
        with site.running(), jupyterlab(folder) as lab:
            asyncio.run(look(lab, folder, pictures, site))
        wait_until_nothing_is_left(folder, 10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
