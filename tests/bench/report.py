"""What was measured, for people and for programs: tables, JSON, a chart."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.measure import Group, Verdict, shown

OURS = "browsercloud"
"""What the names of our own contenders have in them."""


def print_group(console: Console, group: Group) -> None:
    """One comparison as a table."""
    table = Table(title=f"{group.row} · {group.title}", title_justify="left", title_style="bold")
    table.add_column("", min_width=44)
    for name in (f"median {group.unit}", group.bad_end, "n", "ratio"):
        table.add_column(name, justify="right")
    ratios = group.ratios()
    for name, median in group.medians().items():
        found = group.samples[name]
        ratio = f"{shown(ratios[name])}×" if name in ratios else "–"
        table.add_row(name, shown(median), shown(group.bad(name)), str(len(found)), ratio)
    for name, reason in group.failed.items():
        table.add_row(f"{name}: {reason}", "failed", "", "", "", style="red")
    console.print(table)


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Every target: reached or not, and what was needed."""
    table = Table(title="targets", title_justify="left", title_style="bold")
    for name in ("", "row", "what"):
        table.add_column(name)
    for name in ("measured", "needed"):
        table.add_column(name, justify="right")
    marks = {True: "[green]✓[/]", False: "[red]✗[/]", None: "–"}
    for verdict in verdicts:
        target = verdict.target
        sign = "≥" if target.at_least else "≤"
        table.add_row(
            marks[verdict.ok],
            verdict.group,
            target.says,
            "not measured" if verdict.value is None else f"{shown(verdict.value)} {target.unit}",
            f"{sign} {target.limit:g} {target.unit}",
        )
    console.print(table)


def machine(programs: Mapping[str, str]) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "playwright": version("playwright"),
        "browsers": dict(programs),
    }


def as_json(groups: Sequence[Group], facts: Mapping[str, Any]) -> dict[str, Any]:
    """All of it, samples included."""
    return {"machine": dict(facts), "groups": [_group(group) for group in groups]}


def _group(group: Group) -> dict[str, Any]:
    ratios = group.ratios()
    return {
        "row": group.row,
        "title": group.title,
        "unit": group.unit,
        "base": group.base,
        "contenders": {
            name: {
                "median": median,
                group.bad_end: group.bad(name),
                "ratio": ratios.get(name),
                "samples": group.samples[name],
            }
            for name, median in group.medians().items()
        },
        "failed": group.failed,
        "targets": [
            {
                "says": verdict.target.says,
                "value": verdict.value,
                "limit": verdict.target.limit,
                "unit": verdict.target.unit,
                "atLeast": verdict.target.at_least,
                "reached": verdict.ok,
            }
            for verdict in group.verdicts()
        ],
    }


def write(out: Path, groups: Sequence[Group], facts: Mapping[str, Any]) -> None:
    """`bench.json` and `bench.png` in *out*, which is made if it is not there."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(groups, facts), indent=1, ensure_ascii=False)
    (out / "bench.json").write_text(text + "\n")
    drawn = [group for group in groups if group.medians()]
    if drawn:
        chart(out / "bench.png", drawn)


COLUMNS = 2
LEGEND = "blue: ours · grey: the others · in brackets: the ratio to the bar without one"


def chart(path: Path, groups: Sequence[Group]) -> None:
    """Bars for each comparison, ours in another colour, each with its value and its ratio."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    lines = _lines(groups)
    bars = [max(len(group.medians()) for group in line) for line in lines]
    heights = [0.4 * count + 0.75 for count in bars]
    figure, grid = pyplot.subplots(
        len(lines),
        COLUMNS,
        figsize=(20, sum(heights) + 0.6),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
        facecolor="white",
    )
    figure.suptitle(LEGEND, x=0.01, ha="left", fontsize=12, color="#444444")
    for line, panels, count in zip(lines, grid, bars, strict=True):
        for panel in panels[len(line) :]:
            panel.axis("off")
        for group, panel in zip(line, panels, strict=False):
            _draw(panel, group, count)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _lines(groups: Sequence[Group]) -> list[list[Group]]:
    """What stands side by side: no line has groups of two rows."""
    lines: list[list[Group]] = []
    for group in groups:
        if not lines or len(lines[-1]) == COLUMNS or lines[-1][0].row != group.row:
            lines.append([])
        lines[-1].append(group)
    return lines


def _draw(panel: Any, group: Group, places: int) -> None:
    """One comparison, in a panel with room for so many bars: all bars are equally thick."""
    medians, ratios = group.medians(), group.ratios()
    names = list(medians)
    colours = ["#2563a8" if OURS in name else "#b9c2cc" for name in names]
    panel.barh(range(len(names)), list(medians.values()), color=colours, height=0.7)
    panel.set_yticks(range(len(names)), names, fontsize=11.5)
    panel.set_ylim(places - 0.5, -0.5)
    most = max(medians.values())
    for at, name in enumerate(names):
        text = f"{shown(medians[name])} {group.unit}"
        if name in ratios and name != group.base:
            text += f"  ({shown(ratios[name])}×)"
        panel.text(medians[name] + most * 0.012, at, text, va="center", fontsize=11.5)
    panel.set_xlim(0, most * 1.35 or 1)
    better = ", more is better" if group.more else ""
    panel.set_title(
        f"{group.row} · {group.title}{better}", loc="left", fontsize=12.5, fontweight="bold"
    )
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.set_xticks([])
