"""Pictures: of a sweep, scores on val over the one setting that varies; of a study, what cells cost and are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from evalkit.errors import install

Curve = tuple[str, list[float], list[float]]  # name, settings, scores

# Colors that color-blind people tell apart (Okabe and Ito).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def terminal(curves: Sequence[Curve], setting: str, width: int = 40) -> str:
    """A bar per point, as long as its score in 0..100."""
    lines = []
    for name, settings, scores in curves:
        lines.append(f"{name}: val over {setting}")
        for x, y in sorted(zip(settings, scores, strict=True)):
            lines.append(f"  {x:>10g} {'█' * round(width * max(0.0, min(y, 100.0)) / 100):<{width}} {y:.1f}")
    return "\n".join(lines)


def png(curves: Sequence[Curve], setting: str, file: Path) -> str:
    """Writes the curves as a picture.

    Returns:
        The file's path; or, without matplotlib, how to get the picture.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return f"no plot written: {install('plot')} and repeat the command, which reuses finished runs"

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, settings, scores) in enumerate(curves):
        points = sorted(zip(settings, scores, strict=True))
        mark = "os^Dv*x"[number % 7]
        axes.plot(*zip(*points, strict=True), marker=mark, color=COLORS[number % 7], label=name)
    if all(x > 0 for _, settings, _ in curves for x in settings):
        axes.set_xscale("log")
    axes.set(xlabel=setting, ylabel="score on val")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)
    return str(file)


class Mark(NamedTuple):
    """A point of a plot of cost and worth, and whether it is on the Pareto front."""

    name: str
    group: str
    x: float
    y: float
    on_front: bool


def front_png(panels: Sequence[tuple[str, Sequence[Mark]]], cost: str, file: Path, log: bool = False) -> str:
    """Writes a picture with a panel per worth: a line per group, and the Pareto front dashed.

    Args:
        panels: what is worth and its points.
        cost: what x is.
        file: to write.
        log: whether x is.

    Returns:
        The file's path; or, without matplotlib, how to get the picture.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return f"no plot written: {install('plot')} and repeat the command, which reuses finished runs"

    figure = Figure(figsize=(6.4 * len(panels), 4.4), layout="constrained")
    for axes, (worth, marks) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, group in enumerate(dict.fromkeys(mark.group for mark in marks)):
            members = sorted((mark for mark in marks if mark.group == group), key=lambda mark: mark.x)
            style = {"marker": "os^Dv*x"[number % 7], "color": COLORS[number % 7], "label": group or None}
            axes.plot([mark.x for mark in members], [mark.y for mark in members], **style)
        on_front = sorted((mark for mark in marks if mark.on_front), key=lambda mark: mark.x)
        axes.plot([m.x for m in on_front], [m.y for m in on_front], "--", color="#777777", zorder=0)
        for mark in on_front:
            axes.annotate(mark.name, (mark.x, mark.y), (4, 4), textcoords="offset points", fontsize=7)
        if log and all(mark.x > 0 for mark in marks):
            axes.set_xscale("log")
        axes.set(xlabel=cost, ylabel=worth)
        axes.grid(alpha=0.3)
        if any(mark.group for mark in marks):
            axes.legend(fontsize=7)
    figure.savefig(file, dpi=150)
    return str(file)
