"""A study as one page that stands alone: its plots, its claims with their verdicts, its table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from evalkit.studies.report import Point, Report, cells_of, quantity, verdict_line

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7580")
SIGNS = {"holds": "✓", "does not hold": "✗", "cannot tell": "?"}
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 62, 48, 14, 150

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1e23; --soft: #59636e; --line: #d5dbe1; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e4e7ea; --soft: #9ca6b0; --line: #343b42; }
}
body { margin: 0 auto; padding: 1.25rem 1rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 14px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.35rem; margin: 0 0 .15rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.soft { color: var(--soft); } svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
li { margin: .35rem 0; } .cannot-tell b { color: var(--soft); }
.holds b { color: #009e73; } .does-not-hold b { color: #d55e00; }
"""


class Axis(NamedTuple):
    """Numbers low to high on pixels first to last.

    Attributes:
        log: whether equal ratios are equally far apart.
    """

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def at(self, number: float) -> float:
        """The pixel of a number."""
        low, high, number = (math.log(v) if self.log else v for v in (self.low, self.high, number))
        return self.first + (self.last - self.first) * (number - low) / (high - low)

    def ticks(self) -> list[float]:
        """About five round numbers; of a log axis over more than a factor of 5, 1, 2 and 5 of each power of ten."""
        if self.log and self.high / self.low > 5:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [d * 10.0**p for p in powers for d in (1, 2, 5) if self.low <= d * 10.0**p <= self.high]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(k for k in (1, 2, 5, 10) if (self.high - self.low) / (k * step) <= 6)
        return [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def axis(numbers: Sequence[float], first: float, last: float, log: bool = False) -> Axis:
    """An axis that holds these numbers with a margin."""
    low, high = min(numbers), max(numbers)
    log = log and low > 0
    if log:
        return Axis(low / 1.15, high * 1.15, first, last, True)
    margin = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
    return Axis(low - margin, high + margin, first, last)


def html(report: Report) -> str:
    """The page."""
    study = report.study
    plots = [f"<h2>{escape(name)}</h2>{svg(report, k)}" for k, name in enumerate(study.y)]
    claims = "".join(
        f'<li class="{judged.verdict.replace(" ", "-")}"><b>{SIGNS[judged.verdict]} {judged.verdict}</b>'
        f"{escape(verdict_line(judged).removeprefix(judged.verdict))}</li>"
        for judged in report.judged
    )
    head, *rows = cells_of(report)
    table = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    missing = "".join(f"<li>{escape(p.name)}: {escape(p.failure)}</li>" for p in report.points if p.failure)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(report.title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f'<h1>{escape(report.title)}</h1><p class="soft">{escape(study.source)}</p>'
        + "".join(f"<p>{escape(text)}</p>" for text in (*report.sentences, *report.notes))
        + (f"<h2>Claims</h2><ul>{claims}</ul>" if claims else "")
        + "".join(plots)
        + '<h2>Cells</h2><div class="wide"><table><tr>'
        + "".join(f"<th>{escape(cell)}</th>" for cell in head)
        + f"</tr>{table}</table></div>"
        + (f"<h2>Missing</h2><ul>{missing}</ul>" if missing else "")
        + "</html>\n"
    )


def svg(report: Report, k: int) -> str:
    """The cells' cost and the k-th of what they are worth, with intervals, a line per group and the front dashed."""
    study = report.study
    points = [p for p in report.points if p.x and p.y[k] and _known(p, k)]
    if not points:
        return '<p class="soft">no cell has both numbers yet</p>'
    ends = [end for p in points for end in _interval(p, k)]
    x = axis([p.x.estimate.value for p in points if p.x], LEFT, WIDTH - RIGHT, study.axis == "log")
    y = axis(ends, HEIGHT - BOTTOM, TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{escape(study.y[k])}">']
    for tick in x.ticks():
        parts.append(_line(x.at(tick), TOP, x.at(tick), HEIGHT - BOTTOM, "var(--line)"))
        parts.append(_text(x.at(tick), HEIGHT - BOTTOM + 16, quantity(study.x, tick), "middle"))
    for tick in y.ticks():
        parts.append(_line(LEFT, y.at(tick), WIDTH - RIGHT, y.at(tick), "var(--line)"))
        parts.append(_text(LEFT - 6, y.at(tick) + 4, f"{tick:g}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, study.x, "middle"))
    on_front = sorted((x.at(_x(p)), y.at(_y(p, k))) for p in points if p.on_front[k])
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in on_front)
    parts.append(f'<polyline points="{path}" fill="none" stroke="var(--soft)" stroke-dasharray="5 4"/>')
    for number, group in enumerate(dict.fromkeys(p.group for p in points)):
        color = COLORS[number % len(COLORS)]
        members = sorted((p for p in points if p.group == group), key=_x)
        path = " ".join(f"{x.at(_x(p)):.1f},{y.at(_y(p, k)):.1f}" for p in members)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        for p in members:
            left, (low, high) = x.at(_x(p)), _interval(p, k)
            parts.append(_line(left, y.at(low), left, y.at(high), color, 0.4))
            shape = f'cx="{left:.1f}" cy="{y.at(_y(p, k)):.1f}" r="{6 if p.on_front[k] else 4}"'
            note = f"{p.name}: {quantity(study.x, _x(p))}, {_y(p, k):.1f} ({low:.1f} to {high:.1f})"
            fill = color if p.on_front[k] else "var(--paper)"
            parts.append(f'<circle {shape} fill="{fill}" stroke="{color}"><title>{escape(note)}</title></circle>')
            if p.on_front[k]:
                parts.append(_text(left + 9, y.at(_y(p, k)) - 7, p.name))
        below = TOP + 14 + 18 * number
        parts.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{below - 4}" r="5" fill="{color}"/>')
        parts.append(_text(WIDTH - RIGHT + 26, below, group or "all"))
    return "".join(parts) + "</svg><p class='soft'>filled: on the Pareto front (dashed); bars: 95 % intervals</p>"


def _x(point: Point) -> float:
    return point.x.estimate.value if point.x else math.nan


def _y(point: Point, k: int) -> float:
    of_y = point.y[k]
    return of_y.estimate.value if of_y else math.nan


def _known(point: Point, k: int) -> bool:
    return not math.isnan(_x(point) + _y(point, k))


def _interval(point: Point, k: int) -> tuple[float, float]:
    """The interval, or the number itself where there is none."""
    of_y = point.y[k]
    low, high = of_y.estimate[1:] if of_y else (math.nan, math.nan)
    return (_y(point, k), _y(point, k)) if math.isnan(low + high) else (low, high)


def _line(x1: float, y1: float, x2: float, y2: float, color: str, opacity: float = 1.0) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-opacity="{opacity}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
