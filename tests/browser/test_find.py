"""Where browsers are found, wrappers seen through, and the two kinds never mixed up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from browsercloud.browser import find as finding
from browsercloud.browser.find import find, kind_of, resolve, version
from browsercloud.errors import BrowserNotFound
from browsercloud.options import Browser

ELF = b"\x7fELF and more"


def _program(path: Path, content: bytes = ELF) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine without a browser: its environment, with an empty home and an empty PATH."""
    monkeypatch.setattr(finding, "WELL_KNOWN", {})
    return {"HOME": str(root / "home"), "PATH": str(root / "bin")}


def test_the_browsers_of_this_machine_are_programs() -> None:
    """What is found is a binary of its kind with a version, never a wrapper script."""
    for kind in Browser:
        found = find(kind)
        assert kind is found.kind
        assert found.path.read_bytes()[:4] in finding.MAGIC
        assert version(found.path) is not None


def test_a_setting_wins(root: Path) -> None:
    """A path that the user gives is taken, whatever else there is."""
    program = _program(root / "chrome")
    assert program == find(Browser.CHROMIUM, program).path


@pytest.mark.parametrize("content", [None, b"#!/bin/sh\necho\n", b"text"])
def test_a_setting_that_leads_nowhere_is_an_error(root: Path, content: bytes | None) -> None:
    """It is named and never passed over, though there are other browsers."""
    path = root / "mine"
    if content is not None:
        _program(path, content)
    with pytest.raises(BrowserNotFound, match=r"setting .*/mine.*browsercloud install") as caught:
        find(Browser.CHROMIUM, path)
    assert [str(path)] == caught.value.looked


def test_a_setting_of_the_other_kind_is_an_error(root: Path) -> None:
    """The headless shell is never taken for a full Chromium."""
    shell = _program(root / "headless_shell")
    with pytest.raises(BrowserNotFound, match="which is a headless-shell"):
        find(Browser.CHROMIUM, shell)


def test_nothing_at_all_lists_where_it_looked(nowhere: dict[str, str]) -> None:
    """The error names every place and the command to run."""
    with pytest.raises(BrowserNotFound, match="browsercloud install") as caught:
        find(Browser.CHROMIUM, environ=nowhere, platform="linux")
    assert ["ms-playwright/chromium-*", "on PATH"] == [
        place[-len(end) :]
        for place, end in zip(
            caught.value.looked, ("ms-playwright/chromium-*", "on PATH"), strict=True
        )
    ]


def test_the_other_kind_is_offered_and_not_taken(root: Path, nowhere: dict[str, str]) -> None:
    """With only a headless shell there, a full Chromium is an error that says how to use it."""
    shell = _program(root / "bin" / "chromium-headless-shell")
    with pytest.raises(BrowserNotFound, match=f"{shell}.*browser='headless-shell'"):
        find(Browser.CHROMIUM, environ=nowhere)
    assert shell == find(Browser.HEADLESS_SHELL, environ=nowhere).path


@pytest.mark.parametrize(
    ("kind", "folder", "program"),
    [
        (Browser.CHROMIUM, "chromium-{}", "chrome-linux64/chrome"),
        (Browser.CHROMIUM, "chromium-{}", "chrome-linux/chrome"),
        (Browser.CHROMIUM, "chromium-{}", "chrome-mac/Chromium.app/Contents/MacOS/Chromium"),
        (Browser.HEADLESS_SHELL, "chromium_headless_shell-{}", "chrome-linux/headless_shell"),
        (
            Browser.HEADLESS_SHELL,
            "chromium_headless_shell-{}",
            "chrome-headless-shell-linux64/chrome-headless-shell",
        ),
    ],
)
def test_playwrights_newest_download_is_taken(
    root: Path, nowhere: dict[str, str], kind: Browser, folder: str, program: str
) -> None:
    """By revision as a number: 999 is older than 1200."""
    for revision in (999, 1200, 1100):
        _program(root / "pw" / folder.format(revision) / program)
    found = find(kind, environ={**nowhere, "PLAYWRIGHT_BROWSERS_PATH": str(root / "pw")})
    assert root / "pw" / folder.format(1200) / program == found.path
    assert f"Playwright's {folder.format(1200)}" == found.source


@pytest.mark.parametrize(("platform", "cache"), [("linux", ".cache"), ("darwin", "Library/Caches")])
def test_playwrights_usual_folder_depends_on_the_system(
    root: Path, nowhere: dict[str, str], platform: str, cache: str
) -> None:
    """Without a setting its downloads are in the user's cache."""
    program = root / "home" / cache / "ms-playwright/chromium-1/chrome-linux/chrome"
    _program(program)
    assert program == find(Browser.CHROMIUM, environ=nowhere, platform=platform).path


@pytest.mark.parametrize(
    "script",
    [
        '#!/bin/sh\nexec {real}/chromium "$@"\n',
        '#!/bin/sh\nLIBDIR={real}\nNAME=chromium\nexec $LIBDIR/$NAME $FLAGS "$@"\n',
        '#!/bin/sh -e\n\n{real}/chromium "$@"\n',
        '#!/bin/bash\nexec -a "$0" "{real}/chromium" "$@"\n',
        "#!/bin/sh\n/bin/true\nif x; then\n  exec ${{DIR}}/x\nfi\n    exec '{real}/chromium'\n",
    ],
)
def test_a_wrapper_script_is_seen_through(root: Path, script: str) -> None:
    """The program that a script starts is what is run: signals must reach the browser."""
    real = _program(root / "lib" / "chromium").parent
    wrapper = _program(root / "bin" / "chromium", script.format(real=real).encode())
    assert real / "chromium" == resolve(wrapper)


def test_chromes_own_wrapper_is_seen_through(root: Path) -> None:
    """Its script finds the program beside itself, in a way that only a shell can read."""
    program = _program(root / "opt" / "chrome")
    script = b'#!/bin/bash\nHERE="`dirname "$X"`"\nexec -a "$0" "$HERE/chrome" "$@"\n'
    wrapper = _program(root / "opt" / "google-chrome", script)
    link = root / "google-chrome-stable"
    link.symlink_to(wrapper)
    assert program == resolve(link)


def test_scripts_that_start_each_other_end(root: Path) -> None:
    """A circle of wrappers is no browser, and no endless search."""
    first, second = root / "chromium", root / "chrome"
    _program(first, f"#!/bin/sh\nexec {second}\n".encode())
    _program(second, f"#!/bin/sh\nexec {first}\n".encode())
    assert resolve(first) is None


def test_a_snap_is_no_browser(root: Path) -> None:
    """Its launcher is a program, but what it starts cannot see our folders."""
    snap = _program(root / "snap")
    (root / "chromium").symlink_to(snap)
    assert resolve(root / "chromium") is None


def test_a_file_that_may_not_be_run_is_no_browser(root: Path) -> None:
    """The right content does not help without the right to run it."""
    program = _program(root / "chrome")
    program.chmod(0o644)
    assert resolve(program) is None


def test_kinds_are_told_by_name() -> None:
    """Names of both kinds on all systems; an unknown one tells nothing."""
    shells = ("headless_shell", "chrome-headless-shell", "chromium-headless-shell")
    assert {Browser.HEADLESS_SHELL} == {kind_of(Path(name)) for name in shells}
    full = ("chrome", "chromium", "Google Chrome for Testing", "Chromium")
    assert {Browser.CHROMIUM} == {kind_of(Path(name)) for name in full}
    assert kind_of(Path("mine")) is None


def test_a_program_without_a_version_has_none() -> None:
    """What does not answer to `--version` is not asked twice."""
    false = shutil.which("false")
    assert false is not None
    assert version(Path(false)) is None
