"""`browsercloud keys`, beside a server and without one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from browsercloud.stores.sqlite import FILE_NAME
from tests.cli.test_serve import SHELL, ask
from tests.serving import KEY, serving


def keys(root: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code and both outputs of the command, on the data below *root*."""
    done = subprocess.run(
        [sys.executable, "-m", "browsercloud", "keys", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"BROWSERCLOUD_DATA_DIR": str(root / "data"), "COLUMNS": "200"},
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def listed(root: Path, *arguments: str) -> list[list[str]]:
    """The table's rows, each as ID, KEY, PROJECT, and the rest."""
    code, out, _ = keys(root, "list", *arguments)
    assert code == 0
    return [line.split() for line in out.split("\n\n")[0].splitlines()[1:]]


def answers(url: str, key: str, status: int) -> float:
    """Seconds until the server gives this status to the key."""
    start = time.monotonic()
    while ask(f"{url}/v1/sessions", key)[0] != status:
        assert time.monotonic() - start < 3
        time.sleep(0.02)
    return time.monotonic() - start


def test_a_key_is_shown_once(root: Path) -> None:
    """On standard output, alone; the file and the list tell only how it begins."""
    code, out, err = keys(root, "create", "--project", "team")
    assert (code, out.count("\n")) == (0, 1)
    key = out.strip()
    assert key.startswith("bc_")
    assert key not in err
    assert key.encode() not in (root / "data" / FILE_NAME).read_bytes()
    ((key_id, shown, project, *_, used, revoked),) = listed(root)
    assert key_id in err
    assert (shown, project, used, revoked) == (f"{key[:10]}…", "team", "-", "-")


def test_list_and_revoke(root: Path) -> None:
    """By id or by project; the list may be narrowed down, and a revoked key stays in it."""
    for project in ("a", "a", "b"):
        assert keys(root, "create", "--project", project)[0] == 0
    first, second, third = sorted(listed(root), key=lambda row: row[2])
    assert len(listed(root, "--project", "a")) == 2
    assert keys(root, "revoke", first[0])[:2] == (0, f"{first[0]} of project a is revoked\n")
    assert keys(root, "revoke", "--project", "b")[0] == 0
    alive = [row[0] for row in listed(root) if row[-1] == "-"]
    assert alive == [second[0]]
    assert third[2] == "b"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create"], "--project"),
        (["create", "--project", "a b"], "letters, digits"),
        (["create", "--project", ""], "letters, digits"),
        (["create", "--project", "a", "--rate", "-1"], ">= 0"),
        (["create", "--project", "a", "--max-sessions", "many"], "many"),
        (["revoke"], "name the keys"),
        (["revoke", "x", "--project", "a"], "name the keys"),
        (["revoke", "x"], "no such key: x"),
        (["revoke", "--project", "x"], "no such project: x"),
        (["limit", "--project", "x", "--rate", "1"], "project x has no key"),
        (["list", "--data-dir", "/dev/null"], "not a folder"),
    ],
)
def test_misuse_is_told(root: Path, arguments: list[str], words: str) -> None:
    """What is wrong and what to do, and an exit code that says so."""
    code, out, err = keys(root, *arguments)
    assert code in (1, 2)
    assert words in out + err


def test_limits(root: Path) -> None:
    """Set with a key or later; what is not given stays, and 0 lifts one."""
    keys(root, "create", "--project", "p", "--max-sessions", "3")
    assert "p: at most 3 sessions at a time\n" in keys(root, "list")[1]
    keys(root, "limit", "--project", "p", "--rate", "60")
    keys(root, "create", "--project", "p")
    shown = "p: at most 3 sessions at a time, at most 60 new ones in a minute\n"
    assert shown in keys(root, "list")[1]
    code, out, _ = keys(root, "limit", "--project", "p", "--max-sessions", "0")
    both = "p: any number of sessions at a time, at most 60 new ones in a minute\n"
    assert (code, out) == (0, both)


async def test_a_running_server_follows(root: Path) -> None:
    """A key opens and a limit holds within a second; a revoked key's socket is closed as fast."""
    with serving(root, "--queue-timeout", "1") as server:
        key = keys(root, "create", "--project", "team", "--max-sessions", "1")[1].strip()
        assert answers(server.url, key, 200) < 1
        status, record = ask(f"{server.url}/v1/sessions", key, "POST", **SHELL)
        assert status == 201
        assert ask(f"{server.url}/v1/sessions", key, "POST", **SHELL)[0] == 429
        assert ask(f"{server.url}/v1/sessions/{record['id']}", KEY)[0] == 404
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(record["websocketUrl"], max_msg_size=0) as ws,
        ):
            await ws.send_json({"id": 1, "method": "Browser.getVersion"})
            assert "result" in await ws.receive_json(timeout=5)
            await asyncio.to_thread(keys, root, "revoke", "--project", "team")
            message = await ws.receive(timeout=1)
            assert (message.data, message.extra) == (1008, "the API key was revoked")
        assert answers(server.url, key, 401) < 1
        assert ask(f"{server.url}/v1/sessions", KEY)[0] == 200
    assert listed(root)[0][-3] != "-"


def test_a_server_takes_over_the_key_of_an_earlier_version(root: Path) -> None:
    """From beside the secret into the store: it opens as before, and may be revoked."""
    kept = root / "data" / "secrets.json"
    kept.parent.mkdir(mode=0o700)
    old = hashlib.sha256(b"bc_old").hexdigest()
    kept.write_text(json.dumps({"tokenSecret": "ab" * 32, "keyHash": old}))
    for _ in range(2):
        with serving(root) as server:
            assert ask(f"{server.url}/v1/sessions", "bc_old")[0] == 200
        assert json.loads(kept.read_text()) == {"tokenSecret": "ab" * 32}
    ((key_id, shown, project, *_),) = listed(root)
    assert (key_id, shown, project) == (old[:12], "…", "default")
