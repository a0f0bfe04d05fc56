"""A result as text for a terminal or a pipe."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def table(result: Mapping[str, Any]) -> str:
    """The result as text for a terminal or a pipe: what was run, its scores, what to compare them with, what failed."""
    task, encoder, adapter, data = (result[key] for key in ("task", "encoder", "adapter", "data"))
    failed, expected = data["n_failed"], data["n_expected"]
    status = result["status"] + (f": {failed:,} of {expected:,} examples failed, counted as wrong" if failed else "")
    head = Table.grid(padding=(0, 2))
    head.add_row("task", f"{task['name']}, {task['split']}, version {task['version']}")
    head.add_row("encoder", f"{encoder['name']}, {_count(encoder['parameters'])} parameters")
    head.add_row("adapter", f"{adapter['name']}, {_count(adapter['trainable_parameters'])} trainable")
    head.add_row("status", status)
    if left_out := (result["selection"] or {}).get("undecodable"):
        head.add_row("train", f"{len(left_out)} undecodable videos left out")

    body = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    body.add_column("", no_wrap=True)
    for title in ("score", "95 % interval", "examples", "videos"):
        body.add_column(title, justify="right", no_wrap=True)
    if failed:
        body.add_column("bounds", justify="right", no_wrap=True)
    for entry in result["scores"]:
        body.add_row(
            entry["metric"],
            _decimal(entry["value"]),
            _span(entry["ci95"]),
            f"{entry['n']:,}",
            f"{entry['n_clusters']:,}",
            *([_span(entry["bounds"])] if failed else []),
        )
    if result["scores"]:
        body.add_row()
        body.add_row("chance", _decimal(result["chance"]))
        headline = result["scores"][0]["metric"]
        for control in result["controls"]:
            metric = "" if control["metric"] == headline else f" {control['metric']}"
            body.add_row(f"{control['name']} (control){metric}", _decimal(control["value"]))
        for row, value in task.get("published", {}).items():
            body.add_row(f"{row} (published)", _decimal(value))

    buffer = io.StringIO()
    # Wide enough that nothing is cut: a terminal folds a long name, a pipe keeps it.
    console = Console(
        file=buffer, width=1000, color_system=None, force_terminal=False, markup=False, emoji=False, highlight=False
    )
    console.print(head)
    console.print()
    console.print(body if result["scores"] else "no score: no test example has a public answer")
    lines = [line.rstrip() for line in buffer.getvalue().splitlines()]
    lines += _grouped(data["failures"])
    if result.get("differences"):
        lines += ["", "recomputed scores differ from the stored ones:", *(f"  {x}" for x in result["differences"])]
    # A file name may hold bytes that no encoding has; printing it must not fail.
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def _grouped(failures: Sequence[Mapping[str, str]], most: int = 5) -> list[str]:
    """The reasons of failures, the most frequent first, each with the first ids that have it."""
    groups: dict[str, list[str]] = {}
    for failure in failures:
        groups.setdefault(failure["reason"], []).append(failure["id"])
    if not groups:
        return []
    ranked = sorted(groups.items(), key=lambda group: -len(group[1]))
    width = len(f"{len(ranked[0][1]):,}")
    lines = ["", "failed (bounds: with all of them wrong, with all of them right)"]
    for reason, ids in ranked[:most]:
        lines.append(f"  {len(ids):{width},}  {reason}  ({first(ids)})")
    left = sum(len(ids) for _, ids in ranked[most:])
    return [*lines, f"  {left:{width},}  for {len(ranked) - most} other reasons"] if left else lines


def first(ids: Sequence[str], most: int = 3) -> str:
    """The first of some names, and dots where there are more."""
    return ", ".join(ids[:most]) + (", ..." if len(ids) > most else "")


def _count(number: int | None) -> str:
    if number is None:
        return "unknown"
    return f"{number:,}" if number < 100_000 else f"{number / 1e6:,.1f} M"


def _decimal(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _span(numbers: Sequence[float | None]) -> str:
    return "-" if None in numbers else " to ".join(_decimal(number) for number in numbers)
