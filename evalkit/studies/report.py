"""What a study found, in words: a table of its cells, its claims with their verdicts, and what lies on the front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.errors import UserError
from evalkit.metrics import videoglue
from evalkit.results.schema import plain
from evalkit.results.scores import lower_is_better
from evalkit.results.table import decimal, interval
from evalkit.studies.claims import Judged, front, judge
from evalkit.studies.estimates import Estimate, Outcome, Pairs, Value, value
from evalkit.studies.files import Study

ONE_SEED = "one seed: the intervals do not cover that training again ends elsewhere; seed=0,1,2 trains with each"
UNITS = ("", "k", "M", "G", "T", "P")  # of thousands


@dataclass(frozen=True)
class Point:
    """A cell in the plot.

    Attributes:
        x: what it costs; None where that is unknown.
        y: what it is worth, by each entry of the study's `y`.
        on_front: whether it is on the Pareto front of x and each y.
        failure: why something is missing.
    """

    name: str
    group: str
    x: Value | None
    y: tuple[Value | None, ...]
    on_front: tuple[bool, ...]
    failure: str = ""


@dataclass(frozen=True)
class Report:
    """What a study found.

    Attributes:
        notes: of which cells' runs examples failed.
    """

    study: Study
    mini: bool
    points: tuple[Point, ...]
    judged: tuple[Judged, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The study's title, which says where it is the miniature's."""
        return self.study.title + (" (miniature)" if self.mini else "")


def report(study: Study, outcomes: Mapping[str, Sequence[Outcome]], mini: bool, pairs: Pairs) -> Report:
    """Points, verdicts and sentences of a study of which some cells may be missing."""
    rows = []
    names = (study.x, *study.y)
    problems: dict[str, dict[str, str]] = {name: {} for name in names}  # by name and cell
    for cell in study.cells:
        values: list[Value | None] = []
        for name in names:
            try:
                values.append(value(outcomes[cell.name], name))
            except UserError as error:
                values.append(None)
                problems[name][cell.name] = str(error)
        rows.append((cell, values))
    # What some cells have and others do not is meant so; what none has is mistyped, once there is something to read.
    nowhere = [of_name for of_name in problems.values() if len(of_name) == len(rows)]
    read = {
        cell.name
        for cell in study.cells
        if all(one.runs or one.adapted and not cell.run for one in outcomes[cell.name])
    }
    missing = {name: "; ".join(of_name[name] for of_name in nowhere) for name in read}
    fronts = []
    for k, name in enumerate(study.y, 1):
        numbers = [(_number(values[0]), _number(values[k])) for _, values in rows]
        fronts.append(front(numbers, name.startswith("cost.") or lower_is_better(name.rpartition(":")[2])))
    points = tuple(
        Point(
            cell.name,
            cell.group,
            values[0],
            tuple(values[1:]),
            tuple(on[i] for on in fronts),
            failure(outcomes[cell.name]) or missing.get(cell.name, ""),
        )
        for i, (cell, values) in enumerate(rows)
    )
    judged = tuple(judge(claim, outcomes, pairs) for claim in study.claims)
    seeds = max(map(len, outcomes.values()))
    means = [f"Numbers are means over {seeds} seeds; the intervals include how far seeds differ."] if seeds > 1 else []
    sentences = [*means, *_sentences(study, points, pairs), *_videoglue(study, outcomes)]
    return Report(study, mini, points, judged, tuple(sentences), tuple(_notes(study, outcomes)))


def _notes(study: Study, outcomes: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """How many examples of a task failed, and in which cells; and whether each cell was trained once only."""
    cells_of_note: dict[str, list[str]] = {}
    for cell in study.cells:
        for _, record in (run for of_seed in outcomes[cell.name] for run in of_seed.runs):
            failed, expected = record["data"]["n_failed"], record["data"]["n_expected"]
            if failed:
                note = f"{failed:,} of {expected:,} examples of {record['task']['name']} failed and count as wrong"
                cells_of_note.setdefault(note, []).append(cell.name)
    notes = [f"{note}: {', '.join(dict.fromkeys(names))}" for note, names in cells_of_note.items()]
    if any(cell.adapt and len(outcomes[cell.name]) == 1 for cell in study.cells):
        notes.append(ONE_SEED)
    return notes


def failure(outcomes: Sequence[Outcome]) -> str:
    """Why something of a cell is missing; empty where nothing is."""
    return next((one.failure for one in outcomes if one.failure), "")


def _number(value: Value | None) -> float:
    return math.nan if value is None else value.estimate.value


def _sentences(study: Study, points: Sequence[Point], pairs: Pairs) -> list[str]:
    """For each y: which cells are on the front, and what its best one has before its cheapest, with the interval."""
    sentences = []
    for k, name in enumerate(study.y):
        on_front = sorted((p for p in points if p.on_front[k]), key=lambda p: _number(p.x))
        if not on_front:
            continue
        listed = ", ".join(f"{p.name} ({quantity(study.x, _number(p.x))}, {_shown(name, p.y[k])})" for p in on_front)
        sentence = f"On the front of {name} over {study.x}: {listed}."
        cheap, best = on_front[0], on_front[-1]
        if cheap is not best:
            assert cheap.x and best.x and cheap.y[k] and best.y[k]
            low, high = _number(cheap.x), _number(best.x)
            more = f"{high / low:.2f} times what {cheap.name} does" if low > 0 else quantity(study.x, high)
            try:
                better = _difference(name, pairs.difference(best.y[k], cheap.y[k]))  # type: ignore[arg-type]
            except UserError as error:
                better = f"not compared ({error})"
            sentence += f" {best.name} costs {more}; {name} {better}."
        sentences.append(sentence)
    return sentences


def _videoglue(study: Study, outcomes: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """The stratified mean of each of VideoGLUE's adaptations and their score; nothing until all of them are there."""
    means: dict[str, float] = {}
    costs: dict[str, float] = {}
    for adaptation, name in study.videoglue.items():
        of_seeds = [videoglue.mean_and_cost([r for _, r in one.runs]) for one in outcomes[name] if not one.failure]
        whole = [of_seed for of_seed in of_seeds if of_seed is not None]
        if len(whole) < len(outcomes[name]):
            return []
        means[adaptation], costs[adaptation] = (sum(column) / len(whole) for column in zip(*whole, strict=True))
    if not means:
        return []
    listed = ", ".join(
        f"{study.videoglue[key]} {decimal(mean)} at {costs[key]:.3g} GFLOPs" for key, mean in means.items()
    )
    try:
        return [f"VideoGLUE score {decimal(videoglue.score(means, costs))}: {listed}."]
    except UserError as error:
        return [f"No {error} (GFLOPs per clip): {listed}."]


def quantity(name: str, number: float) -> str:
    """A number as people read it: bytes and large numbers by their unit, three digits; others with four."""
    if not math.isfinite(number):
        return "-"
    of_bytes = name.endswith("bytes")
    if abs(number) < (999.5 if of_bytes else 1e6):
        return f"{number:.0f} bytes" if of_bytes else f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
    rounded = float(f"{number:.3g}")  # before the unit is chosen: 999,999 is 1 M
    power = min(len(UNITS) - 1, int(math.floor(math.log10(abs(rounded))) // 3))
    return f"{rounded / 1000**power:.3g} {UNITS[power]}{'B' if of_bytes else ''}"


def _shown(name: str, value: Value | None) -> str:
    if value is None:
        return "-"
    return decimal(value.estimate.value) if value.metric else quantity(name, value.estimate.value)


def signed(estimate: Estimate) -> str:
    """A difference with its interval: `+1.2 (-0.3 to +2.7)`."""
    return f"{decimal(estimate.value, '+')} ({interval(estimate[1:], '+')})"


def _difference(name: str, estimate: Estimate) -> str:
    """A difference of scores with its interval, of costs alone."""
    if estimate.low != estimate.high:
        return signed(estimate)
    return f"{'-' if estimate.value < 0 else '+'}{quantity(name, abs(estimate.value))}"


def cells_of(report: Report) -> list[list[str]]:
    """The table of a study, its head first; `*` marks what is on a front."""
    study = report.study
    head = ["cell", "group", study.x]
    for name in study.y:
        head += [name, "95 % interval", "front"]
    rows = [head]
    for point in report.points:
        row = [point.name, point.group, quantity(study.x, _number(point.x))]
        for name, of_y, on_front in zip(study.y, point.y, point.on_front, strict=True):
            exact = of_y is None or not of_y.metric
            ends = "" if of_y is None or exact else interval(of_y.estimate[1:])
            row += [_shown(name, of_y), ends, "*" if on_front else ""]
        rows.append(row)
    return rows


def verdict_line(judged: Judged) -> str:
    """A claim's verdict, the statement, and the numbers behind it."""
    claim = judged.claim
    if judged.reason:
        return f"{judged.verdict}: {claim.text} ({judged.reason})"
    numbers = []
    for k, estimate in enumerate(judged.estimates):
        exact = estimate.low == estimate.high
        match claim.expect.of:
            case "ratio":
                unknown = math.isnan(estimate.low + estimate.high)
                ends = "" if exact else " (no interval)" if unknown else f" ({estimate.low:.2f} to {estimate.high:.2f})"
                numbers.append(f"{claim.of[0]} / {claim.of[1]}: {claim.metric} {estimate.value:.2f}{ends}")
            case "value":
                ends = "" if exact else f" ({interval(estimate[1:])})"
                numbers.append(f"{claim.of[0]}: {claim.metric} {quantity(claim.metric, estimate.value)}{ends}")
            case of:
                if of in ("increasing", "decreasing"):
                    first, second = claim.of[k + 1], claim.of[k]
                else:
                    first, second = claim.of[0], claim.of[k + 1]
                numbers.append(f"{first} - {second}: {claim.metric} {_difference(claim.metric, estimate)}")
    return f"{judged.verdict}: {claim.text} ({'; '.join(numbers)})"


def markdown(report: Report) -> str:
    """The whole as table.md."""
    study = report.study

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    head, *rows = cells_of(report)
    lines = [f"# {report.title}", "", *([study.source, ""] if study.source else [])]
    lines += [row(head), row(["---"] * len(head)), *map(row, rows), ""]
    if missing := [f"* {p.name}: {p.failure}" for p in report.points if p.failure]:
        lines += [*missing, ""]
    lines += [f"{note}\n" for note in report.notes]
    lines += [f"{sentence}\n" for sentence in report.sentences]
    lines += [f"* **{line.partition(':')[0]}**:{line.partition(':')[2]}" for line in map(verdict_line, report.judged)]
    return "\n".join(lines).rstrip() + "\n"


def as_json(report: Report, outcomes: Mapping[str, Sequence[Outcome]], words: Sequence[str]) -> dict[str, Any]:
    """The whole as study.json; null stands for what is unknown."""
    study = report.study

    def of(found: Value | None) -> dict[str, Any] | None:
        if found is None:
            return None
        ends = list(found.estimate[1:]) if found.metric else None
        return {"value": found.estimate.value, "ci95": ends, "runs": list(map(str, found.runs))}

    cells = [
        {
            "name": point.name,
            "group": point.group,
            study.x: of(point.x),
            **{
                name: {**(of(found) or {"value": None}), "on_front": on}
                for name, found, on in zip(study.y, point.y, point.on_front, strict=True)
            },
            "runs": [str(folder) for one in outcomes[point.name] for folder, _ in one.runs],
            "failure": point.failure,
        }
        for point in report.points
    ]
    claims = [
        {
            "text": judged.claim.text,
            "of": judged.claim.of,
            "metric": judged.claim.metric,
            "expect": judged.claim.expect.of,
            "range": [judged.claim.expect.low, judged.claim.expect.high],
            "verdict": judged.verdict,
            "estimates": [estimate._asdict() for estimate in judged.estimates],
            "reason": judged.reason,
        }
        for judged in report.judged
    ]
    content: dict[str, Any] = {
        "study": study.name,
        "title": report.title,
        "source": study.source,
        "x": study.x,
        "y": study.y,
    }
    content |= {
        "words": list(words),
        "cells": cells,
        "claims": claims,
        "sentences": report.sentences,
        "notes": report.notes,
    }
    return plain(content)  # type: ignore[no-any-return]
