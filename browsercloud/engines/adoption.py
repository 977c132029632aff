"""By what a browser is known again after its server was killed: what is kept, what is compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from browsercloud.browser import group
from browsercloud.browser.group import Mark
from browsercloud.engines.folders import Left

ENDPOINT = re.compile(r"ws://127\.0\.0\.1:[0-9]{1,5}/devtools/browser/[0-9a-f-]{36}")


def state_of(mark: Mark, endpoint: str) -> dict[str, Any]:
    """What to keep of a browser, JSON-ready. The endpoint in it is a secret."""
    fields = {"pid": mark.pid, "start": mark.start, "boot": mark.boot, "program": mark.program}
    # A browser that was started ahead has a folder with a name of its own.
    return {**fields, "folder": Path(mark.folder).name, "endpoint": endpoint}


def endpoint_in(state: Mapping[str, Any], left: Left) -> str | None:
    """The endpoint to find the browser at, or `None` if it is not there to be adopted.

    *state* has to be that of the browser whose mark was *left* in the session's folder, and the
    process with that id has to be it still: started at that moment of this boot, leader of its
    group, the same program, given the same folder. That it answers is for the caller to see.
    """
    endpoint = state.get("endpoint")
    if not isinstance(endpoint, str) or not ENDPOINT.fullmatch(endpoint):
        return None
    if not left.complete or not _is_sound(left.mark) or state != state_of(left.mark, endpoint):
        return None
    return endpoint if _runs(left.mark) else None


def _is_sound(mark: Mark) -> bool:
    # The file may say anything: `True` is no process id, and 0 is nobody's.
    kinds = [type(value) for value in mark]
    return kinds == [int, int, str, str, str] and mark.pid > 1


def _runs(mark: Mark) -> bool:
    if mark.boot != group.boot_id() or not mark.program:
        return False
    now = group.look(mark.pid)
    if now is None or now.zombie or (now.start, now.group) != (mark.start, mark.pid):
        return False
    given = f" --user-data-dir={mark.folder}/profile "
    return now.command.startswith(mark.program + " ") and given in now.command
