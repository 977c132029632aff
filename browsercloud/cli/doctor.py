"""`browsercloud doctor`: what this machine has for sessions, and whether one really runs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from browsercloud.engines.facts import (
    BrowserFacts,
    DriverFacts,
    Fact,
    look_up_driver,
    machine,
    try_out,
)
from browsercloud.options import Browser
from browsercloud.server.config import from_environment


def doctor(
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Start each browser once and say what works here, what does not, and why.

    Ends with 1 if no session could be run.

    Parameters
    ----------
    as_json
        Print JSON instead of a table.
    """
    logging.getLogger("browsercloud").addHandler(logging.NullHandler())  # the report says it all
    config = from_environment({}, os.environ)
    settings = {Browser.CHROMIUM: config.chromium, Browser.HEADLESS_SHELL: config.headless_shell}
    browsers = asyncio.run(_try_all(settings))
    driver = look_up_driver(browsers, config.chromedriver)
    facts = machine(os.environ)
    healthy = any(browser.start_seconds is not None for browser in browsers)
    if as_json:
        print(json.dumps(report(browsers, driver, facts), indent=2))
    else:
        show(Console(), browsers, driver, facts)
    return 0 if healthy else 1


async def _try_all(settings: Mapping[Browser, Path | None]) -> list[BrowserFacts]:
    # One after the other, so that each start is timed alone.
    return [await try_out(kind, setting) for kind, setting in settings.items()]


def report(
    browsers: Sequence[BrowserFacts], driver: DriverFacts, facts: Sequence[Fact]
) -> dict[str, object]:
    """Everything as JSON-ready values."""
    return {
        "healthy": any(browser.start_seconds is not None for browser in browsers),
        "browsers": [attrs.asdict(browser) for browser in browsers],
        "chromedriver": attrs.asdict(driver),
        "machine": [attrs.asdict(fact) for fact in facts],
    }


def show(
    console: Console,
    browsers: Sequence[BrowserFacts],
    driver: DriverFacts,
    facts: Sequence[Fact],
) -> None:
    """Everything as a table for people."""
    table = Table(show_header=False, pad_edge=False)
    for browser in browsers:
        table.add_row(browser.kind.value, *_browser_cells(browser))
    if driver.path is None:
        table.add_row("chromedriver", "[yellow]•[/yellow]", f"for Selenium: {driver.problem}")
    else:
        table.add_row("chromedriver", "[green]✓[/green]", f"{driver.version}\n{driver.path}")
    table.add_section()
    for fact in facts:
        mark = "[yellow]•[/yellow]" if fact.degraded else "[green]✓[/green]"
        table.add_row(fact.name, mark, fact.value)
    console.print(table)
    if not any(browser.start_seconds is not None for browser in browsers):
        console.print("[red]No session can be run here.[/red] Try `browsercloud install`.")


def _browser_cells(browser: BrowserFacts) -> tuple[str, str]:
    if browser.path is None:
        return "[yellow]•[/yellow]", "not there"
    where = f"{browser.version or 'version unknown'}, {browser.source}\n{browser.path}"
    if browser.start_seconds is None:
        return "[red]✗[/red]", f"{where}\n{browser.problem}"
    return (
        "[green]✓[/green]",
        f"{where}\nstarts in {browser.start_seconds:.2f} s, sandbox {browser.sandbox}",
    )
