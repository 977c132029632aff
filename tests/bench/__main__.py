"""`nox -s bench [-- ROW … --quick --rounds N --out FOLDER --check]`: ours beside the others.

What counts are the ratios within one run. Leaves a table, `bench.json` and `bench.png`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import psutil
from rich.console import Console

from browsercloud.browser.find import find, version
from browsercloud.errors import BrowserNotFound
from browsercloud.options import Browser
from tests.bench import (
    cdp,
    churn,
    cold,
    control,
    flags,
    grid,
    imports,
    memory,
    options,
    report,
    timeline,
    viewer,
    warm,
)
from tests.bench.ground import Ground, run
from tests.bench.measure import Group, Skipped
from tests.conftest import Site
from tests.leaks import MARK, left

ROUNDS, QUICK_ROUNDS = 20, 3
GONE_WITHIN = 10.0
QUICK_GATEWAY = ("--rounds", "300", "--total", "32", "--repeat", "1")

Row = Callable[[Ground], Awaitable[list[Group]]]


async def gateway(ground: Ground) -> list[Group]:
    """The gateway's own benchmark, which prints its own table: to be wired closer, look here."""
    if find_spec("tests.bench.gateway") is None:
        raise Skipped("tests/bench/gateway.py is not there")
    arguments = QUICK_GATEWAY if ground.quick else ()
    _, said = await run(sys.executable, "-m", "tests.bench.gateway", *arguments, timeout=1800)
    print(said, flush=True)
    return []


ROWS: dict[str, Row] = {
    "warm": warm.measure,
    "cold": cold.measure,
    "import": imports.measure,
    "churn": churn.measure,
    "cdp": cdp.measure,
    "memory": memory.measure,
    "control": control.measure,
    "grid": grid.measure,
    "options": options.measure,
    "timeline": timeline.measure,
    "viewer": viewer.measure,
    "gateway": gateway,
}
SLOW: dict[str, Row] = {"flags": flags.measure}
"""Rows that run only when they are named."""

ALIASES = {"release": "warm"}
"""Rows that are measured with another one."""


def programs() -> dict[Browser, Path]:
    """The browsers of this machine; a kind that is missing takes no part."""
    found = {}
    for kind in (Browser.CHROMIUM, Browser.HEADLESS_SHELL):
        try:
            found[kind] = find(kind).path
        except BrowserNotFound as error:
            print(error, file=sys.stderr)
    return found


async def measure(names: Sequence[str], ground: Ground, console: Console) -> list[Group]:
    """One row after the other; one that fails is told, and the others go on."""
    groups: list[Group] = []
    for name in names:
        begin = time.monotonic()
        try:
            found = await (ROWS | SLOW)[name](ground)
        except Skipped as reason:
            console.print(f"{name}: skipped, {reason}", style="yellow")
            continue
        except Exception as error:
            console.print(f"{name}: failed, {type(error).__name__}: {error}", style="red")
            if not ground.quick:
                console.print_exception()
            continue
        for group in found:
            report.print_group(console, group)
        console.print(f"{name}: {time.monotonic() - begin:.0f} s\n", style="dim")
        groups += found
    return groups


def clean_up(root: Path) -> list[str]:
    """What is still there after a while. Processes among it are ended: they are all ours."""
    end = time.monotonic() + GONE_WITHIN
    while (found := left(root)) and time.monotonic() < end:
        time.sleep(0.1)
    for entry in found:
        pid = entry.partition(" ")[0]
        if pid.isdigit() and psutil.pid_exists(int(pid)):
            psutil.Process(int(pid)).kill()
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS | SLOW)}; or release"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, less in each")
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS} by default, {QUICK_ROUNDS} if quick")
    parser.add_argument("--out", type=Path, default=Path(".bench"), help=".bench by default")
    parser.add_argument("--check", action="store_true", help="end with 1 if a target is missed")
    given = parser.parse_args()
    unknown = set(given.rows) - ROWS.keys() - SLOW.keys() - ALIASES.keys()
    if unknown:
        parser.error(f"no row is called {', '.join(sorted(unknown))}")
    given.rows = list(dict.fromkeys(ALIASES.get(name, name) for name in given.rows or ROWS))
    if given.rounds is None:
        given.rounds = QUICK_ROUNDS if given.quick else ROUNDS
    return given


def main() -> int:
    """Measure, print, write."""
    given = arguments()
    console = Console(width=None if sys.stdout.isatty() else 132)
    for name in [name for name in os.environ if name.startswith("BROWSERCLOUD_")]:
        del os.environ[name]
    # A package that is installed has its bytecode; a checkout has to be allowed to keep it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # As Ctrl-C, which a shell's background lets us ignore: what is open is closed on the way out.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="bc-") as folder:
        os.environ |= {MARK: folder, "TMPDIR": folder}
        tempfile.tempdir = None
        with Site().running() as site:
            ground = Ground(Path(folder), site, programs(), given.rounds, given.quick)
            groups = asyncio.run(measure(given.rows, ground, console))
        stray = clean_up(Path(folder))
    versions = {kind.value: f"{path} {version(path)}" for kind, path in ground.programs.items()}
    report.write(given.out, groups, report.machine(versions))
    verdicts = [verdict for group in groups for verdict in group.verdicts()]
    report.print_verdicts(console, verdicts)
    console.print(f"written to {given.out}/bench.json and {given.out}/bench.png")
    for entry in stray:
        console.print(f"left over: {entry}", style="red", markup=False)
    missed = given.check and not all(verdict.ok for verdict in verdicts)
    return 1 if missed or stray else 0


if __name__ == "__main__":
    sys.exit(main())
