"""All that one browser started: found, ended, and its folder removed.

Standard library only, and nothing of this package: the guard runs this file by itself, see `main`.

A process id alone proves nothing, as the number may belong to a stranger by now. So a process is
taken for a browser's own only if it was given the browser's folder, or belongs to its group while
the leader is known by its start time, or, with the leader gone, runs its program in that group.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PROC = Path("/proc")
KILL_PATIENCE = 5.0
REMOVE_PATIENCE = 5.0
POLL_INTERVAL = 0.02
PARENT_INTERVAL = 0.5
"""How often the guard asks for its parent where the kernel cannot tell it of the end."""

PARENT_PATIENCE = 2.0
"""Seconds for a parent that has let go of the pipe to be seen dead."""

HEIR_INTERVAL = 0.2
"""How often the guard of a dead engine looks whether a successor has come."""


class Mark(NamedTuple):
    """By what a browser is known: its leader (also the number of its group) and its folder."""

    pid: int
    start: int
    boot: str
    program: str
    folder: str


class Process(NamedTuple):
    """One process as the system shows it; `start` is only good for comparing."""

    pid: int
    group: int
    start: int
    zombie: bool
    command: str


def mark(pid: int, program: str, folder: str) -> Mark:
    """The mark of a leader that was just started. A leader already gone gets start time 0."""
    leader = look(pid)
    return Mark(pid, leader.start if leader else 0, boot_id(), program, folder)


def boot_id() -> str:
    """Which boot this is, as start times of another one mean nothing; empty where not told."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def look(pid: int) -> Process | None:
    """The process with this id, or `None`."""
    if not has_proc():
        return next((process for process in _from_ps("-p", str(pid)) if process.pid == pid), None)
    return _from_proc(str(pid))


def _from_proc(name: str) -> Process | None:
    # Plain words and no `Path`, and bytes: each end of a browser reads this of every process.
    try:
        with open(f"{PROC}/{name}/stat", "rb") as one, open(f"{PROC}/{name}/cmdline", "rb") as two:
            stat, command = one.read(), two.read()
        # The name in parentheses may hold anything, spaces and parentheses too.
        fields = stat[stat.rindex(b")") + 2 :].split(None, 20)
    except (OSError, ValueError):
        return None
    text = command.replace(b"\0", b" ").decode(errors="replace")
    return Process(int(name), int(fields[2]), int(fields[19]), fields[0] in b"ZX", text)


def has_proc() -> bool:
    """Whether `/proc` shows processes, as on Linux."""
    return (PROC / "self/stat").exists()


def processes() -> Iterator[Process]:
    """Every process that can be seen."""
    if not has_proc():
        yield from _from_ps("-A")
        return
    for name in os.listdir(PROC):
        if name.isdigit() and (process := _from_proc(name)) is not None:
            yield process


def _from_ps(*which: str) -> Iterator[Process]:
    import subprocess  # where there is no /proc: the guard starts faster without it

    listing = subprocess.run(  # noqa: S603 - fixed words and a number
        ["ps", *which, "-ww", "-o", "pid=,pgid=,stat=,lstart=,command="],  # noqa: S607 - its place differs by system
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    for line in listing.stdout.decode(errors="replace").splitlines():
        parts = line.split(None, 8)
        if len(parts) >= 8:
            started = time.strptime(" ".join(parts[3:8]), "%a %b %d %H:%M:%S %Y")
            command = parts[8] if len(parts) == 9 else ""
            yield Process(
                int(parts[0]), int(parts[1]), int(time.mktime(started)), "Z" in parts[2], command
            )


def members(browser: Mark, everyone: Sequence[Process] | None = None) -> list[Process]:
    """What still lives of a browser. Zombies do not count: pid 1 may never collect them."""
    everyone = list(processes()) if everyone is None else everyone
    same_boot = browser.boot == boot_id()
    leader = next((one for one in everyone if one.pid == browser.pid), None)
    known = leader is not None and same_boot and leader.start == browser.start
    # A mark without a leader only tells the folder; group 0 is the kernel's.
    stranger = not browser.pid or not same_boot or (leader is not None and not known)
    # Crashpad's handlers leave the group; they carry the folder in their arguments.
    folder = f"={browser.folder}/"
    own = (browser.program, "/proc/self/exe")

    def belongs(one: Process) -> bool:
        if one.zombie:
            return False
        if folder in one.command:
            return True
        in_group = one.group == browser.pid and one.start >= browser.start and not stranger
        return in_group and (known or one.command.startswith(own))

    return [one for one in everyone if belongs(one)]


def send(process: Process, number: signal.Signals) -> None:
    """Signal exactly this process; nothing if it has gone meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        handle = hold(process.pid)
        try:
            # Asked again with the handle held: now the number cannot change its owner unnoticed.
            now = look(process.pid)
            if now is None or now.start != process.start:
                return
            if handle is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
        finally:
            if handle is not None:
                os.close(handle)


def hold(pid: int) -> int | None:
    """A descriptor that stands for this very process; `None` where the kernel has none.

    Raises `ProcessLookupError` if there is no such process.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # macOS; a kernel before 5.3, or a container that forbids it
        return None


def kill(browser: Mark, patience: float = KILL_PATIENCE) -> list[Process]:
    """SIGKILL all of a browser until nothing lives; returns what lives after *patience* seconds.

    Blocks. For browsers that somebody else started: it never signals a group by its number.
    """
    end = time.monotonic() + patience
    while (living := members(browser)) and time.monotonic() < end:
        for process in living:
            with contextlib.suppress(PermissionError):
                send(process, signal.SIGKILL)
        time.sleep(POLL_INTERVAL)
    return living


def remove(folder: str, patience: float = REMOVE_PATIENCE) -> None:
    """Remove a folder, again while something still writes into it. Blocks.

    A folder that is not there is fine. Raises `OSError` after *patience* seconds.
    """
    _forget_display(folder)
    end = time.monotonic() + patience
    while True:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if not os.path.lexists(folder):
                return
        except OSError:
            if time.monotonic() > end:
                raise
        else:
            return
        time.sleep(POLL_INTERVAL)


def _forget_display(folder: str) -> None:
    """Remove what an X server of the folder's leaves in the system when it is killed."""
    with contextlib.suppress(OSError, ValueError):
        number, pid = map(int, Path(folder, "display").read_text().split())
        import socket  # most have none: the guard starts faster without it

        now = look(pid)
        address = f"/tmp/.X11-unix/X{number}"  # noqa: S108 - where X servers listen
        if now is not None and not now.zombie:
            return
        with socket.socket(socket.AF_UNIX) as knock:
            if knock.connect_ex(address) == errno.ECONNREFUSED:  # else another one has it by now
                os.unlink(address)


# The guard: this file as a program ------------------------------------------------------------


class Watched:
    """What the guard was told of: browsers and folders, each under the name of its session."""

    def __init__(self) -> None:
        self.browsers: dict[str, Mark] = {}
        self.folders: dict[str, str] = {}
        self.adoptable: set[str] = set()
        """Sessions whose browser a successor could take over."""

        self.orderly = False
        self.ended = False
        """Whether the parent wants all of it gone now."""

        self.taken = False
        """Whether the parent has seen to everything that an earlier engine left."""

        self._rest = b""

    def read(self) -> bool:
        """Hear what is in the pipe; whether there may come more."""
        piece = os.read(0, 65536)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self.hear(line)
        return bool(piece)

    def hear(self, line: bytes) -> None:
        """One message: the keys are the methods of `guard.Guard`, `bye` and `end` its `close`."""
        message: dict[str, Any] = json.loads(line)
        if "folder" in message:
            key, path = message["folder"]
            self.folders[key] = path
        if "browser" in message:
            key, fields = message["browser"]
            self.browsers[key] = Mark(*fields)
        if "adoptable" in message:
            self.adoptable.add(message["adoptable"])
        self.adoptable -= {message.get("ending"), message.get("gone")}
        if "gone" in message:
            self.browsers.pop(message["gone"], None)
            self.folders.pop(message["gone"], None)
        self.orderly = self.orderly or "bye" in message
        self.ended = self.ended or "end" in message
        self.taken = self.taken or "taken" in message

    def clear(self, keys: Iterable[str]) -> None:
        """End and remove everything that is left under these names."""
        # A browser started a moment before the end may not have been told yet: the folder in its
        # arguments gives it away.
        chosen = [(key, self.folders.pop(key)) for key in keys if key in self.folders]
        browsers = [self.browsers.get(key, Mark(0, 0, "", "", folder)) for key, folder in chosen]
        everyone = list(processes())
        for process in {one for browser in browsers for one in members(browser, everyone)}:
            with contextlib.suppress(PermissionError):
                send(process, signal.SIGKILL)
        for browser in browsers:
            kill(browser)
        for _, folder in reversed(chosen):
            with contextlib.suppress(OSError):  # there is nobody left to tell; a sweep comes later
                remove(folder)


class Deed(NamedTuple):
    """What the lock file of a data folder says. It names its owner for as long as no other comes.

    `taken`: the owner has seen to all that its predecessor left, and its guard knows the rest.
    """

    pid: int
    start: int
    nonce: str
    taken: bool = False


def read_deed(fd: int) -> Deed | None:
    """What is written there; `None` while it is being written."""
    try:
        pid, start, nonce, taken = json.loads(os.pread(fd, 4096, 0))
        return Deed(int(pid), int(start), str(nonce), bool(taken))
    except (OSError, ValueError, TypeError):
        return None


def write_deed(fd: int, deed: Deed) -> None:
    """Write it; only for whoever holds the lock."""
    text = json.dumps(deed).encode()
    os.pwrite(fd, text, 0)
    os.ftruncate(fd, len(text))


def watch(parent: int, watched: Watched, lock: int | None = None) -> None:
    """Listen until the parent parts from us, closes the pipe, or is gone."""
    handle = hold(parent)
    sources = [0] if handle is None else [0, handle]
    while not (watched.orderly or watched.ended) and os.getppid() == parent:
        ready, _, _ = select.select(sources, [], [], PARENT_INTERVAL)
        if 0 in ready:
            if not watched.read():
                return
            _sign(watched, lock)
        elif handle in ready:  # what it wrote last has been read by now
            return


def _sign(watched: Watched, lock: int | None) -> None:
    """Tell an earlier guard, in the lock file, that it may go: from now on it is our business."""
    if watched.taken and lock is not None:
        deed = read_deed(lock)
        if deed is not None and not deed.taken:
            write_deed(lock, deed._replace(taken=True))


def bequeath(watched: Watched, lock: int, grace: float) -> None:
    """Leave what can be adopted to a successor, for *grace* seconds; then end and remove it.

    Whatever is done to a browser is done with the lock held: so is it here, before the lock is
    let go and after it was taken again. A successor that dies before it has seen to everything
    does not count, and its own guard waits beside us.
    """
    end = time.monotonic() + grace
    watched.clear([key for key in watched.folders if key not in watched.adoptable])
    mine = read_deed(lock)
    # Not closed but unlocked: a child that the dead parent forked may share the descriptor.
    fcntl.flock(lock, fcntl.LOCK_UN)
    while not _has_heir(lock, mine) and not _is_over(lock, watched.folders.values()):
        if time.monotonic() > end and _locked(lock):
            if not _has_heir(lock, mine):
                watched.clear(list(watched.folders))
            return
        time.sleep(HEIR_INTERVAL)


def _is_over(lock: int, folders: Iterable[str]) -> bool:
    """Whether successors have ended all of it: folders go last. Not if all was removed by hand."""
    removed = os.fstat(lock).st_nlink == 0
    return not removed and not any(os.path.lexists(folder) for folder in folders)


def _has_heir(lock: int, mine: Deed | None) -> bool:
    now = read_deed(lock)
    return now is not None and now.taken and (mine is None or now.nonce != mine.nonce)


def _locked(lock: int) -> bool:
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_gone(parent: int) -> bool:
    end = time.monotonic() + PARENT_PATIENCE
    while os.getppid() == parent:
        if time.monotonic() > end:
            return False
        time.sleep(POLL_INTERVAL)
    return True


def main() -> None:
    """Guard a process: clean up when it dies without a goodbye.

    Arguments: its id, a label for people, seconds of grace, the descriptor of the lock or `-`.
    Told over standard input, one JSON message in a line. A child that the user forked may hold the
    pipe open after the death, so the parent itself is watched too.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent, grace = int(sys.argv[1]), float(sys.argv[3])
    lock = None if sys.argv[4] == "-" else int(sys.argv[4])
    watched = Watched()
    with contextlib.suppress(ProcessLookupError):
        watch(parent, watched, lock)
    # It may have died before we were ready to listen.
    os.set_blocking(0, False)
    with contextlib.suppress(BlockingIOError):
        while watched.read():
            pass
    _sign(watched, lock)
    if watched.orderly:
        return
    if grace > 0 and lock is not None and not watched.ended and _is_gone(parent):
        bequeath(watched, lock, grace)
    else:
        watched.clear(list(watched.folders))


if __name__ == "__main__":
    main()
