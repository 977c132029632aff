"""Keys as a page hears of them, on a US keyboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

MODIFIERS: Mapping[str, int] = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
"""The bits by which events tell what is held."""


@frozen
class Key:
    """One key: its value and place as in `KeyboardEvent`, and what it types."""

    key: str
    code: str = ""
    number: int = 0
    """What Chromium tells it by: `keyCode`."""

    text: str = ""

    def down(self, held: int) -> Mapping[str, Any]:
        """The event of its going down while the modifiers *held* are down."""
        # With Control and the like a key is a command and types nothing.
        text = "" if held & ~MODIFIERS["Shift"] else self.text
        more = {"text": text} if text else {}
        return {"type": "keyDown" if text else "rawKeyDown", **more, **self._told(held)}

    def up(self, held: int) -> Mapping[str, Any]:
        """The event of its coming up again."""
        return {"type": "keyUp", **self._told(held)}

    def _told(self, held: int) -> Mapping[str, Any]:
        return {
            "key": self.key,
            "code": self.code,
            "windowsVirtualKeyCode": self.number,
            "modifiers": held,
        }


_NAMED = (
    Key("Enter", "Enter", 13, "\r"),
    Key("Tab", "Tab", 9),
    Key("Backspace", "Backspace", 8),
    Key("Delete", "Delete", 46),
    Key("Insert", "Insert", 45),
    Key("Escape", "Escape", 27),
    Key("Home", "Home", 36),
    Key("End", "End", 35),
    Key("PageUp", "PageUp", 33),
    Key("PageDown", "PageDown", 34),
    Key("ArrowLeft", "ArrowLeft", 37),
    Key("ArrowUp", "ArrowUp", 38),
    Key("ArrowRight", "ArrowRight", 39),
    Key("ArrowDown", "ArrowDown", 40),
    Key("CapsLock", "CapsLock", 20),
    Key("ContextMenu", "ContextMenu", 93),
    Key("Shift", "ShiftLeft", 16),
    Key("Control", "ControlLeft", 17),
    Key("Alt", "AltLeft", 18),
    Key("Meta", "MetaLeft", 91),
    *(Key(f"F{number}", f"F{number}", 111 + number) for number in range(1, 13)),
)

_ALSO_CALLED: Mapping[str, str] = {
    "Return": "Enter",
    "Esc": "Escape",
    "Del": "Delete",
    "Space": " ",
    "Ctrl": "Control",
    "Option": "Alt",
    "Cmd": "Meta",
    "Command": "Meta",
    "Super": "Meta",
    "Win": "Meta",
    "Left": "ArrowLeft",
    "Up": "ArrowUp",
    "Right": "ArrowRight",
    "Down": "ArrowDown",
    "PgUp": "PageUp",
    "PgDn": "PageDown",
    "Page_Up": "PageUp",
    "Page_Down": "PageDown",
}

_PUNCTUATION: Mapping[str, tuple[str, int]] = {
    ";:": ("Semicolon", 186),
    "=+": ("Equal", 187),
    ",<": ("Comma", 188),
    "-_": ("Minus", 189),
    ".>": ("Period", 190),
    "/?": ("Slash", 191),
    "`~": ("Backquote", 192),
    "[{": ("BracketLeft", 219),
    "\\|": ("Backslash", 220),
    "]}": ("BracketRight", 221),
    "'\"": ("Quote", 222),
}
_DIGITS = ")!@#$%^&*("

NAMES = (*(key.key for key in _NAMED), *_ALSO_CALLED)
"""The names of keys that type no character, as they are usually written."""


def _characters() -> Mapping[str, tuple[Key, str]]:
    """Every character of the keyboard: its key, and what that types with Shift."""
    found: dict[str, tuple[Key, str]] = {" ": (Key(" ", "Space", 32, " "), " ")}

    def put(plain: str, shifted: str, code: str, number: int) -> None:
        for char in (plain, shifted):
            found[char] = (Key(char, code, number, char), shifted)

    for letter in "abcdefghijklmnopqrstuvwxyz":
        put(letter, letter.upper(), f"Key{letter.upper()}", ord(letter.upper()))
    for digit, shifted in enumerate(_DIGITS):
        put(str(digit), shifted, f"Digit{digit}", ord(str(digit)))
    for pair, (code, number) in _PUNCTUATION.items():
        put(pair[0], pair[1], code, number)
    return found


_CHARACTERS = _characters()
_BY_NAME = {key.key.lower(): key for key in _NAMED} | {"\n": _NAMED[0], "\t": _NAMED[1]}
_ALIASES = {name.lower(): meant.lower() for name, meant in _ALSO_CALLED.items()}


def find_key(name: str) -> Key | None:
    """The key of a character, or one of `NAMES` in any case; `None` if there is no such name.

    A character that is not on the keyboard is a key without a place.
    """
    if name in _CHARACTERS:
        return _CHARACTERS[name][0]
    plain = name.lower()
    plain = _ALIASES.get(plain, plain)
    if plain in _BY_NAME:
        return _BY_NAME[plain]
    if plain in _CHARACTERS:
        return _CHARACTERS[plain][0]
    return Key(name, text=name) if len(name) == 1 else None


def on_keyboard(char: str) -> bool:
    """Whether a character can be typed with a key."""
    return char in _CHARACTERS or char in _BY_NAME


def shifted(key: Key) -> Key:
    """The same key with what it types while Shift is held."""
    if key.key not in _CHARACTERS:
        return key
    char = _CHARACTERS[key.key][1]
    return evolve(key, key=char, text=char)
