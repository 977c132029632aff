"""What Chromium is started with. Pure: options in, command line and environment out.

`nox -s bench -- flags` leaves out one switch after the other. With Chromium 156 and one blank page
none changes the time to the first page beyond the noise, and two change processes and memory: their
figures stand beside them. The others are there for what they keep a session from doing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from browsercloud.browser.find import Found
from browsercloud.options import DEFAULT_DIMENSIONS, Browser, Dimensions, SessionOptions
from browsercloud.stealth import Stealth, disguised
from browsercloud.wanted import Device

FRAME_HEIGHT = 87
"""Pixels that the window of a full Chromium is higher than its viewport: tabs and address bar.

Measured with Chromium 156; another build may differ, so the first start of each one is measured.
"""

MAX_SOCKET_PATH = 104
SOCKET_NAME_LENGTH = len("/org.chromium.Chromium.XXXXXX/SingletonSocket")

MIN_WINDOW_WIDTH = 500
"""Pixels below which no window of a full Chromium gets; a narrower viewport has to be emulated."""

SCREENS = (
    Dimensions(1920, 1080),
    Dimensions(2560, 1440),
    Dimensions(3840, 2160),
    Dimensions(7680, 4320),
)
"""Screens that people have."""

FIRST_PAGE = "about:blank"

DISABLED_FEATURES = (
    "AimEnabled",  # asks Google whether its AI mode may be offered
    "AutofillServerCommunication",  # sends the shape of forms to Google
    "DestroyProfileOnBrowserClose",  # the profile is removed as a folder; this only delays the end
    "DialMediaRouteProvider",  # looks for televisions in the network
    "GlobalMediaControls",  # a toolbar button for what plays
    "InitialWebUI",  # toolbar parts as web pages
    "InterestFeedContentSuggestions",  # news on the new tab page
    "MediaRouter",  # looks for cast devices; macOS asks for permission
    "NetworkTimeServiceQuerying",  # asks Google what time it is
    "OptimizationGuideModelDownloading",  # downloads models
    "OptimizationHints",  # downloads hints at start
    "OptimizationTargetPrediction",  # the same for models
    "PreconnectToSearch",  # connects to the search engine before anybody searches
    "Translate",  # asks to translate, over the page
    "WebUIOmniboxAimPopup",  # below the address bar, as a web page: one renderer and 43 MB more
    "WebUIOmniboxPopup",  # the other half of it: one renderer and 39 MB more
    "WebUIReloadButton",  # the reload button as a web page
)

ENABLED_FEATURES = (
    "SkipListAccountsWithoutGaiaCookies",  # no question to Google about accounts at start
)

BACKGROUND_PICTURES = "CDPScreenshotNewSurface"
"""Without it the picture of a tab that lies behind another is waited for until somebody looks.

The headless shell has no tabs that lie behind others, and with it cannot picture a fresh page.
"""

QUIET = (
    "--no-first-run",  # no welcome page
    "--no-default-browser-check",  # no question whether to be the default
    "--disable-search-engine-choice-screen",  # a page that some countries get first
    "--disable-background-networking",  # updates of extensions, safe browsing lists, reports
    "--disable-component-update",  # downloads after start
    "--disable-default-apps",  # downloads for a new profile
    "--disable-component-extensions-with-background-pages",  # built-in extensions that run
    "--disable-domain-reliability",  # reports on failed requests to Google's own sites
    "--disable-field-trial-config",  # the experiments of test builds
    "--disable-sync",  # there is no account
    "--no-pings",  # <a ping>, and reports on clicked links
    "--metrics-recording-only",  # metrics are never sent
    "--disable-breakpad",  # crashes are never uploaded
    "--disable-hang-monitor",  # no dialog when a page is busy
    "--disable-prompt-on-repost",  # no dialog when a form is sent again
    "--password-store=basic",  # no desktop keyring, which may ask for its password
    "--use-mock-keychain",  # the same on macOS
    "--noerrdialogs",  # no window to click away where nobody looks
    "--hide-crash-restore-bubble",  # no "restore pages?" over the page
)

DRIVEN = (
    "--disable-background-timer-throttling",  # a page behind another one works at full speed
    "--disable-backgrounding-occluded-windows",  # so does one under another window
    "--disable-renderer-backgrounding",  # and no process is put at low priority
    "--disable-ipc-flooding-protection",  # a script may navigate as often as it likes
    "--disable-popup-blocking",  # a driver's click may open pages
    "--force-color-profile=srgb",  # screenshots look the same on every machine
)


def argv(
    found: Found,
    options: SessionOptions,
    *,
    profile: Path,
    sandbox: bool,
    more: tuple[str, ...] = (),
    frame_height: int = FRAME_HEIGHT,
) -> tuple[str, ...]:
    """The command line for a session of its own. *profile* is its user data folder."""
    return (
        str(found.path),
        *QUIET,
        f"--disable-features={','.join(DISABLED_FEATURES)}",
        f"--enable-features={','.join(_enabled(options))}",
        *DRIVEN,
        *_window(options, frame_height),
        *more,
        *(() if options.user_agent is None else (f"--user-agent={options.user_agent}",)),
        *(() if sandbox else ("--no-sandbox",)),
        # Shared memory goes to the session's own TMPDIR: nothing of it can outlive the session,
        # and the 64 MB of /dev/shm in a container crash pages.
        "--disable-dev-shm-usage",
        # Port 0: Chromium takes a free one and says which. It listens on loopback only.
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        FIRST_PAGE,
    )


def _enabled(options: SessionOptions) -> tuple[str, ...]:
    full = options.browser is Browser.CHROMIUM
    return (*ENABLED_FEATURES, BACKGROUND_PICTURES) if full else ENABLED_FEATURES


def viewport_of_window(options: SessionOptions) -> Dimensions:
    """What the window is made for; a mobile viewport is emulated in a window of the usual size."""
    return DEFAULT_DIMENSIONS if options.device is Device.MOBILE else options.size


def screen_of(options: SessionOptions, frame_height: int) -> Dimensions:
    """The size of the window of a full Chromium, and of a screen that it fills."""
    size = viewport_of_window(options)
    return Dimensions(max(size.width, MIN_WINDOW_WIDTH), size.height + frame_height)


def _window(options: SessionOptions, frame_height: int) -> tuple[str, ...]:
    """Flags that make the viewport of every page exactly as large as asked for."""
    size_asked = viewport_of_window(options)
    width, height = size_asked.width, size_asked.height
    if options.browser is Browser.HEADLESS_SHELL:
        bars = () if disguised(options.stealth) else ("--hide-scrollbars",)
        return ("--headless", f"--window-size={width},{height}", *bars, *_screen(options, 0))
    width = max(width, MIN_WINDOW_WIDTH)
    size = (
        # The warnings about unsafe flags would take 56 pixels from the first page.
        "--test-type",
        f"--window-size={width},{height + frame_height}",
    )
    if not options.headless:
        # Without a graphics card a window would have no WebGL, which one without a window has.
        return (*size, "--window-position=0,0", "--enable-unsafe-swiftshader")
    # A window is never larger than its screen, and a headless one is 800×600 if not told.
    return ("--headless=new", *size, *_screen(options, frame_height))


def screen_around(window: Dimensions, stealth: Stealth | None) -> Dimensions:
    """A screen as large as the *window*, or one that a person has and that is larger."""
    if not disguised(stealth):
        return window
    height = window.height + FRAME_HEIGHT  # the shell's windows only seem to have a frame
    fitting = (one for one in SCREENS if one.width > window.width and one.height > height)
    return next(fitting, window)


def _screen(options: SessionOptions, frame_height: int) -> tuple[str, ...]:
    if options.browser is Browser.HEADLESS_SHELL and not disguised(options.stealth):
        return ()
    screen = screen_around(screen_of(options, frame_height), options.stealth)
    return (f"--screen-info={{{screen.width}x{screen.height}}}",)


def environment(
    folder: Path,
    *,
    headless: bool,
    environ: Mapping[str, str] | None = None,
    linux: bool = sys.platform == "linux",
) -> dict[str, str]:
    """What the browser's process sees: its own folders, and nothing of ours that it need not.

    API keys in our environment are none of its business. *environ* is ours. The browser has to be
    started with *folder* as its working directory.
    """
    ours = os.environ if environ is None else environ
    own = {
        "HOME": str(folder),
        **_temporary(folder / "tmp", linux=linux),
        "XDG_CONFIG_HOME": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "tmp"),
        "XDG_DATA_HOME": str(folder / "tmp"),
        # No desktop session to talk to: without a word here it would start one.
        "DBUS_SESSION_BUS_ADDRESS": "disabled:",
    }
    kept = ["PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "FONTCONFIG_PATH", "FONTCONFIG_FILE"]
    if not headless:
        kept += ["DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"]
    return {name: ours[name] for name in kept if name in ours} | own


def _temporary(folder: Path, *, linux: bool) -> dict[str, str]:
    """Where temporary files go.

    Chromium puts a socket there and aborts when its address is too long, which the path of a
    session's folder nearly always makes it. So Linux is given the same folder by a short name.
    """
    if linux:
        return {"TMPDIR": f"/proc/self/cwd/{folder.name}"}
    fits = len(str(folder)) + SOCKET_NAME_LENGTH < MAX_SOCKET_PATH
    return {"TMPDIR": str(folder), "MAC_CHROMIUM_TMPDIR": str(folder)} if fits else {}
