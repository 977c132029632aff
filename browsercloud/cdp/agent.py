"""A user agent string, and the client hints that say the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

BRANDS = {"Edg": "Microsoft Edge", "OPR": "Opera", "HeadlessChrome": "HeadlessChrome"}


PHONE = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{}.0.0.0 Mobile Safari/537.36"
)
"""What Chrome says on every Android: which one it is, and on what, only the hints tell."""


@frozen(kw_only=True)
class Agent:
    """A user agent, and what its hints say beyond the string."""

    user_agent: str
    hints: Mapping[str, Any] = field(factory=dict)
    """Fields of the override's metadata."""

    def override(self) -> dict[str, Any]:
        """The parameters of `Emulation.setUserAgentOverride`."""
        said = override(self.user_agent)
        metadata = said["userAgentMetadata"] | self.hints
        if full := self.hints.get("fullVersion"):
            metadata["fullVersionList"] = [
                one if one["brand"].startswith("Not") else {**one, "version": full}
                for one in metadata["fullVersionList"]
            ]
        return {**said, "userAgentMetadata": metadata}


def phone(version: str) -> Agent:
    """The agent of a Chrome of this *version* on a phone."""
    hints = {"fullVersion": version, "platformVersion": "15.0.0", "model": "Pixel 9"}
    return Agent(user_agent=PHONE.format(version.partition(".")[0]), hints=hints)


def override(user_agent: str) -> dict[str, Any]:
    """The parameters of `Emulation.setUserAgentOverride` for a user agent string.

    A browser of the Chromium family gets client hints that say the same as the string; any other
    sends none.
    """
    parameters: dict[str, Any] = {"userAgent": user_agent}
    platform, navigator_platform = _platform(user_agent)
    parameters["platform"] = navigator_platform
    parameters["userAgentMetadata"] = _metadata(user_agent, platform)
    return parameters


def _metadata(user_agent: str, platform: str) -> dict[str, Any]:
    brands = _brands(user_agent)
    return {
        "brands": [{"brand": name, "version": full.split(".")[0]} for name, full in brands],
        "fullVersionList": [{"brand": name, "version": full} for name, full in brands],
        "fullVersion": brands[0][1] if brands else "",
        "platform": platform,
        "platformVersion": _platform_version(user_agent),
        "architecture": "" if "Mobile" in user_agent else "x86",
        "bitness": "" if "Mobile" in user_agent else "64",
        "model": _model(user_agent),
        "mobile": "Mobile" in user_agent,
        "wow64": False,
        "formFactors": ["Mobile" if "Mobile" in user_agent else "Desktop"],
    }


def _brands(user_agent: str) -> list[tuple[str, str]]:
    """(name, full version), Chromium first; empty for another family, such as Firefox."""
    chromium = re.search(r"(?:Headless)?Chrome/(\d[\d.]*)", user_agent)
    if chromium is None:
        return []
    brands = [("Chromium", chromium.group(1))]
    for token, name in BRANDS.items():
        if found := re.search(rf"{token}[A-Z]*/(\d[\d.]*)", user_agent):
            brands.append((name, found.group(1)))
            break
    else:
        brands.append(("Google Chrome", chromium.group(1)))
    # A brand that is none, as Chromium itself sends, so that nobody relies on the list.
    return [*brands, ("Not.A/Brand", "99.0.0.0")]


def _platform(user_agent: str) -> tuple[str, str]:
    """The client hint's name of the platform, and `navigator.platform`."""
    for mark, names in {
        "Windows": ("Windows", "Win32"),
        "Android": ("Android", "Linux armv81"),
        "iPhone": ("iOS", "iPhone"),
        "iPad": ("iOS", "iPad"),
        "CrOS": ("Chrome OS", "Linux x86_64"),
        "Mac OS X": ("macOS", "MacIntel"),
    }.items():
        if mark in user_agent:
            return names
    return ("Linux", "Linux x86_64")


def _platform_version(user_agent: str) -> str:
    found = re.search(r"(?:Windows NT|Android|Mac OS X|CPU (?:iPhone )?OS) ([\d._]+)", user_agent)
    return found.group(1).replace("_", ".") if found else ""


def _model(user_agent: str) -> str:
    found = re.search(r"Android [\d.]+; ([^;)]+?)(?: Build/[^)]*)?\)", user_agent)
    return found.group(1) if found else ""
