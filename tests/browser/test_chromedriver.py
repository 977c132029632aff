"""Which chromedriver fits, and that it lives no longer than its browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from browsercloud.browser import chromedriver, find
from browsercloud.browser.chromedriver import Chromedrivers, candidates, choose
from browsercloud.engines.local import LocalEngine
from browsercloud.errors import LaunchFailed
from browsercloud.options import Adapter, Browser, SessionOptions
from tests.processes import alive, until


def program(path: Path, script: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def drivers(folder: Path) -> list[psutil.Process]:
    """Every chromedriver whose log is below *folder*."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or ()
        if any(word.startswith(f"--log-path={folder}") for word in words) and alive(process.pid):
            found.append(process)
    return found


@pytest.fixture
async def engine(root: Path) -> AsyncIterator[LocalEngine]:
    """An engine with the browsers of this machine."""
    engine = LocalEngine(root / "data")
    await engine.open()
    yield engine
    await engine.close()


def test_it_is_looked_for_beside_the_browser_first(root: Path) -> None:
    """Then on PATH; what cannot be run is none."""
    browser = program(root / "a/chrome", "")
    beside = program(root / "a/chromedriver", "")
    on_path = program(root / "b/chromedriver", "")
    (root / "c").mkdir()
    (root / "c/chromedriver").write_text("no program")
    environ = {"PATH": f"{root}/c:{root}/b"}
    assert [beside, on_path] == list(candidates(browser, environ=environ, platform="other"))


def test_the_one_with_the_same_major_version_is_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies before it."""
    browser = program(root / "a/chrome", "echo Chromium 156.0.1.2")
    program(root / "a/chromedriver", "echo ChromeDriver 155.0.1.2")
    fits = program(root / "b/chromedriver", "echo ChromeDriver 156.9.9.9")
    monkeypatch.setenv("PATH", f"{root}/b:{os.environ['PATH']}")
    assert fits == choose(browser)


def test_one_that_does_not_fit_is_named_with_the_remedy(root: Path) -> None:
    """Both versions, both paths, and what to do."""
    browser = program(root / "a/chrome", "echo Chromium 156.0.1.2")
    other = program(root / "b/driver", "echo ChromeDriver 120.0.5.5")
    with pytest.raises(LaunchFailed) as caught:
        choose(browser, other)
    for word in ("120.0.5.5", "156.0.1.2", str(browser), str(other), "browsercloud install"):
        assert word in caught.value.message


def test_none_at_all_says_how_to_get_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the version that is needed."""
    browser = program(root / "a/chrome", "echo Chromium 156.0.1.2")
    monkeypatch.setattr(chromedriver, "candidates", lambda browser: iter(()))
    with pytest.raises(LaunchFailed, match="needs chromedriver 156, .*browsercloud install"):
        choose(browser)


async def test_a_mismatch_is_told_before_a_browser_is_started(root: Path) -> None:
    """With adapter selenium; a session that is never driven by WebDriver does not care."""
    fake = program(root / "driver", "echo ChromeDriver 99.0.0.1")
    engine = LocalEngine(root / "data", chromedriver=fake)
    await engine.open()
    try:
        with pytest.raises(LaunchFailed, match="99.0.0.1"):
            await engine.start("a", SessionOptions(adapter=Adapter.SELENIUM))
        assert not (root / "data/sessions/a").exists()
        handle = await engine.start("b", SessionOptions(browser=Browser.HEADLESS_SHELL))
        with pytest.raises(LaunchFailed, match="99.0.0.1"):
            await engine.webdriver(handle)
    finally:
        await engine.close()


async def test_there_is_one_for_each_browser_and_it_ends_with_it(
    engine: LocalEngine, root: Path
) -> None:
    """Asked for at once or again: the same address; after the stop it is gone, with its folder."""
    handle = await engine.start("a", SessionOptions(browser=Browser.HEADLESS_SHELL))
    first, second = await asyncio.gather(engine.webdriver(handle), engine.webdriver(handle))
    assert first == second == await engine.webdriver(handle)
    assert 1 == len(drivers(root))
    await engine.stop(handle, grace=1)
    assert [] == drivers(root)
    with pytest.raises(LaunchFailed):
        await engine.webdriver(handle)


async def test_one_that_was_killed_is_replaced(engine: LocalEngine, root: Path) -> None:
    """The browser has not lost anything by it."""
    handle = await engine.start("a", SessionOptions(browser=Browser.HEADLESS_SHELL))
    first = await engine.webdriver(handle)
    (process,) = drivers(root)
    process.send_signal(signal.SIGKILL)
    await until(lambda: not alive(process.pid), "the chromedriver is dead")
    assert first != await engine.webdriver(handle)
    assert 1 == len(drivers(root))


async def test_one_that_does_not_start_says_why(root: Path) -> None:
    """Its last words; and nothing is left of it."""
    fake = program(
        root / "driver",
        'case "$1" in --version) echo ChromeDriver $VERSION;; *) echo no luck; exit 3;; esac',
    )
    found = find.find(Browser.HEADLESS_SHELL)
    fake.write_text(fake.read_text().replace("$VERSION", find.version(found.path) or ""))
    ends = Chromedrivers(fake)
    (root / "s").mkdir()
    with pytest.raises(LaunchFailed, match="no luck"):
        await ends.address("a", found.path, root / "s")
    await ends.stop("a")


async def test_a_port_that_is_taken_is_tried_again(root: Path) -> None:
    """The program itself tries only one; it is not the browser's fault."""
    fake = program(
        root / "driver",
        'case "$1" in --version) echo ChromeDriver $VERSION; exit;; esac\n'
        f"if mkdir {root}/once; then echo IPv4 port not available. Exiting...; exit 1; fi\n"
        "echo ChromeDriver was started successfully on port 1234.; exec sleep 60",
    )
    found = find.find(Browser.HEADLESS_SHELL)
    fake.write_text(fake.read_text().replace("$VERSION", find.version(found.path) or ""))
    ends = Chromedrivers(fake)
    (root / "s").mkdir()
    assert (await ends.address("a", found.path, root / "s")).startswith("http://127.0.0.1:1234/")
    await ends.stop("a")


async def test_a_stop_does_not_wait_for_a_start_that_hangs(root: Path) -> None:
    """It is killed, and whoever waits for it is told."""
    fake = program(
        root / "driver",
        'case "$1" in --version) echo ChromeDriver $VERSION;; *) sleep 60 & wait;; esac',
    )
    found = find.find(Browser.HEADLESS_SHELL)
    fake.write_text(fake.read_text().replace("$VERSION", find.version(found.path) or ""))
    ends = Chromedrivers(fake)
    (root / "s").mkdir()
    waiting = asyncio.create_task(ends.address("a", found.path, root / "s"))
    await until(lambda: drivers(root), "it runs")
    async with asyncio.timeout(5):
        await ends.stop("a")
        with pytest.raises(LaunchFailed):
            await waiting


async def test_a_wrapper_script_is_as_good(root: Path) -> None:
    """It is known by its group and its folder, not by its program."""
    real = shutil.which("chromedriver")
    assert real is not None
    wrapper = program(root / "wrapper", f'{real} "$@"')
    engine = LocalEngine(root / "data", chromedriver=wrapper)
    await engine.open()
    try:
        handle = await engine.start("a", SessionOptions(browser=Browser.HEADLESS_SHELL))
        await engine.webdriver(handle)
        assert 2 == len(drivers(root))
        await engine.stop(handle, grace=1)
        assert [] == drivers(root)
    finally:
        await engine.close()
