"""`browsercloud keys`: who may use the server, and how much. Works beside a running server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

import attrs
from cyclopts import App, Parameter
from cyclopts.validators import Number

from browsercloud.errors import UsageError
from browsercloud.server.config import SETTINGS, from_environment
from browsercloud.server.keys import make_key
from browsercloud.server.records import now
from browsercloud.stores.base import KeyRow, Limits, Store
from browsercloud.stores.sqlite import FILE_NAME, SqliteStore

MOST = 1_000_000

DataDir = Annotated[
    str | None, Parameter(help="The server's data folder, as given to serve.", show_default=False)
]
Project = Annotated[str, Parameter(help="Name of the project.")]
AnyProject = Annotated[str | None, Parameter(help="Only this project's.", show_default=False)]
MaxSessions = Annotated[
    int | None,
    Parameter(
        help="Sessions that the project may have at a time; 0 for no limit.",
        validator=Number(gte=0, lte=MOST),
        show_default=False,
    ),
]
Rate = Annotated[
    int | None,
    Parameter(
        help="Sessions that the project may begin in a minute; 0 for no limit.",
        validator=Number(gte=0, lte=MOST),
        show_default=False,
    ),
]

app = App(name="keys")


@app.command
def create(
    *,
    project: Project,
    max_sessions: MaxSessions = None,
    rate: Rate = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once. Limits that are given hold for the whole project."""
    asyncio.run(_create(data_dir, project, max_sessions, rate))


@app.command
def limit(
    *,
    project: Project,
    max_sessions: MaxSessions = None,
    rate: Rate = None,
    data_dir: DataDir = None,
) -> None:
    """Change a project's limits; one that is not given stays as it is."""
    asyncio.run(_limit(data_dir, project, max_sessions, rate))


@app.command(name="list")
def list_(*, project: AnyProject = None, data_dir: DataDir = None) -> None:
    """List the keys, revoked ones too, and the projects' limits. Times are UTC."""
    asyncio.run(_list(data_dir, project))


@app.command
def revoke(
    ids: Annotated[tuple[str, ...], Parameter(help="Keys, as `list` shows them.")] = (),
    /,
    *,
    project: AnyProject = None,
    data_dir: DataDir = None,
) -> None:
    """Revoke keys for good: those named, or all of a project.

    What is open with one of them is closed at once. Sessions go on until their lease or timeout
    ends them.
    """
    if bool(ids) == (project is not None):
        raise UsageError("name the keys to revoke, or a whole project with --project")
    asyncio.run(_revoke(data_dir, ids, project))


async def _create(
    data_dir: str | None, project: str, max_sessions: int | None, rate: int | None
) -> None:
    key, row = make_key(project)
    async with _opened(data_dir) as store:
        await store.add_key(row)
        await _set_limits(store, project, max_sessions, rate)
    print(key)
    print(f"key {row.id} of project {project}; it is not shown again", file=sys.stderr)


async def _limit(
    data_dir: str | None, project: str, max_sessions: int | None, rate: int | None
) -> None:
    async with _opened(data_dir) as store:
        if project not in {row.project for row in await store.keys()}:
            raise UsageError(f"project {project} has no key; make one with: keys create")
        limits = await _set_limits(store, project, max_sessions, rate)
    print(f"{project}: {_words(limits)}")


async def _set_limits(
    store: Store, project: str, max_sessions: int | None, rate: int | None
) -> Limits:
    before = (await store.limits()).get(project, Limits())
    given = {"max_sessions": max_sessions, "rate": rate}
    changes = {name: value or None for name, value in given.items() if value is not None}
    limits = attrs.evolve(before, **changes)
    if limits != before:
        await store.set_limits(project, limits)
    return limits


async def _list(data_dir: str | None, project: str | None) -> None:
    async with _opened(data_dir) as store:
        rows = [row for row in await store.keys() if project in (None, row.project)]
        limits = await store.limits()
    _show(rows, {name: found for name, found in limits.items() if project in (None, name)})


async def _revoke(data_dir: str | None, ids: Sequence[str], project: str | None) -> None:
    async with _opened(data_dir) as store:
        rows = await store.keys()
        known = {row.id for row in rows}
        unknown = [key_id for key_id in ids if key_id not in known]
        if unknown or (project is not None and project not in {row.project for row in rows}):
            raise UsageError(
                f"no such key: {', '.join(unknown)}" if unknown else f"no such project: {project}"
            )
        chosen = [row for row in rows if row.id in ids or row.project == project]
        for row in chosen:
            await store.revoke_key(row.id, now())
    for row in chosen:
        print(f"{row.id} of project {row.project} is revoked")


@asynccontextmanager
async def _opened(data_dir: str | None) -> AsyncIterator[Store]:
    """The store in the folder that `serve` would use with the same words."""
    variable = next(row.variable for row in SETTINGS if row.name == "data_dir")
    # Of the environment only this: a setting that is wrong for serve does no harm here.
    environ = {name: value for name, value in os.environ.items() if name == variable}
    folder = from_environment({"data_dir": data_dir}, environ).data_dir
    if folder is None:
        raise UsageError("keys are kept in a data folder; give --data-dir")
    store = SqliteStore(folder / FILE_NAME)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def _show(rows: Sequence[KeyRow], limits: Mapping[str, Limits]) -> None:
    table: list[tuple[str, ...]] = [("ID", "KEY", "PROJECT", "CREATED", "LAST USED", "REVOKED")]
    table += [
        (
            row.id,
            f"{row.prefix}…",
            row.project,
            *map(_time, (row.created_at, row.used_at, row.revoked_at)),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(map(str.ljust, line, widths)).rstrip())
    for project, found in sorted(limits.items()):
        print(f"\n{project}: {_words(found)}")


def _time(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _words(limits: Limits) -> str:
    sessions = "any number of" if limits.max_sessions is None else f"at most {limits.max_sessions}"
    rate = "" if limits.rate is None else f", at most {limits.rate} new ones in a minute"
    return f"{sessions} sessions at a time{rate}"
