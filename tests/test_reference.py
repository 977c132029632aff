"""The table of options in the README is that of the model."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from browsercloud.browser.warm import needs_fresh
from browsercloud.options import (
    Browser,
    Dimensions,
    Seconds,
    SessionOptions,
)

README = (Path(__file__).parents[1] / "README.md").read_text()
SECTION = README.partition("### Options\n")[2].partition("\n### ")[0]
ROWS = {
    cells[0]: cells
    for cells in (
        [cell.strip(" `") for cell in row.strip("|").split("|")]
        for row in SECTION.splitlines()
        if row.startswith("| `")
    )
}
FIELDS = {each.name: each for each in attrs.fields(SessionOptions)}

WORDS = {
    "idle_timeout": "off",
    "dimensions": "1280 × 720",
    "user_agent": "Chromium's own",
    "locale": "the machine's",
    "timezone": "the machine's",
    "start_url": "about:blank",
}
"""Defaults that are written in words."""


def test_every_option_has_its_row() -> None:
    """In the model's order, and none that is not there."""
    assert list(ROWS) == list(FIELDS)


@pytest.mark.parametrize("name", list(FIELDS))
def test_defaults_are_those_of_the_model(name: str) -> None:
    """As numbers and words; what is empty is called none."""
    value = getattr(SessionOptions(), name)
    nothing = value is None or value == {} or value == ()
    expected = WORDS.get(name) or ("none" if nothing else str(value))
    assert expected == ROWS[name][2]


def test_units_are_those_of_the_model() -> None:
    """Durations are in seconds, and nothing else is."""
    durations = {name for name, each in FIELDS.items() if "Seconds" in str(each.type)}
    assert durations == {name for name, cells in ROWS.items() if cells[1] == "seconds"}
    assert Seconds(300) == SessionOptions().timeout
    assert re.fullmatch(r"(\d+) × (\d+)", WORDS["dimensions"])
    assert Dimensions(1280, 720) == SessionOptions().size


@pytest.mark.parametrize("name", list(FIELDS))
def test_what_needs_a_fresh_browser_is_told(name: str) -> None:
    """As the pool decides it."""
    others = {"headless": False, "browser": Browser.HEADLESS_SHELL, "device": "mobile"}
    if name not in others:
        assert not ROWS[name][4].startswith("no")
        return
    fresh = needs_fresh(SessionOptions(**{name: others[name]}))  # type: ignore[arg-type]
    assert fresh is ROWS[name][4].startswith("no")
