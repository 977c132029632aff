"""`browsercloud serve`, in a process of its own."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from browsercloud.cli import main
from browsercloud.cli.serve import serve
from browsercloud.server.config import SETTINGS
from browsercloud.stores.sqlite import FILE_NAME
from tests.serving import KEY, serving

PATIENCE = 20
SHELL = {"browser": "headless-shell"}


@contextmanager
def running(root: Path, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """The command, its data below *root*; killed at the end if it still runs."""
    command = [sys.executable, "-m", "browsercloud", "serve", "--data-dir", str(root / "data")]
    with subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environ,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def address(process: subprocess.Popen[str]) -> str:
    """Where it listens, as its first line says."""
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("listening on "), process.communicate()
    return first.removeprefix("listening on ").rstrip("\n")


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code and the rest of both outputs."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def ask(url: str, key: str | None = None, method: str = "GET", **body: Any) -> Any:
    """Status and JSON."""
    request = urllib.request.Request(
        url,
        method=method,
        data=json.dumps(body).encode() if body else None,
        headers={"x-api-key": key} if key else {},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_key_is_made_once_and_only_its_hash_is_kept(root: Path) -> None:
    """The first start prints it on the second line; later starts know it and print none."""
    with running(root, "--port", "0") as process:
        url = address(process)
        assert process.stdout is not None
        key = process.stdout.readline().split()[-1]
        assert key.startswith("bc_")
        assert len(key) > 40
        assert ask(f"{url}/v1/sessions", key)[0] == 200
        assert ask(f"{url}/v1/sessions")[0] == 401
        process.terminate()
        code, out, err = ended(process)
        assert (code, out) == (0, "")
        assert key not in err
    kept = root / "data" / "secrets.json"
    for file in kept.parent.iterdir():
        assert file.is_dir() or key.encode() not in file.read_bytes()
    assert "keyHash" not in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with running(root, "--port", "0") as process:
        assert ask(f"{address(process)}/v1/sessions", key)[0] == 200
        process.terminate()
        assert ended(process)[:2] == (0, "")


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_releases_every_session(root: Path, number: signal.Signals) -> None:
    """Exit code 0, and no browser is left: the leak check after each test looks."""
    with running(root, "--port", "0", BROWSERCLOUD_API_KEY="k") as process:
        url = address(process)
        status, record = ask(f"{url}/v1/sessions", "k", "POST", browser="headless-shell")
        assert (status, record["status"]) == (201, "live")
        process.send_signal(number)
        code, _, err = ended(process)
    assert (code, "releasing (shutdown)" in err) == (0, True)
    assert "Traceback" not in err


def test_a_second_signal_does_not_wait(root: Path) -> None:
    """In order if that was quick enough, else at once; either way nothing is left."""
    with running(root, "--port", "0", BROWSERCLOUD_API_KEY="k") as process:
        url = address(process)
        assert ask(f"{url}/v1/sessions", "k", "POST", browser="headless-shell")[0] == 201
        process.terminate()
        assert process.stderr is not None
        while "stopping" not in process.stderr.readline():
            continue
        process.terminate()
        assert ended(process)[0] in (0, -signal.SIGTERM)


def test_a_signal_while_it_starts_ends_it(root: Path) -> None:
    """Before it listens: in order if its handler stands already, and nothing is announced."""
    for _ in range(3):
        with running(root, "--port", "0", BROWSERCLOUD_API_KEY="k") as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.3)  # somewhere between the interpreter's start and listening
            process.terminate()
            code, _, err = ended(process)
        assert code in (0, -signal.SIGTERM)
        assert "Traceback" not in err


def test_a_port_in_use_is_one_clear_line(root: Path) -> None:
    """Exit code 1, the port and the remedy, nothing on standard output and no key made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running(root, "--port", str(port)) as process:
            code, out, err = ended(process)
    assert (code, out) == (1, "")
    assert err.strip().splitlines()[-1].startswith(f"port {port} on 127.0.0.1 is in use")
    assert "Traceback" not in err
    assert not (root / "data" / "secrets.json").exists()


def test_ipv6_is_shown_in_brackets(root: Path) -> None:
    """`http://[::1]:PORT`, and it answers there."""
    with running(root, "--port", "0", "--host", "::1", "--no-auth") as process:
        url = address(process)
        assert url.startswith("http://[::1]:")
        assert ask(f"{url}/v1/sessions")[0] == 200
        process.terminate()
        assert ended(process)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["--port", "eighty"], {}, ["--port", "0 to 65535"]),
        (["--port", "65536"], {}, ["--port", "0 to 65535"]),
        ([], {"BROWSERCLOUD_PORT": "-1"}, ["BROWSERCLOUD_PORT", "0 to 65535"]),
        (["--host", "a b"], {}, ["--host", "127.0.0.1"]),
        (["--host", "0.0.0.0", "--no-auth"], {}, ["--no-auth", "127.0.0.1"]),
        (["--lease-grace", "0"], {}, ["--lease-grace", "more than 0"]),
        (["--lease-grace", "nan"], {}, ["--lease-grace", "more than 0"]),
        (["--keep-ended", "0"], {}, ["--keep-ended", "days, more than 0"]),
        (["--keep-ended", "week"], {}, ["--keep-ended", "days, more than 0"]),
        (["--chromium", "/nowhere/chromium"], {}, ["--chromium", "no file /nowhere/chromium"]),
        (["--api-key", " "], {}, ["--api-key", "printable"]),
        (["--allowed-hosts", "a/b"], {}, ["--allowed-hosts", "commas"]),
        ([], {"BROWSERCLOUD_NO_AUTH": "perhaps"}, ["BROWSERCLOUD_NO_AUTH", "yes or no"]),
        (["--log-format", "xml"], {}, ["--log-format", "auto, human, json"]),
        ([], {"BROWSERCLOUD_LOG_LEVEL": "loud"}, ["BROWSERCLOUD_LOG_LEVEL", "debug, info"]),
        (["--colour", "red"], {}, ["--colour"]),
    ],
)
def test_a_wrong_setting_is_refused_by_name(
    root: Path,
    arguments: list[str],
    environ: dict[str, str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Setting and remedy are told, and it does not start."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    told = ["browsercloud", "serve", "--data-dir", str(root / "data"), *arguments]
    monkeypatch.setattr(sys, "argv", told)
    monkeypatch.setattr(asyncio, "run", lambda starting: pytest.fail("it starts"))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code in (1, 2)
    said = "".join(capsys.readouterr())
    assert all(word in said for word in words), said


def test_a_host_without_an_address_is_refused(root: Path) -> None:
    """Setting and remedy on standard error, and nothing else."""
    with running(root, "--host", "no.such.host.invalid") as process:
        code, out, err = ended(process)
    assert (1, "") == (code, out)
    assert "--host no.such.host.invalid cannot be resolved" in err
    assert "Traceback" not in err


def test_a_key_that_is_refused_is_not_repeated(root: Path) -> None:
    """The message about an ill-formed key does not hold it."""
    with running(root, BROWSERCLOUD_API_KEY=" secretsecret") as process:
        code, out, err = ended(process)
    assert code == 1
    assert "BROWSERCLOUD_API_KEY" in err
    assert "secretsecret" not in out + err


def test_spoilt_secrets_are_not_overwritten(root: Path) -> None:
    """A file that cannot be read is named; it may hold the only hash of a key."""
    kept = root / "data" / "secrets.json"
    kept.parent.mkdir()
    kept.write_text("{")
    with running(root, "--port", "0") as process:
        code, _, err = ended(process)
    assert code == 1
    assert str(kept) in err.replace("\n", "")
    assert kept.read_text() == "{"


def test_records_of_a_killed_server_are_ended(root: Path) -> None:
    """The next one finds them, and says of each what became of it."""
    with serving(root, "--orphan-grace", "0") as first:
        made = [ask(f"{first.url}/v1/sessions", KEY, "POST", **SHELL)[1] for _ in range(2)]
        ask(f"{first.url}/v1/sessions/{made[0]['id']}", KEY, "DELETE")
        first.kill()
    with serving(root) as second:
        ended_before, lost = (second.get(f"/v1/sessions/{record['id']}") for record in made)
        assert (ended_before["status"], ended_before["releaseReason"]) == (
            "released",
            "user_requested",
        )
        assert (lost["status"], lost["releaseReason"]) == ("failed", "shutdown")
        assert lost["error"]["code"] == "server_lost"
        assert lost["endedAt"] >= lost["startedAt"]
        status, answer = ask(f"{second.url}/v1/sessions", KEY, "POST", sessionId=lost["id"])
        assert (status, answer["error"]["code"]) == (409, "conflict")
        assert second.get("/v1/sessions")["totalCount"] == 2


def test_a_spoilt_store_is_not_replaced(root: Path) -> None:
    """One clear line, and nothing listens."""
    kept = root / "data" / FILE_NAME
    kept.parent.mkdir(mode=0o700)
    kept.write_text("no database")
    with running(root, "--port", "0") as process:
        code, out, err = ended(process)
    assert (code, out) == (1, "")
    assert f"{kept} is not a database; move it away" in err.replace("\n", "")
    assert "Traceback" not in err
    assert kept.read_text() == "no database"


def test_every_setting_is_an_option() -> None:
    """The command's parameters are the rows of the table."""
    assert list(inspect.signature(serve).parameters) == [row.name for row in SETTINGS]


def test_help_tells_every_setting() -> None:
    """Option, variable and default, and where not to put a key."""
    shown = subprocess.run(
        [sys.executable, "-m", "browsercloud", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "200"},
    ).stdout
    for row in SETTINGS:
        assert row.option in shown
        assert row.variable in shown
    assert "everyone on the machine can read" in " ".join(shown.split())


def test_draining_waits_for_the_running_sessions(root: Path) -> None:
    """With `--drain` the first signal refuses new ones; it ends when the last session has."""
    with running(root, "--port", "0", "--drain", BROWSERCLOUD_API_KEY=KEY) as process:
        url = address(process)
        record = ask(f"{url}/v1/sessions", KEY, "POST", **SHELL)[1]
        assert ask(f"{url}/readyz")[0] == 200
        process.send_signal(signal.SIGTERM)
        until(lambda: ask(f"{url}/readyz")[0] == 503)
        status, refused = ask(f"{url}/v1/sessions", KEY, "POST", **SHELL)
        assert (status, refused["error"]["code"]) == (503, "shutting_down")
        assert ask(f"{url}/v1/sessions/{record['id']}", KEY)[1]["status"] == "live"
        assert process.poll() is None
        assert ask(f"{url}/v1/sessions/{record['id']}", KEY, "DELETE")[0] == 200
        assert ended(process)[0] == 0


def test_draining_ends_at_a_second_signal(root: Path) -> None:
    """It releases what still runs."""
    with running(root, "--port", "0", "--drain", BROWSERCLOUD_API_KEY=KEY) as process:
        url = address(process)
        record = ask(f"{url}/v1/sessions", KEY, "POST", **SHELL)[1]
        process.send_signal(signal.SIGINT)
        until(lambda: ask(f"{url}/readyz")[0] == 503)
        process.send_signal(signal.SIGINT)
        assert ended(process)[0] == 0
    with running(root, "--port", "0", BROWSERCLOUD_API_KEY=KEY) as process:
        again = ask(f"{address(process)}/v1/sessions/{record['id']}", KEY)[1]
        assert (again["status"], again["releaseReason"]) == ("released", "shutdown")
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0


def until(condition: Callable[[], bool]) -> None:
    """Return when it holds; fail when it does not in time."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
