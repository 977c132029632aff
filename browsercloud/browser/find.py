"""Where Chromium is on this machine.

Looked at in order: the setting, Playwright's own downloads (newest first), Chrome, Chromium, each
on `PATH` and in the places where systems put it. What is found is always the program itself, never
a shell wrapper: a wrapper adds flags of its own, and a signal for it does not reach the browser.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

from browsercloud.errors import BrowserNotFound
from browsercloud.options import Browser

VERSION_TIMEOUT = 10.0
INSTALL_HINT = "run `browsercloud install` to get one"

MAX_SCRIPT_BYTES = 64 * 1024
MAX_SCRIPT_DEPTH = 3

# ELF, then Mach-O in its byte orders and as a universal file.
MAGIC = (
    b"\x7fELF",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xcf\xfa\xed\xfe",
    b"\xce\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
)

SHELL_PROGRAMS = ("chrome-headless-shell", "headless_shell", "chromium-headless-shell")
CHROMIUM_PROGRAMS = ("chrome", "chromium", "chromium-browser", "google-chrome")

ON_PATH: Mapping[Browser, tuple[str, ...]] = {
    Browser.CHROMIUM: ("google-chrome-stable", "google-chrome", "chromium", "chromium-browser"),
    Browser.HEADLESS_SHELL: SHELL_PROGRAMS,
}

_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
WELL_KNOWN: Mapping[tuple[str, Browser], tuple[str, ...]] = {
    ("linux", Browser.CHROMIUM): (
        "/opt/google/chrome/chrome",
        *(f"{lib}/chromium/chromium" for lib in _LIBRARIES),
        *(f"{lib}/chromium-browser/chromium-browser" for lib in _LIBRARIES),
        *(f"{lib}/chromium/chrome" for lib in _LIBRARIES),
    ),
    ("linux", Browser.HEADLESS_SHELL): (
        *(f"{lib}/chromium/chromium-headless-shell" for lib in _LIBRARIES),
        *(f"{lib}/chromium/headless_shell" for lib in _LIBRARIES),
        *(f"{lib}/chromium-browser/headless_shell" for lib in _LIBRARIES),
        "/headless-shell/headless-shell",
    ),
    ("darwin", Browser.CHROMIUM): (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ),
    ("darwin", Browser.HEADLESS_SHELL): (),
}

# Playwright's folders: `chromium-1200/chrome-linux64/chrome` and the like, names vary by release.
PLAYWRIGHT: Mapping[Browser, tuple[str, tuple[str, ...]]] = {
    Browser.CHROMIUM: (
        "chromium-*",
        ("chrome-linux*/chrome", "chrome-mac*/*.app/Contents/MacOS/*"),
    ),
    Browser.HEADLESS_SHELL: (
        "chromium_headless_shell-*",
        tuple(f"chrome-*/{name}" for name in SHELL_PROGRAMS),
    ),
}


@frozen
class Found:
    """A browser's program, which kind it is, and how it was found."""

    path: Path
    kind: Browser
    source: str


def find(
    kind: Browser,
    setting: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    platform: str = sys.platform,
) -> Found:
    """The program for *kind*. *setting* is the path that the user has given, if any.

    Never answers with the other kind: they differ in what they can do. Raises `BrowserNotFound`
    with every place that was looked at; a setting that leads nowhere is never passed over.
    *environ* is only for `PATH`, `HOME` and where Playwright keeps its downloads.
    """
    places = os.environ if environ is None else environ
    if setting is not None:
        return _from_setting(kind, Path(setting))
    looked: list[str] = []
    found = _first(kind, places, platform, looked)
    if found is None:
        raise BrowserNotFound(_nothing(kind, places, platform, looked), looked=looked)
    return found


def version(path: Path) -> str | None:
    """What the program says of itself; `None` if it says nothing within 10 s. Blocks."""
    try:
        answer = subprocess.run(  # noqa: S603 - the browser itself
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"\d+(\.\d+){1,3}", answer.stdout.decode(errors="replace"))
    return None if number is None else number.group()


def _from_setting(kind: Browser, path: Path) -> Found:
    program = resolve(path.expanduser())
    if program is None:
        raise BrowserNotFound(
            f"the setting for browser {kind.value!r} is {str(path)!r}, and there is no program "
            f"that can be run; correct it, or leave it out and {INSTALL_HINT}",
            looked=[str(path)],
        )
    real = kind_of(program)
    if real is not None and real is not kind:
        raise BrowserNotFound(
            f"the setting for browser {kind.value!r} is {str(path)!r}, which is a {real.value}; "
            f"give it as the setting for {real.value!r}",
            looked=[str(path)],
        )
    return Found(program, kind, "setting")


def _first(
    kind: Browser, environ: Mapping[str, str], platform: str, looked: list[str]
) -> Found | None:
    for candidate, source in _candidates(kind, environ, platform, looked):
        program = resolve(candidate)
        if program is not None and kind_of(program) in (kind, None):
            return Found(program, kind, source)
    return None


def _candidates(
    kind: Browser, environ: Mapping[str, str], platform: str, looked: list[str]
) -> Iterator[tuple[Path, str]]:
    for folder in _playwright_folders(environ, platform):
        pattern, programs = PLAYWRIGHT[kind]
        looked.append(str(folder / pattern))
        for revision in sorted(folder.glob(pattern), key=_revision, reverse=True):
            for program in programs:
                for path in sorted(revision.glob(program)):
                    yield path, f"Playwright's {revision.name}"
    folders = [Path(part) for part in environ.get("PATH", "").split(os.pathsep) if part]
    looked.append(f"{', '.join(ON_PATH[kind])} on PATH")
    for name in ON_PATH[kind]:
        yield from ((folder / name, "PATH") for folder in folders)
    for place in WELL_KNOWN.get((platform, kind), ()):
        looked.append(place)
        yield Path(place), "well-known place"


def _playwright_folders(environ: Mapping[str, str], platform: str) -> Iterator[Path]:
    home = Path(environ.get("HOME") or Path.home())
    setting = environ.get("PLAYWRIGHT_BROWSERS_PATH")
    if setting == "0":  # Playwright's word for "inside the package itself"
        spec = find_spec("playwright")
        for location in (spec and spec.submodule_search_locations) or ():
            yield Path(location, "driver", "package", ".local-browsers")
    elif setting:
        yield Path(setting).expanduser()
    elif platform == "darwin":
        yield home / "Library/Caches/ms-playwright"
    else:
        yield Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "ms-playwright"


def _revision(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def kind_of(program: Path) -> Browser | None:
    """Which kind a program is by its name; `None` if the name tells nothing."""
    name = program.name.lower()
    if name.replace("-", "_").endswith("headless_shell"):
        return Browser.HEADLESS_SHELL
    if name in CHROMIUM_PROGRAMS or name.startswith(("google chrome", "chromium")):
        return Browser.CHROMIUM
    return None


def resolve(path: Path, depth: int = MAX_SCRIPT_DEPTH) -> Path | None:
    """The program behind *path*, wrapper scripts followed; `None` if there is none to run."""
    try:
        real = path.resolve(strict=True)
        with real.open("rb") as file:
            head = file.read(MAX_SCRIPT_BYTES)
    except (OSError, RuntimeError):
        return None
    if not real.is_file() or not os.access(real, os.X_OK):
        return None
    if head.startswith(MAGIC):
        # A snap sees neither our folders nor our signals; its launcher bears the name `snap`.
        return None if real.name == "snap" else real
    if not head.startswith(b"#!") or depth == 0:
        return None
    script = head.decode(errors="replace")
    for target in _targets(script, real):
        program = resolve(target, depth - 1)
        if program is not None and kind_of(program) is not None:
            return program
    return None


def _targets(script: str, path: Path) -> Iterator[Path]:
    """Programs that a wrapper script may start: its `exec` lines first, then any other command."""
    variables = {"HERE": str(path.parent)}
    for name, value in re.findall(r"^\s*(?:export\s+)?(\w+)=(\S+)\s*$", script, re.MULTILINE):
        plain = value.strip("\"'")
        if "$(" not in plain and "`" not in plain:
            variables.setdefault(name, _expand(plain, variables))
    commands = re.findall(
        r"^\s*(exec\s+)?(?:-a\s+\S+\s+)?([\"']?[/$][^\s\"']*)", script, re.MULTILINE
    )
    for _, word in sorted(commands, key=lambda command: not command[0]):
        target = Path(_expand(word.strip("\"'"), variables))
        if target.is_absolute() and target != path:
            yield target
    # A script that says it in a way we cannot read lies beside the program as often as not.
    for name in (*CHROMIUM_PROGRAMS, *SHELL_PROGRAMS):
        if name != path.name:
            yield path.parent / name


def _expand(word: str, variables: Mapping[str, str]) -> str:
    return re.sub(
        r"\$\{?(\w+)\}?", lambda match: variables.get(match.group(1), match.group(0)), word
    )


def _nothing(kind: Browser, environ: Mapping[str, str], platform: str, looked: list[str]) -> str:
    text = (
        f"no browser {kind.value!r} on this machine; {INSTALL_HINT}, or set its path. "
        f"Looked at: {'; '.join(looked)}"
    )
    other = Browser.HEADLESS_SHELL if kind is Browser.CHROMIUM else Browser.CHROMIUM
    found = _first(other, environ, platform, [])
    if found is not None:
        text += (
            f". There is a {other.value} at {found.path}: ask for it with browser={other.value!r}"
        )
    return text
