"""`browsercloud run`, in a process of its own: streams, codes, signals, what is left after it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from browsercloud.cli import _apart
from tests import existing
from tests.conftest import Site
from tests.leaks import wait_until_nothing_is_left
from tests.nodes import node_modules
from tests.processes import alive
from tests.serving import KEY, Serving, shared_server

RUN = [sys.executable, "-m", "browsercloud", "run", "--browser", "headless-shell"]
PATIENCE = 30
OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="session")
def modules() -> Path:
    """The real packages of Node."""
    return node_modules()


@pytest.fixture
def folder(root: Path, modules: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the user's, on a machine without Playwright's and Puppeteer's browsers."""
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(root / "none"))
    monkeypatch.setenv("PUPPETEER_CACHE_DIR", str(root / "none"))
    project = root / "project"
    project.mkdir()
    (project / "node_modules").symlink_to(modules)
    return project


@pytest.fixture(scope="module")
def one_server() -> Iterator[Serving]:
    """`browsercloud serve`, for all tests here."""
    with shared_server("--lease-grace", "0.5") as server:
        yield server


@pytest.fixture
def server(one_server: Serving) -> Iterator[Serving]:
    """To see from outside what became of a session: none may be left."""
    one_server.next_test()
    yield one_server
    one_server.no_session_is_left()


@contextmanager
def running(
    folder: Path, *words: str, server: Serving | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The command, on *server* or on an embedded one; killed at the end if it still runs."""
    environ = dict(os.environ)
    if server is not None:
        environ |= {"BROWSERCLOUD_URL": server.url, "BROWSERCLOUD_API_KEY": KEY}
    with subprocess.Popen(
        [*RUN, *words],
        cwd=folder,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ran(folder: Path, *words: str, server: Serving | None = None) -> tuple[int, str, str]:
    """Run the command to its end: exit code and both outputs."""
    with running(folder, *words, server=server) as process:
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err


def line(process: subprocess.Popen[str]) -> str:
    """The next line of its output."""
    assert process.stdout is not None
    found = process.stdout.readline()
    assert found, process.communicate()
    return found.rstrip("\n")


def written(folder: Path, name: str, text: str) -> str:
    """The script, as a file in *folder*; returns its name there."""
    (folder / name).write_text(text)
    return name


def reasons(server: Serving, within: float = 10) -> list[str]:
    """Why the one session that there was has ended."""
    ended = server.wait_for_sessions(ended=1, within=within)
    return [record["releaseReason"] for record in ended]


@pytest.mark.parametrize("name", ["puppeteer.js", "async.py", "by_selenium.py"])
def test_a_script(folder: Path, site: Site, root: Path, name: str) -> None:
    """Embedded: output and code are the script's; one line says the session, without a token."""
    script = written(folder, name, existing.SCRIPTS.get(name, existing.SELENIUM))
    code, out, err = ran(folder, script, site.url)
    assert (0, "Home\n") == (code, out), err
    assert f"browsercloud: {name} runs in session " in err
    assert "token" not in err
    assert "launched no browser" not in err


def test_arguments_are_the_scripts(folder: Path, server: Serving) -> None:
    """What follows the script goes to it, whatever it looks like; its code comes back."""
    script = written(folder, "args.py", "import sys; print(sys.argv[1:]); sys.exit(5)")
    words = ["--timeout", "9", "-x", "--", "--help", ""]
    code, out, _ = ran(folder, "--timeout=60", script, *words, server=server)
    assert (5, f"{words}\n") == (code, out)
    assert ["user_requested"] == reasons(server)
    assert 60_000 == server.get("/v1/sessions")["sessions"][0]["timeout"]


def test_where_the_scripts_words_begin() -> None:
    """The command's options stand before the script; other commands are left alone."""
    assert ["run", "--", "a.js", "--help"] == _apart(["run", "a.js", "--help"])
    given = ["run", "--timeout", "5", "--node=n", "a.js", "-h"]
    assert [*given[:4], "--", *given[4:]] == _apart(given)
    for other in (["run", "--help"], ["run", "--", "a.js"], ["serve", "--port", "0"], []):
        assert other == [word for word in _apart(other) if word != "--" or "--" in other]


def test_output_and_input_as_they_come(folder: Path, server: Serving) -> None:
    """A line arrives while the script runs, and it is given what is typed then."""
    in_python = "print('name?'); print('hello', input())"
    in_node = (
        "console.log('name?'); process.stdin.once('data', (d) => "
        "{ console.log('hello', String(d).trim()); process.exit(); });"
    )
    for name, text in (("talk.py", in_python), ("talk.mjs", in_node)):
        with running(folder, written(folder, name, text), server=server) as process:
            assert "name?" == line(process)
            out, err = process.communicate("you\n", timeout=PATIENCE)
            assert (0, "hello you\n") == (process.returncode, out), err


def test_a_script_that_throws(folder: Path, server: Serving) -> None:
    """Its stack is on standard error, its code is 1, and the session is released."""
    text = existing.PUPPETEER_ESM.replace("process.argv[2]", "'http://127.0.0.1:1/'")
    code, out, err = ran(folder, written(folder, "throws.mjs", text), server=server)
    assert (1, "") == (code, out)
    assert "ERR_CONNECTION_REFUSED" in err or "ERR_UNSAFE_PORT" in err
    assert ["user_requested"] == reasons(server)


def test_a_script_that_never_launches(folder: Path, server: Serving) -> None:
    """That nothing ran in the session is said; the code stays the script's."""
    code, _, err = ran(folder, written(folder, "idle.js", ""), server=server)
    assert 0 == code
    assert "idle.js launched no browser" in err
    assert ["user_requested"] == reasons(server)


def test_a_session_that_ends_first(folder: Path, server: Serving) -> None:
    """Why the session was over before the script is said; the code stays the script's."""
    script = written(folder, "slow.py", "import sys; sys.stdin.read(); sys.exit(6)")
    with running(folder, "--timeout", "0.5", script, server=server) as process:
        assert ["timeout"] == reasons(server)
        _, err = process.communicate("", timeout=PATIENCE)
        assert 6 == process.returncode
        assert "had ended before the script: timeout" in err


@pytest.mark.parametrize(
    ("name", "text", "number", "code"),
    [
        ("ever.js", existing.FOR_EVER, signal.SIGTERM, 143),
        ("ever.py", existing.FOR_EVER_PY, signal.SIGINT, 130),
    ],
)
def test_interrupted(
    folder: Path, server: Serving, name: str, text: str, number: signal.Signals, code: int
) -> None:
    """A signal is the script's; then the session is released, and the code is a shell's."""
    with running(folder, written(folder, name, text), server=server) as process:
        script = int(line(process))
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        assert code == process.returncode
        assert not alive(script)
    assert ["user_requested"] == reasons(server)


def test_interrupted_twice(folder: Path, server: Serving) -> None:
    """A script that keeps a signal to itself is ended by the second one."""
    text = existing.FOR_EVER.replace(
        "(async", "process.on('SIGINT', () => console.log('no'));(async"
    )
    with running(folder, written(folder, "stubborn.js", text), server=server) as process:
        script = int(line(process))
        process.send_signal(signal.SIGINT)
        assert "no" == line(process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        assert 130 == process.returncode
        assert not alive(script)
    assert ["user_requested"] == reasons(server)


def test_its_own_answer_to_an_interrupt(folder: Path, server: Serving) -> None:
    """A script that handles the signal ends as it likes, with the session still there."""
    text = existing.FOR_EVER_PY.replace("page.wait_for_timeout(3600000)", "answer(page)") + (
        "    sys.exit(9)\n"
    )
    text = (
        "import sys, time\n"
        "def answer(page):\n"
        "    try: print('asleep', flush=True); time.sleep(3600)\n"
        "    except KeyboardInterrupt: print(page.evaluate('6 * 7'))\n" + text
    )
    with running(folder, written(folder, "answer.py", text), server=server) as process:
        while line(process) != "asleep":
            pass
        process.send_signal(signal.SIGINT)
        assert "42" == line(process)
        process.communicate(timeout=PATIENCE)
        assert 9 == process.returncode
    assert ["user_requested"] == reasons(server)


def test_ctrl_c_at_a_terminal(folder: Path, server: Serving) -> None:
    """The terminal gives it to the script, which gets it once."""
    text = existing.FOR_EVER.replace(
        "(async",
        "let n = 0; process.on('SIGINT', () => { n++; setTimeout(() => "
        "{ console.log(`interrupts: ${n}`); process.exit(4); }, 500); });(async",
    )
    script = written(folder, "terminal.js", text)
    ours, theirs = pty.openpty()
    environ = os.environ | {"BROWSERCLOUD_URL": server.url, "BROWSERCLOUD_API_KEY": KEY}
    process = subprocess.Popen(
        [sys.executable, "-c", OWN_TERMINAL, *RUN, script],
        cwd=folder,
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        _read_until(ours, r"^\S*\d+\S*\r\n")  # the script's pid, in colour
        os.write(ours, b"\x03")
        seen = _read_until(ours, r"interrupts: \d+\r\n")
        assert "interrupts: 1" in seen
        assert 4 == process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert ["user_requested"] == reasons(server)


def _read_until(terminal: int, pattern: str) -> str:
    text, end = "", time.monotonic() + PATIENCE
    while not re.search(pattern, text, re.MULTILINE):
        readable, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert readable, text
        text += os.read(terminal, 4096).decode()
    return text


def test_a_killed_script(folder: Path, server: Serving) -> None:
    """SIGKILL of the script is 137, and the session is released."""
    with running(folder, written(folder, "ever.js", existing.FOR_EVER), server=server) as process:
        os.kill(int(line(process)), signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        assert 137 == process.returncode
    assert ["user_requested"] == reasons(server)


def test_when_we_are_killed(folder: Path, server: Serving) -> None:
    """SIGKILL of the command ends the script as well, and the server releases the session."""
    name = written(folder, "ever.py", existing.FOR_EVER_PY)
    with running(folder, name, server=server) as process:
        script = psutil.Process(int(line(process)))
        process.kill()
        script.wait(10)
    assert ["lease_lost"] == reasons(server)


def test_when_we_are_killed_with_our_server(folder: Path, root: Path) -> None:
    """The same with an embedded server: neither a script nor a browser is left."""
    with running(folder, written(folder, "ever.js", existing.FOR_EVER)) as process:
        script = psutil.Process(int(line(process)))
        process.kill()
        script.wait(10)
    wait_until_nothing_is_left(root, 10)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.js"], "there is no script none.js"),
        (["--node", "./none", "ok.js"], "give the path of Node 20 or newer"),
        (["--url", "ftp://x", "ok.js"], "url: must be http://"),
    ],
)
def test_what_cannot_be_meant(folder: Path, words: list[str], says: str) -> None:
    """An error with the remedy, before anything is started."""
    written(folder, "ok.js", "")
    code, out, err = ran(folder, *words)
    assert (1, "") == (code, out)
    assert says in err
    assert "Traceback" not in err
    assert "runs in session" not in err


def test_a_server_that_is_not_there(folder: Path) -> None:
    """Nothing is run without a session."""
    script = written(folder, "ok.py", "print('ran')")
    code, out, err = ran(folder, "--url", "http://127.0.0.1:1", "--api-key", "k", script)
    assert (1, "") == (code, out)
    assert "http://127.0.0.1:1" in err
