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

from tests.bench.measure import Group, Verdict, p95, shown

OURS = "browsercloud"
"""What the names of our own contenders begin with."""


def print_group(console: Console, group: Group) -> None:
    """One comparison as a table."""
    table = Table(title=f"{group.row} · {group.title}", title_justify="left", title_style="bold")
    table.add_column(group.note or "", min_width=44)
    for name in (f"median {group.unit}", "p95", "n", "ratio"):
        table.add_column(name, justify="right")
    ratios = group.ratios()
    for name, median in group.medians().items():
        found = group.samples[name]
        ratio = f"{shown(ratios[name])}×" if name in ratios else "–"
        table.add_row(name, shown(median), shown(p95(found)), str(len(found)), ratio)
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
                "p95": p95(group.samples[name]),
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


def chart(path: Path, groups: Sequence[Group]) -> None:
    """Bars for each comparison, ours in another colour, each with its value and its ratio."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    columns = 2 if len(groups) > 1 else 1
    lines = [groups[at : at + columns] for at in range(0, len(groups), columns)]
    bars = [max(len(group.medians()) for group in line) for line in lines]
    figure, grid = pyplot.subplots(
        len(lines),
        columns,
        figsize=(10 * columns, sum(0.42 * count + 1.1 for count in bars)),
        gridspec_kw={"height_ratios": [count + 1.4 for count in bars]},
        squeeze=False,
        layout="constrained",
        facecolor="white",
    )
    for line, panels in zip(lines, grid, strict=True):
        for panel in panels[len(line) :]:
            panel.axis("off")
        for group, panel in zip(line, panels, strict=False):
            _draw(panel, group)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _draw(panel: Any, group: Group) -> None:
    medians, ratios = group.medians(), group.ratios()
    names = list(medians)
    colours = ["#2563a8" if name.startswith(OURS) else "#b9c2cc" for name in names]
    panel.barh(range(len(names)), list(medians.values()), color=colours, height=0.68)
    panel.set_yticks(range(len(names)), names, fontsize=11)
    panel.invert_yaxis()
    most = max(medians.values())
    for at, name in enumerate(names):
        text = f"{shown(medians[name])} {group.unit}"
        if name in ratios and name != group.base:
            text += f"  ({shown(ratios[name])}×)"
        panel.text(medians[name] + most * 0.012, at, text, va="center", fontsize=11)
    panel.set_xlim(0, most * 1.3 or 1)
    panel.set_title(f"{group.row} · {group.title}", loc="left", fontsize=12.5, fontweight="bold")
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="x", labelsize=9, colors="#555555")
