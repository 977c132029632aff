"""From options to a browser that is ready: command line, start, sandbox, size of the window."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from browsercloud._aio import settle
from browsercloud._later import later
from browsercloud.browser import flags
from browsercloud.browser.display import Display, has_display, program
from browsercloud.browser.find import Found
from browsercloud.browser.group import Mark
from browsercloud.browser.process import BrowserProcess, describe
from browsercloud.browser.stealth import disguise, switches
from browsercloud.cdp.agent import Agent, phone
from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.cdp.context import NewWindows, PageOverrides
from browsercloud.cdp.look import Look, languages_of
from browsercloud.cdp.storage import put, seed_script
from browsercloud.cdp.window import fit_window, wait_for_page
from browsercloud.errors import LaunchFailed
from browsercloud.options import Browser, Dimensions, SessionOptions
from browsercloud.wanted import Coordinates, Device, Permission

if TYPE_CHECKING:
    from browsercloud import places
else:
    places = later("browsercloud.places")

DISCARD_PATIENCE = 30.0
CITY = 1_000.0
"""Meters: how exactly one knows the place of somebody of whom one knows the country."""

NO_SANDBOX = re.compile(
    r"No usable sandbox|without --no-sandbox|Failed to move to new namespace"
    r"|SUID sandbox helper|Operation not permitted.*namespace|credentials\.cc"
)

ROOT = "root cannot use it; run as an ordinary user to have it"
FORBIDDEN = "this machine forbids it; allow unprivileged user namespaces to have it"

log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Launched:
    """A browser that is ready: one page, the right size, the right user agent."""

    process: BrowserProcess
    endpoint: str = field(repr=False)
    user_agent: str
    product: str
    """Name and version of the program, as it says them itself."""

    overrides: PageOverrides | None
    """Holds what no flag can do for as long as it is open; `None` when flags do it all."""

    display: Display | None = None
    """Its own, if there was none to show its window on."""


class Launcher:
    """Starts browsers, and remembers what it learns about this machine.

    *sandbox_reason* is why Chromium's sandbox is off; `None` while it is on.
    """

    def __init__(self) -> None:
        self.sandbox_reason: str | None = ROOT if os.geteuid() == 0 else None
        self._warned = False
        self._frames: dict[tuple[Path, bool], int] = {}

    async def launch(
        self,
        found: Found,
        options: SessionOptions,
        folder: Path,
        *,
        session_id: str | None,
        started: Callable[[BrowserProcess], None] = lambda process: None,
    ) -> Launched:
        """Start *found* in *folder* and return when it has one page.

        *session_id* is `None` for one that is started ahead. *started* is called with each process
        in the moment it exists. Raises `LaunchFailed`; then,
        and when cancelled, no process is left. Not bounded in time.
        """
        if not options.headless and not has_display(os.environ):
            program()  # before anything is begun
        try:
            return await self._once(found, options, folder, session_id, started)
        except LaunchFailed as error:
            if self.sandbox_reason is not None or not NO_SANDBOX.search(error.message):
                raise
            self.sandbox_reason = FORBIDDEN
        return await self._once(found, options, folder, session_id, started)

    def frame_of(self, found: Found) -> int:
        """How much higher than its viewport a headless window of *found* is, in pixels."""
        if found.kind is Browser.HEADLESS_SHELL:
            return 0
        return self._frames.get((found.path, True), flags.FRAME_HEIGHT)

    async def _once(
        self,
        found: Found,
        options: SessionOptions,
        folder: Path,
        session_id: str | None,
        started: Callable[[BrowserProcess], None],
    ) -> Launched:
        self._warn()
        frame = self._frames.get((found.path, options.headless))
        command = flags.argv(
            found,
            options,
            profile=folder / "profile",
            sandbox=self.sandbox_reason is None,
            more=switches(options),
            frame_height=flags.FRAME_HEIGHT if frame is None else frame,
        )
        async with _screen(folder, options, flags.FRAME_HEIGHT if frame is None else frame) as at:
            ours = os.environ if at is None else at.environment(os.environ)
            env = flags.environment(folder, headless=options.headless, environ=ours)
            try:
                process = BrowserProcess.begin(command, env=env, folder=folder)
            except OSError as error:
                raise LaunchFailed(
                    f"{found.path} cannot be run: {error}; run `browsercloud doctor`"
                ) from error
            try:
                started(process)
                known = frame is not None
                launched = await self._ready(process, found, options, session_id, known=known)
                return evolve(launched, display=at)
            except BaseException:
                await settle(lambda: process.stop(grace=0), patience=DISCARD_PATIENCE)
                raise

    async def _ready(
        self,
        process: BrowserProcess,
        found: Found,
        options: SessionOptions,
        session_id: str | None,
        *,
        known: bool,
    ) -> Launched:
        endpoint = await process.endpoint()
        try:
            async with await CdpConnection.open(endpoint) as cdp:
                version = await cdp.send("Browser.getVersion")
                page = await wait_for_page(cdp)
                if found.kind is Browser.CHROMIUM and not known:
                    window = flags.screen_of(options, 0)
                    frame = await fit_window(cdp, page, window)
                    self._frames[found.path, options.headless] = frame
                if options.session_context is not None:
                    await put(cdp, options.session_context, at="sessionContext")
            look = look_of(options, version["product"], session_id)
            overrides = await open_overrides(endpoint, options, look)
        except CdpError as error:
            end = process.poll()
            said = describe(end) if end else " | ".join(process.words[-5:]) or "it said nothing"
            raise LaunchFailed(
                f"the browser started but does not answer ({error}); {said}"
            ) from error
        return Launched(
            process=process,
            endpoint=endpoint,
            user_agent=agent_of(look, version["userAgent"]),
            product=version["product"],
            overrides=overrides,
        )

    def _warn(self) -> None:
        if self.sandbox_reason is not None and not self._warned:
            self._warned = True
            log.warning(
                "Chromium runs without its sandbox, so pages are less confined: %s",
                self.sandbox_reason,
            )


async def adopt(
    options: SessionOptions, session_id: str, mark: Mark, endpoint: str, *, pooled: bool = False
) -> Launched:
    """Take over a browser that a server which is dead now had launched with *options*.

    *pooled*: or had started ahead, and fitted to them.

    Ready as after a launch, with its pages as they are. Raises `OSError` if it has ended,
    `CdpError` if it does not answer at *endpoint*; then, and when cancelled, the browser runs on
    as before. Not bounded in time.
    """
    process = BrowserProcess.adopt(mark, endpoint)
    try:
        # The path of an endpoint is a random name that a browser makes for itself: whoever
        # accepts a connection there is this very browser.
        async with await CdpConnection.open(endpoint) as cdp:
            version = await cdp.send("Browser.getVersion")
        frame = flags.FRAME_HEIGHT if options.browser is Browser.CHROMIUM else 0
        look = look_of(options, version["product"], session_id)
        overrides = await open_overrides(endpoint, options, look, pooled=pooled, frame=frame)
    except BaseException:
        process.let_go()
        raise
    return Launched(
        process=process,
        endpoint=endpoint,
        user_agent=agent_of(look, version["userAgent"]),
        product=version["product"],
        overrides=overrides,
    )


async def open_overrides(
    endpoint: str, options: SessionOptions, look: Look, *, pooled: bool = False, frame: int = 0
) -> PageOverrides | None:
    """`session_overrides` on a connection of their own, applied. Raises `CdpError`."""
    if not (look or (pooled and resized(options))):
        return None
    cdp = await CdpConnection.open(endpoint)
    overrides = session_overrides(cdp, options, look, pooled=pooled, frame=frame)
    try:
        if overrides is not None:
            await overrides.apply()
    except BaseException:
        await cdp.close()
        raise
    return overrides


def session_overrides(
    cdp: CdpConnection, options: SessionOptions, look: Look, *, pooled: bool, frame: int
) -> PageOverrides | None:
    """What of *options* has to be said to each page anew; `None` if there is nothing.

    A browser that was started ahead opens further windows in the size that it was started with.
    """
    windows = None
    started_with, size = SessionOptions().size, options.size
    if pooled and resized(options):
        windows = NewWindows(
            window_size(started_with, options.browser, frame),
            window_size(size, options.browser, frame),
        )
    return PageOverrides(cdp, look, windows) if look or windows else None


def resized(options: SessionOptions) -> bool:
    """Whether a window of the usual size is of the wrong one."""
    return options.device is Device.DESKTOP and options.size != SessionOptions().size


def look_of(options: SessionOptions, product: str, session_id: str | None) -> Look:
    """What every page of *product* has to be told, as no switch and no window does it.

    Of a browser that no session has yet nobody is told who it passes for.
    """
    mobile = options.device is Device.MOBILE
    locale, timezone, coordinates = whereabouts(options)
    agent = None
    if options.user_agent is not None:
        agent = Agent(user_agent=options.user_agent)
    elif mobile:
        agent = phone(product.partition("/")[2])
    worn = None if session_id is None else disguise(options, product, session_id, agent)
    permissions = options.permissions
    if coordinates is not None and Permission.GEOLOCATION not in permissions:
        permissions = (*permissions, Permission.GEOLOCATION)
    return Look(
        agent=agent if worn is None else worn.agent,
        viewport=options.size if mobile or _is_narrow(options) else None,
        mobile=mobile,
        languages=_languages(locale, bare=options.browser is Browser.CHROMIUM or worn is None),
        locale=locale,
        timezone=timezone,
        coordinates=coordinates,
        headers=options.extra_headers,
        permissions=permissions,
        cores=None if worn is None else worn.cores,
        script="" if worn is None else worn.script,
        seed=_seed_of(options),
    )


def _languages(locale: str | None, *, bare: bool) -> tuple[str, ...]:
    if locale is None:
        return () if bare else languages_of("en-US")
    return languages_of(locale)


def _seed_of(options: SessionOptions) -> str:
    given = options.session_context
    return "" if given is None or not given.session_storage else seed_script(given.session_storage)


def agent_of(look: Look, usual: str) -> str:
    """The user agent that pages are told; *usual* is the browser's own."""
    return usual if look.agent is None else look.agent.user_agent


def whereabouts(options: SessionOptions) -> tuple[str | None, str | None, Coordinates | None]:
    """Locale, time zone and coordinates, each from its own option, else from the country."""
    at, locale, timezone = options.geo_location, options.locale, options.timezone
    if locale is not None:
        locale = places.normal_locale(locale)
    if not isinstance(at, str):
        return locale, timezone, at
    place = places.place_of(at)
    here = Coordinates(latitude=place.latitude, longitude=place.longitude, accuracy=CITY)
    return locale or place.locale, timezone or place.timezone, here


def _is_narrow(options: SessionOptions) -> bool:
    full = options.browser is Browser.CHROMIUM
    return full and options.size.width < flags.MIN_WINDOW_WIDTH


def window_size(viewport: Dimensions, kind: Browser, frame: int) -> Dimensions:
    """Of a window around this viewport, with a *frame* that is so many pixels high."""
    least = flags.MIN_WINDOW_WIDTH if kind is Browser.CHROMIUM else 0
    return Dimensions(max(viewport.width, least), viewport.height + frame)


@asynccontextmanager
async def _screen(
    folder: Path, options: SessionOptions, frame: int
) -> AsyncIterator[Display | None]:
    """A display of the session's own, if its window has none; kept if all goes well."""
    if options.headless or has_display(os.environ):
        yield None
        return
    display = await Display.start(folder, flags.screen_of(options, frame))
    try:
        yield display
    except BaseException:
        await settle(display.stop, patience=DISCARD_PATIENCE)
        raise
