"""`browsercloud install`: get a Chromium, and a chromedriver for it, onto this machine.

Playwright's download first, as it needs no rights, then the system's packages.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen
from rich.console import Console

from browsercloud.engines.facts import BrowserFacts, DriverFacts, look_up, look_up_driver, try_out
from browsercloud.options import Browser
from browsercloud.server.config import from_environment

DOWNLOAD_TIMEOUT = 15 * 60.0
PACKAGE_TIMEOUT = 15 * 60.0
CONNECT_TIMEOUT_MS = "10000"
"""For Playwright's download: it tries several times, and its own 30 s add up to minutes."""

Run = Callable[[Sequence[str], float], bool]
"""Runs a command, its output shown, within so many seconds; whether it went well."""


@frozen(kw_only=True)
class Packages:
    """A system's package manager: how it is made ready, and what it gives."""

    program: str
    ready: tuple[str, ...] = ()
    install: tuple[str, ...]
    needed: tuple[str, ...]
    driver: tuple[str, ...] = ()
    """What brings chromedriver, if it is not in the browser's own package."""

    screen: tuple[str, ...] = ()
    """What brings Xvfb."""

    wished: tuple[str, ...] = ()
    """Taken if they exist: not every system packages the headless shell, or by this name."""

    root: bool = True


XVFB = "Xvfb"

MANAGERS = (
    Packages(
        program="apt-get",
        ready=("update",),
        install=("install", "-y", "--no-install-recommends"),
        needed=("chromium",),
        driver=("chromium-driver",),
        screen=("xvfb",),
        wished=("chromium-headless-shell", "fonts-liberation"),
    ),
    Packages(
        program="dnf",
        install=("install", "-y"),
        needed=("chromium",),
        driver=("chromedriver",),
        screen=("xorg-x11-server-Xvfb",),
        wished=("chromium-headless", "liberation-fonts"),
    ),
    Packages(
        program="apk",
        install=("add", "--no-cache"),
        needed=("chromium",),
        driver=("chromium-chromedriver",),
        screen=("xvfb",),
        wished=("chromium-headless-shell", "font-liberation"),
    ),
    Packages(
        program="pacman",
        install=("-Sy", "--noconfirm", "--needed"),
        needed=("chromium",),
        screen=("xorg-server-xvfb",),
        wished=("ttf-liberation",),
    ),
    Packages(
        program="brew",
        install=("install", "--cask"),
        needed=("chromium",),
        driver=("chromedriver",),
        root=False,
    ),
)


def install(*, xvfb: bool = False) -> int:
    """Install Chromium: Playwright's download, else the system's packages; then start it once.

    And chromedriver, for Selenium. Does nothing when all is there already. Ends with 1 if there is
    no browser after all; without chromedriver, it says what to do.

    Args:
        xvfb: Xvfb too, for sessions with headless=False on a machine without a display.
    """
    logging.getLogger("browsercloud").addHandler(logging.NullHandler())  # the report says it all
    installation = Installation(Console(), os.environ)
    if xvfb:
        installation.screen()
    return installation.run()


class Installation:
    """One run of the command: what is there, what was tried, what came of it."""

    def __init__(
        self, console: Console, environ: Mapping[str, str], *, run: Run | None = None
    ) -> None:
        config = from_environment({}, environ)
        self._settings = {
            Browser.CHROMIUM: config.chromium,
            Browser.HEADLESS_SHELL: config.headless_shell,
        }
        self._chromedriver = config.chromedriver
        self._console = console
        self._run = run or self._show
        self._environ = environ

    def run(self) -> int:
        """Install what is missing; the exit code."""
        if self._complete():
            for facts in self._present():
                self._say(f"[green]✓[/green] {facts.kind.value} {facts.version}: {facts.path}")
            if self._look_up_driver().path is None:
                self._driver()
                return self._verify()
            self._say_driver()
            self._say("Nothing to install.")
            return 0
        for attempt in (self._download, self._packages):
            attempt()
            # The download brings both; with packages the headless shell may not exist.
            if self._complete():
                break
        if self._look_up_driver().path is None:
            self._driver()
        return self._verify()

    def screen(self) -> None:
        """Install Xvfb, if it is not there."""
        found = shutil.which(XVFB)
        manager = self._manager()
        if found is not None:
            self._say(f"[green]✓[/green] {XVFB}: {found}")
        elif manager is None or not manager.screen:
            self._say(f"[yellow]•[/yellow] no package with {XVFB} is known here; get it by hand")
        else:
            self._package("For windows without a display", manager, manager.screen)

    def _complete(self) -> bool:
        return all(facts.path for facts in self._present())

    def _driver(self) -> None:
        """The package with chromedriver; whether it fits the browser is told at the end."""
        manager = self._manager()
        if manager is None or not manager.driver:
            return
        self._package("For Selenium", manager, manager.driver)

    def _package(self, what_for: str, manager: Packages, names: Sequence[str]) -> None:
        ask = (manager.program, *manager.install, *names)
        if manager.root and os.geteuid() != 0:
            self._say(f"[yellow]{what_for}[/yellow], run:\n  sudo {' '.join(ask)}")
            return
        self._run(ask, PACKAGE_TIMEOUT)

    def _say_driver(self) -> None:
        driver = self._look_up_driver()
        if driver.path is not None:
            self._say(f"[green]✓[/green] chromedriver {driver.version}: {driver.path}")
        elif driver.problem is not None:
            self._say("[yellow]•[/yellow] no chromedriver, which only Selenium needs:")
            self._console.print(driver.problem, markup=False)

    @staticmethod
    def _manager() -> Packages | None:
        return next((one for one in MANAGERS if shutil.which(one.program)), None)

    def _present(self) -> list[BrowserFacts]:
        return [look_up(kind, setting) for kind, setting in self._settings.items()]

    def _look_up_driver(self) -> DriverFacts:
        return look_up_driver(self._present(), self._chromedriver)

    def _download(self) -> None:
        self._say("[bold]Playwright's download[/bold] …")
        if not self._run(
            (sys.executable, "-m", "playwright", "install", "chromium"), DOWNLOAD_TIMEOUT
        ):
            self._say("It did not work here; trying the system's packages.")

    def _packages(self) -> None:
        manager = self._manager()
        if manager is None:
            names = ", ".join(one.program for one in MANAGERS)
            self._say(f"[yellow]No package manager that is known here[/yellow] ({names}).")
            return
        ask = (manager.program, *manager.install)
        if manager.root and os.geteuid() != 0:
            words = " ".join((*ask, *manager.needed, *manager.wished))
            first = f"sudo {manager.program} update && " if manager.ready else ""
            self._say(
                f"[yellow]Installing packages needs root.[/yellow] Run:\n  {first}sudo {words}"
            )
            return
        self._say(f"[bold]{manager.program}[/bold] …")
        if manager.ready:
            # A failure here need not matter: what is wanted may be in the lists already.
            self._run((manager.program, *manager.ready), PACKAGE_TIMEOUT)
        self._run((*ask, *manager.needed), PACKAGE_TIMEOUT)
        for package in manager.wished:
            self._run((*ask, package), PACKAGE_TIMEOUT)

    def _verify(self) -> int:
        works = False
        for kind, setting in self._settings.items():
            facts = asyncio.run(try_out(kind, setting))
            if facts.start_seconds is not None:
                works = True
                took = f"starts in {facts.start_seconds:.2f} s"
                self._say(f"[green]✓[/green] {kind.value} {facts.version}: {facts.path}, {took}")
            elif facts.path is not None:
                self._say(f"[red]✗[/red] {kind.value} at {facts.path} does not start:")
                self._console.print(facts.problem, markup=False)
            else:
                self._say(f"[yellow]•[/yellow] no {kind.value}")
        self._say_driver()
        if not works:
            self._say(
                "[red]No browser could be installed.[/red] Install Chromium or Chrome by hand, or "
                "set BROWSERCLOUD_CHROMIUM to the path of one; then run `browsercloud doctor`."
            )
        return 0 if works else 1

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)

    def _show(self, command: Sequence[str], timeout: float) -> bool:
        """Run *command* with its output going straight to ours."""
        self._console.print(f"$ {' '.join(command)}", style="dim", markup=False, soft_wrap=True)
        env = {
            **self._environ,
            "DEBIAN_FRONTEND": "noninteractive",
            "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": CONNECT_TIMEOUT_MS,
        }
        try:
            code = subprocess.run(  # noqa: S603 - from the table above
                command, env=env, stdin=subprocess.DEVNULL, timeout=timeout, check=False
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            self._console.print(str(error), style="yellow", markup=False)
            return False
        return code == 0
