"""`client.puppeteer`: existing scripts in sessions."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from browsercloud import BrowserCloud, InvalidRequest, SessionTimedOut, UsageError
from browsercloud.client import scripts
from browsercloud.client.scripts import command_for
from browsercloud.local import LocalServer
from browsercloud.testing import IdleEngine
from tests import existing
from tests.conftest import Site
from tests.leaks import browsers
from tests.nodes import NODE, node_modules
from tests.processes import alive, until

SHELL = "headless-shell"


@pytest.fixture(scope="session")
def modules() -> Path:
    """The real packages of Node."""
    return node_modules()


@pytest.fixture
async def client() -> AsyncIterator[BrowserCloud]:
    """A client with an embedded server."""
    async with BrowserCloud(pool=0) as client:
        yield client


@pytest.fixture
async def idle() -> AsyncIterator[BrowserCloud]:
    """A client of a server whose sessions have no browser, for scripts that never reach one."""
    async with LocalServer(engine=IdleEngine()) as server:
        async with BrowserCloud(server.url, api_key=server.api_key) as client:
            yield client


@pytest.fixture
def folder(root: Path, modules: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the user's, on a machine without Playwright's and Puppeteer's browsers."""
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(root / "none"))
    monkeypatch.setenv("PUPPETEER_CACHE_DIR", str(root / "none"))
    project = root / "a project"
    project.mkdir()
    (project / "node_modules").symlink_to(modules)
    return project


class Outcome:
    """What a script ended with."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


async def run(client: BrowserCloud, script: Path, *args: str, **more: Any) -> Outcome:
    """Run *script* in a session of its own and read what it wrote."""
    out, err = script.with_suffix(".out"), script.with_suffix(".err")
    session = more.pop("session", None)
    options = {} if session is not None else {"browser": SHELL}
    with out.open("w") as stdout, err.open("w") as stderr:
        code = await client.puppeteer.run(
            script, session, args, stdout=stdout, stderr=stderr, **(options | more)
        )
    return Outcome(code, out.read_text(), err.read_text())


async def run_all(
    client: BrowserCloud, folder: Path, texts: Mapping[str, str], *args: str, **more: Any
) -> dict[str, Outcome]:
    """Run all of these, by name, at the same time, each in a session of its own."""
    paths = [written(folder, name, text) for name, text in texts.items()]
    runs = (run(client, path, *args, **more) for path in paths)
    return dict(zip(texts, await asyncio.gather(*runs), strict=True))


def written(folder: Path, name: str, text: str) -> Path:
    """The script, as a file."""
    path = folder / name
    path.write_text(text)
    return path


async def all_released(client: BrowserCloud, number: int) -> None:
    """There were so many sessions, and each has been released in order."""
    ids = [session.id for session in (await client.sessions.list()).sessions]
    for session_id in ids:
        await client.sessions.release(session_id, wait=True)  # again: until all of it is gone
    sessions = (await client.sessions.list()).sessions
    found = [(session.status, session.release_reason) for session in sessions]
    assert [("released", "user_requested")] * number == found


# ---------------------------------------------------------------------------------- running


async def test_scripts_run_unchanged(client: BrowserCloud, folder: Path, site: Site) -> None:
    """What a script launches is the session; its output and its end are its own."""
    found = await run_all(client, folder, existing.SCRIPTS, site.url, node=NODE)
    said = {name: (outcome.code, outcome.out, outcome.err) for name, outcome in found.items()}
    assert dict.fromkeys(found, (0, "Home\n")) == {name: one[:2] for name, one in said.items()}, (
        said
    )
    assert len(found) <= [path for path, _ in site.seen].count("/")
    await all_released(client, len(found))


async def test_older_node(client: BrowserCloud, folder: Path, site: Site) -> None:
    """A Node whose loader's hooks are on a thread of their own; the user's NODE_OPTIONS stay."""
    older = "require('module').registerHooks = undefined; globalThis.older = true;"
    written(folder, "older.cjs", older)
    texts = {
        name: existing.SCRIPTS[name] + "\nconsole.log(globalThis.older, process.execPath);"
        for name in ("puppeteer-core.mjs", "playwright.mjs")
    }
    env = {"NODE_OPTIONS": "--require ./older.cjs"}
    found = await run_all(client, folder, texts, site.url, node=NODE, env=env, cwd=folder)
    for outcome in found.values():
        assert (0, f"Home\ntrue {NODE}\n") == (outcome.code, outcome.out), outcome.err


async def test_the_runner_of_playwright_test(client: BrowserCloud, folder: Path) -> None:
    """The workers of a test runner are redirected as well."""
    text = """
    import { test, expect } from '@playwright/test';
    test('title', async ({ page }) => {
      await page.goto('data:text/html,<title>Home</title>');
      await expect(page).toHaveTitle('Home');
    });
    """
    written(folder, "one.spec.mjs", text)
    (folder / "run.cjs").symlink_to(folder / "node_modules" / "@playwright" / "test" / "cli.js")
    cli = folder / "run.cjs"
    outcome = await run(client, cli, "test", "--workers=1", "--reporter=line", cwd=folder)
    assert 0 == outcome.code, outcome.out
    assert "1 passed" in outcome.out


async def test_in_a_given_session(client: BrowserCloud, folder: Path, site: Site) -> None:
    """A script meets the cookies of the session it is given; and that session is released."""
    script = written(folder, "puppeteer.js", existing.PUPPETEER_CJS)
    async with client.session(browser=SHELL) as session:
        await session.context.add_cookies([{"name": "who", "value": "me", "url": site.url}])
        outcome = await run(client, script, site.url, session=session)
        assert (0, "Home\n") == (outcome.code, outcome.out), outcome.err
    assert ["who=me"] == [found["Cookie"] for path, found in site.seen if path == "/"]
    made = await client.sessions.create(browser=SHELL)
    assert 0 == (await run(client, script, site.url, session=made)).code
    await all_released(client, 2)


async def test_what_it_has_to_ignore_is_named(
    client: BrowserCloud, folder: Path, site: Site
) -> None:
    """Options that come too late are one line on standard error; so is a second launch."""
    text = "import puppeteer from 'puppeteer';\n" + "\n".join(
        f"const b{n} = await puppeteer.launch({options}); await b{n}.newPage();"
        "console.log((await b0.pages()).length); "
        for n, options in enumerate(["{headless: true, args: ['-x'], slowMo: 1}", "{}"])
    )
    text += "await b0.close(); await b1.close();"
    outcome = await run(client, written(folder, "two.mjs", text))
    lines = outcome.err.splitlines()
    assert [
        "browsercloud: the session's browser is running already; launch() ignores: headless, args",
        "browsercloud: launch() again: it is the same session, with the same cookies and tabs",
    ] == lines
    assert (0, "2\n3\n") == (outcome.code, outcome.out)


async def test_close_ends_what_the_script_opened(client: BrowserCloud, folder: Path) -> None:
    """Puppeteer's `close` leaves the browser to the session, without the script's own tabs."""
    text = """
    import puppeteer from 'puppeteer';
    for (let n = 0; n < 2; n++) {
      const browser = await puppeteer.launch();
      console.log((await browser.pages()).length, browser.browserContexts().length);
      await browser.newPage();
      await (await browser.createBrowserContext()).newPage();
      await browser.close();
      console.log(browser.connected);
    }
    """
    outcome = await run(client, written(folder, "twice.mjs", text))
    assert (0, "1 1\nfalse\n" * 2) == (outcome.code, outcome.out), outcome.err


async def test_what_no_session_is(idle: BrowserCloud, folder: Path) -> None:
    """Another browser, or another protocol, is an error of the script that says so."""
    playwright = "from playwright.sync_api import *\nwith sync_playwright() as p: "
    texts = {
        "firefox.js": "require('playwright').firefox.launch()",
        "product.js": "require('puppeteer').launch({browser: 'firefox'})",
        "bidi.js": "require('puppeteer').launch({protocol: 'webDriverBiDi'})",
        "server.js": "require('playwright').chromium.launchServer()",
        "webkit.py": playwright + "p.webkit.launch()",
        "gecko.py": "from selenium import webdriver\nwebdriver.Firefox()",
        "edge.py": "from selenium import webdriver\nwebdriver.Edge()",
    }
    for name, outcome in (await run_all(idle, folder, texts)).items():
        assert 1 == outcome.code, name
        assert "does not work in a session: " in outcome.err, name
    await all_released(idle, len(texts))


async def test_its_exit_code(idle: BrowserCloud, folder: Path) -> None:
    """The script's code comes back, 128 and the number for a signal; the session is gone."""
    scripts = {
        "throw.js": ("(async () => { throw new Error('enough') })()", 1, "enough"),
        "exit.mjs": ("process.exit(7)", 7, ""),
        "syntax.js": ("const = 1", 1, "SyntaxError"),
        "raise.py": ("raise SystemExit(3)", 3, ""),
        "signal.py": ("import os; os.kill(os.getpid(), 15)", 143, ""),
    }
    found = await run_all(idle, folder, {name: text for name, (text, *_) in scripts.items()})
    for name, (_, code, says) in scripts.items():
        assert code == found[name].code, name
        assert says in found[name].err, name
    await all_released(idle, len(scripts))


async def test_its_input(idle: BrowserCloud, folder: Path) -> None:
    """Standard input is the script's."""
    script = written(folder, "echo.py", "import sys; print(sys.stdin.read().upper())")
    given = written(folder, "in.txt", "hello")
    with given.open() as stdin:
        assert "HELLO\n" == (await run(idle, script, stdin=stdin)).out


async def test_the_token_is_in_the_environment_only(client: BrowserCloud, folder: Path) -> None:
    """No command line shows the token, and no error of a launch."""
    script = written(folder, "ever.js", existing.FOR_EVER)
    out = folder / "out"
    with out.open("w") as stdout:
        async with client.puppeteer.start(script, browser=SHELL, stdout=stdout) as running:
            await until(lambda: out.read_text().endswith("\n"), "it has launched")
            process = psutil.Process(int(out.read_text()))
            address = process.environ()["BROWSERCLOUD_WEBSOCKET_URL"]
            token = address.partition("token=")[2]
            assert running.session.websocket_url == address
            assert all(token not in word for word in process.cmdline())
    ended = await client.sessions.create(browser=SHELL)
    await client.sessions.release(ended.id)
    texts = {
        name: existing.SCRIPTS[name] for name in ("puppeteer.js", "playwright.mjs", "async.py")
    }
    texts["sync.py"] = existing.PYTHON_SYNC
    for name, outcome in (await run_all(client, folder, texts, session=ended)).items():
        assert 1 == outcome.code, name
        assert "Error" in outcome.err, name
        assert ended.websocket_url.partition("token=")[2] not in outcome.err, name


async def test_cancelled(client: BrowserCloud, folder: Path) -> None:
    """A cancelled run has ended its script, and released the session, before it is over."""
    script = written(folder, "ever.js", existing.FOR_EVER)
    out = folder / "ever.out"
    task = asyncio.create_task(run(client, script))
    await until(lambda: out.exists() and out.read_text().endswith("\n"), "it has launched")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int(out.read_text()))
    await all_released(client, 1)


async def test_a_script_that_does_not_want_to_end(
    client: BrowserCloud, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGTERM comes SIGKILL."""
    monkeypatch.setattr(scripts, "STOP_PATIENCE", 0.3)
    text = "process.on('SIGTERM', () => console.log('no'));" + existing.FOR_EVER
    script, out = written(folder, "ever.js", text), folder / "out"
    with out.open("w") as stdout:
        async with client.puppeteer.start(script, browser=SHELL, stdout=stdout):
            await until(lambda: out.read_text().endswith("\n"), "it has launched")
    pid, answer = out.read_text().split()
    assert "no" == answer
    assert not alive(int(pid))
    await all_released(client, 1)


async def test_longer_than_its_session(
    client: BrowserCloud, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that goes on when the session's time is over is ended, and the error says so."""
    monkeypatch.setattr(scripts, "WATCH_EVERY", 0.1)
    monkeypatch.setattr(scripts, "OUTLIVE_PATIENCE", 0.2)
    script = written(folder, "ever.js", existing.FOR_EVER)
    with pytest.raises(SessionTimedOut, match="the script went on"):
        await run(client, script, timeout=3)
    pid = (folder / "ever.out").read_text().strip()
    assert not pid or not alive(int(pid))


async def test_the_own_sitecustomize_and_children(client: BrowserCloud, folder: Path) -> None:
    """The environment's own `sitecustomize` runs too; a child process is redirected as well."""
    written(folder, "sitecustomize.py", "import sys; sys.own = True")
    child = written(folder, "child.py", existing.PYTHON_SYNC)
    text = "import subprocess, sys; print(sys.own, flush=True)\n"
    text += f"subprocess.run([sys.executable, {str(child)!r}, 'data:text/html,<title>x</title>'])"
    script = written(folder, "parent.py", text)
    outcome = await run(client, script, env={"PYTHONPATH": str(folder)})
    assert (0, "True\nx\n", "") == (outcome.code, outcome.out, outcome.err)


# --------------------------------------------------------------------------------- Selenium


async def test_selenium(client: BrowserCloud, folder: Path, site: Site) -> None:
    """`webdriver.Chrome` drives the session by its WebDriver; what was launch is left out."""
    text = existing.SELENIUM.replace("driver.quit()", "print(driver.capabilities)\ndriver.quit()")
    outcome = await run(client, written(folder, "by_selenium.py", text), site.url)
    assert 0 == outcome.code, outcome.err
    assert "Chrome() ignores: args" in outcome.err
    title, capabilities = outcome.out.splitlines()
    assert "Home" == title
    assert "'pageLoadStrategy': 'eager'" in capabilities
    (session,) = (await client.sessions.list()).sessions
    assert f"'browsercloud:sessionId': '{session.id}'" in capabilities
    await all_released(client, 1)


async def test_selenium_without_a_webdriver(idle: BrowserCloud, folder: Path) -> None:
    """Where the server has none, the script's error says so, and no chromedriver is started."""
    script = written(folder, "selenium_script.py", existing.SELENIUM)
    outcome = await run(idle, script, "http://x/", env={"BROWSERCLOUD_WEBDRIVER_URL": ""})
    assert 1 == outcome.code
    assert "Selenium does not work in a session: " in outcome.err


# ------------------------------------------------------------------------------------ usage


async def test_nothing_is_made_for_a_call_that_cannot_be_meant(
    root: Path, folder: Path, client: BrowserCloud
) -> None:
    """No such script, no such Node, a wrong option: an error before any session."""
    script = written(folder, "ok.js", "")
    with pytest.raises(UsageError, match="there is no script"):
        await client.puppeteer.run(folder / "none.js")
    with pytest.raises(UsageError, match="cannot be told from its name"):
        await client.puppeteer.run(written(folder, "script.rb", ""))
    with pytest.raises(UsageError, match="give the path of Node"):
        await client.puppeteer.run(script, node=folder / "no-node")
    with pytest.raises(UsageError, match="path of an interpreter"):
        await client.puppeteer.run(written(folder, "ok.py", ""), python=folder / "no-python")
    with pytest.raises(UsageError, match="no such option"):
        await client.puppeteer.run(script, colour="red")  # type: ignore[call-arg]
    with pytest.raises(InvalidRequest, match="timeout"):
        await client.puppeteer.run(script, timeout=-1)
    assert () == (await client.sessions.list()).sessions
    assert [] == browsers(root)


async def test_a_listed_session_opens_nothing(client: BrowserCloud, folder: Path) -> None:
    """A record without a token is refused before the script starts; so are options beside it."""
    script = written(folder, "ok.js", "")
    made = await client.sessions.create(browser=SHELL)
    listed = (await client.sessions.list()).sessions[0]
    with pytest.raises(UsageError, match="retrieve"):
        await client.puppeteer.run(script, listed)
    with pytest.raises(UsageError, match="leave session out"):
        await client.puppeteer.run(script, made, timeout=5)
    await client.sessions.release(made.id)


def test_which_node(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PATH's Node, else the one Playwright brings along, else an error with the remedy."""
    script = written(folder, "ok.js", "")
    here = written(folder, "node", "#!/bin/sh\n")
    here.chmod(0o755)
    assert str(here) == command_for(script, environ={"PATH": str(folder)}).words[0]
    here.unlink()
    bundled = command_for(script, environ={"PATH": str(folder)}).words[0]
    assert subprocess.run([bundled, "--version"], capture_output=True, check=True).stdout > b"v20"
    monkeypatch.setattr(scripts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="install Node"):
        command_for(script, environ={"PATH": str(folder)})
