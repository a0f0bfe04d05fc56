"""Pictures of a sweep: scores on val over the one setting that varies, for a terminal and as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

Curve = tuple[str, list[float], list[float]]  # name, settings, scores


def terminal(curves: Sequence[Curve], setting: str, width: int = 40) -> str:
    """A bar per point, as long as its score in 0..100."""
    lines = []
    for name, settings, scores in curves:
        lines.append(f"{name}: val over {setting}")
        for x, y in sorted(zip(settings, scores, strict=True)):
            lines.append(f"  {x:>10g} {'█' * round(width * max(0.0, min(y, 100.0)) / 100):<{width}} {y:.1f}")
    return "\n".join(lines)


def png(curves: Sequence[Curve], setting: str, file: Path) -> str:
    """Writes the curves as a picture; colors that color-blind people tell apart (Okabe and Ito).

    Returns:
        The file's path; or, without matplotlib, how to get the picture.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no picture as a PNG: pip install 'evalkit[plot]' and sweep again, which runs nothing twice"

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
    for number, (name, settings, scores) in enumerate(curves):
        points = sorted(zip(settings, scores, strict=True))
        mark = "os^Dv*x"[number % 7]
        axes.plot(*zip(*points, strict=True), marker=mark, color=colors[number % 7], label=name)
    if all(x > 0 for _, settings, _ in curves for x in settings):
        axes.set_xscale("log")
    axes.set(xlabel=setting, ylabel="score on val")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)
    return str(file)
