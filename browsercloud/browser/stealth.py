"""How a browser of ours passes for a person's: switches, and what its pages are told.

Measured with Chromium 156 against the same program with a window: headless, it says so in its user
agent, has no pointer, a screen as small as its window, and draws with software, as no person does.
The headless shell also lacks plugins, `window.chrome`, scrollbars and a second language, refuses
notifications unasked, and its window has no frame. What is right already is left alone. The pool of
agents is derived from the browser itself: Chrome says the same on all machines of a platform but
for its version, and that has to be the real one, as pages can tell by what works.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from attrs import frozen

from browsercloud.browser.flags import FRAME_HEIGHT
from browsercloud.cdp.agent import Agent
from browsercloud.options import Browser, SessionOptions
from browsercloud.stealth import disguised, luck
from browsercloud.wanted import Device

CORES = (4, 8, 8, 12, 16)
GREASE, GREASE_VERSIONS = " (:-./);=?_", ("8", "99", "24")
ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@frozen
class Platform:
    """One kind of machine that people have."""

    words: str
    """In the user agent."""

    versions: tuple[str, ...]
    """In the hints."""

    architecture: str
    renderers: tuple[tuple[str, str], ...]
    """Vendor and renderer, as WebGL names what draws."""


def _direct3d(vendor: str, card: str) -> tuple[str, str]:
    drawn = f"ANGLE ({vendor}, {card} Direct3D11 vs_5_0 ps_5_0, D3D11)"
    return f"Google Inc. ({vendor})", drawn


def _metal(chip: str) -> tuple[str, str]:
    return (
        "Google Inc. (Apple)",
        f"ANGLE (Apple, ANGLE Metal Renderer: {chip}, Unspecified Version)",
    )


def _mesa(card: str) -> tuple[str, str]:
    return "Google Inc. (Intel)", f"ANGLE (Intel, Mesa {card}, OpenGL 4.6)"


PLATFORMS: Mapping[str, Platform] = {
    "Windows": Platform(
        words="Windows NT 10.0; Win64; x64",
        versions=("10.0.0", "15.0.0", "19.0.0"),
        architecture="x86",
        renderers=(
            _direct3d("Intel", "Intel(R) UHD Graphics 620 (0x00005917)"),
            _direct3d("Intel", "Intel(R) Iris(R) Xe Graphics (0x00009A49)"),
            _direct3d("NVIDIA", "NVIDIA GeForce RTX 3060 (0x00002504)"),
            _direct3d("NVIDIA", "NVIDIA GeForce GTX 1650 (0x00001F82)"),
            _direct3d("AMD", "AMD Radeon(TM) Graphics (0x00001638)"),
        ),
    ),
    "Mac OS X": Platform(
        words="Macintosh; Intel Mac OS X 10_15_7",
        versions=("14.7.1", "15.5.0", "15.7.1", "26.1.0"),
        architecture="arm",
        renderers=(_metal("Apple M1"), _metal("Apple M2"), _metal("Apple M3")),
    ),
    "Linux": Platform(
        words="X11; Linux x86_64",
        versions=("",),
        architecture="x86",
        renderers=(
            _mesa("Intel(R) UHD Graphics 620 (KBL GT2)"),
            _mesa("Intel(R) Xe Graphics (TGL GT2)"),
        ),
    ),
}
PHONE = ("Qualcomm", "Adreno (TM) 740")
FREQUENT = ("Windows", "Windows", "Windows", "Mac OS X", "Linux")
"""From which one is picked: about as people have them."""

OURS = "Linux"
"""What this Chromium says by itself; on macOS its string says otherwise, and is kept."""


@frozen
class Disguise:
    """What the pages of one session are told."""

    agent: Agent
    cores: int
    script: str
    """For every document and worker, before its own first script."""


def switches(options: SessionOptions) -> tuple[str, ...]:
    """What only a start can do."""
    if not disguised(options.stealth):
        return ()
    mouse = "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
    return ("--disable-blink-features=AutomationControlled", f"--blink-settings={mouse}")


def disguise(
    options: SessionOptions, product: str, session_id: str, agent: Agent | None
) -> Disguise | None:
    """What to tell the pages of a session in *product*; `None` when it wears no disguise.

    *agent* is what they are told anyway, and stays.
    """
    if options.stealth is None or not disguised(options.stealth):
        return None
    chance = luck(session_id, "machine")
    name = chance.choice(FREQUENT) if options.stealth.randomize_user_agent else OURS
    if agent is not None:
        name = next((one for one in PLATFORMS if one in agent.user_agent), OURS)
    platform = PLATFORMS[name]
    mobile = options.device is Device.MOBILE
    vendor, renderer = PHONE if mobile else chance.choice(platform.renderers)
    worn = agent or chrome(platform, product.partition("/")[2], chance.choice(platform.versions))
    facts = {
        "platform": worn.override()["platform"],
        "agent": worn.user_agent,
        "vendor": vendor,
        "renderer": renderer,
        "shell": options.browser is Browser.HEADLESS_SHELL and not mobile,
        "frame": FRAME_HEIGHT,
    }
    return Disguise(
        agent=worn,
        cores=8 if mobile else chance.choice(CORES),
        script=f"{_script()}({json.dumps(facts)})",
    )


def chrome(platform: Platform, version: str, platform_version: str) -> Agent:
    """Google Chrome of this full *version* on a machine of this kind."""
    major = version.partition(".")[0]
    brands = [{"brand": name, "version": full} for name, full in _brands(int(major), version)]
    hints: dict[str, Any] = {
        "brands": [{**one, "version": one["version"].partition(".")[0]} for one in brands],
        "fullVersionList": brands,
        "fullVersion": version,
        "platformVersion": platform_version,
        "architecture": platform.architecture,
        "bitness": "64",
    }
    words = f"Mozilla/5.0 ({platform.words}) AppleWebKit/537.36 (KHTML, like Gecko)"
    return Agent(user_agent=f"{words} Chrome/{major}.0.0.0 Safari/537.36", hints=hints)


def _brands(major: int, version: str) -> list[tuple[str, str]]:
    """In Chrome's own order, with the brand that is none as it spells it: both by its version."""
    first, second = (GREASE[(major + n) % len(GREASE)] for n in (0, 1))
    none = (f"Not{first}A{second}Brand", f"{GREASE_VERSIONS[major % 3]}.0.0.0")
    named = [none, ("Chromium", version), ("Google Chrome", version)]
    places = ORDERS[major % len(ORDERS)]
    return [brand for _, brand in sorted(zip(places, named, strict=True))]


@cache
def _script() -> str:
    source = Path(__file__).with_suffix(".js").read_text()
    return re.sub(r"(?m)^\s*//.*\n", "", source).strip()
