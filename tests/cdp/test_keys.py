"""Keys: what a page hears of each."""

from __future__ import annotations

import string

import pytest

from browsercloud.cdp.keys import MODIFIERS, NAMES, find_key, on_keyboard, shifted


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_key_in_any_case(name: str) -> None:
    """However it is written, it is the same one."""
    found = find_key(name)
    assert found is not None
    assert found == find_key(name.lower()) == find_key(name.upper())
    assert found.code


@pytest.mark.parametrize("char", string.printable.strip())
def test_a_character_of_the_keyboard_types_itself(char: str) -> None:
    """It has a place, and the page gets it as text."""
    key = find_key(char)
    assert key is not None
    assert (key.key, key.text, on_keyboard(char)) == (char, char, True)
    assert key.code
    assert key.number


def test_what_is_no_key() -> None:
    """A word that names none; any character is one, if need be without a place."""
    assert find_key("Anykey") is None
    assert find_key("") is None
    other = find_key("é")
    assert other is not None
    assert (other.text, other.code, on_keyboard("é")) == ("é", "", False)


def test_modifiers_change_what_is_typed() -> None:
    """Shift types the other character, Control and the like make a command of it."""
    one, enter = find_key("1"), find_key("Enter")
    assert one is not None
    assert enter is not None
    assert ("!", enter) == (shifted(one).text, shifted(enter))
    assert one.down(0)["text"] == one.down(MODIFIERS["Shift"])["text"] == "1"
    command = one.down(MODIFIERS["Control"] | MODIFIERS["Shift"])
    assert ("rawKeyDown", 10, False) == (command["type"], command["modifiers"], "text" in command)
    assert ("keyUp", 0) == (one.up(0)["type"], one.up(0)["modifiers"])
