"""`evalkit study NAME`: runs the cells that are missing, then writes and prints what the study found.

What is finished is read from the folders of the cells alone, each of which appears whole: a study that was killed goes
on where it was.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import UserError, counted
from evalkit.launch import sweep
from evalkit.launch.cells import Cell
from evalkit.launch.local import Ended
from evalkit.pipeline.described import path_name
from evalkit.results import plot, run_folder
from evalkit.results.table import columns
from evalkit.runtime import atomic, ranks
from evalkit.studies import page
from evalkit.studies.estimates import Outcome, Pairs
from evalkit.studies.files import Study
from evalkit.studies.plan import Plan, plan, required_data, trained_before
from evalkit.studies.report import Report, as_json, cells_of, markdown, report, verdict_line
from evalkit.weights import checkpoint

logger = logging.getLogger("evalkit")

TABLE, PLOT, JSON, PAGE = "table.md", "plot.png", "study.json", "study.html"


def run(study: Study, words: Sequence[str]) -> int:
    """Runs what is missing, writes the study's folder and prints what it found; 1 where a cell failed.

    Raises:
        UserError: a word is wrong, or a task's data are not there; nothing has been run then.
    """
    planned = plan(study, words)
    check_data(planned)
    mini = planned.folder.name.endswith("@mini")
    ended: dict[str, Ended] = {}  # by the cell's mark
    stages, pairs = planned.stages(), Pairs(task_files(planned))
    place = ranks.here()
    with place.notes():
        for number, stage in enumerate(stages, 1):
            logger.info(f"study {study.name}: stage {number} of {len(stages)}, {counted(len(stage), 'cell')}")
            waiting = [cell for cell in stage if not missing_folder(planned, cell, ended)]
            if waiting:
                marks = [cell.mark for cell in waiting]
                ended |= zip(marks, sweep.end_all(planned.jobs, waiting, path_name(study.name)), strict=True)
            if place.first:
                outcomes = {
                    cell.name: [outcome(planned, key, ended) for key in planned.of_seeds(cell.name)]
                    for cell in study.cells
                }
                found = report(study, outcomes, mini, pairs)
                write(planned.folder, found, outcomes, words)
    if not place.first:
        return 0
    print(columns(cells_of(found)))
    lines = [*(f"{p.name}: {p.failure}" for p in found.points if p.failure), *found.notes]
    print("\n".join(["", *found.sentences, *map(verdict_line, found.judged), *lines]).rstrip())
    print(draw(planned.folder, found))
    for name in (TABLE, JSON, PAGE):
        print(planned.folder / name)
    return 1 if any(point.failure for point in found.points) else 0


def describe(study: Study, words: Sequence[str]) -> str:
    """What a study asks: each cell with its lines, and where the data of its tasks are looked for."""
    to_give = []
    try:
        planned = plan(study, words)
    except UserError as error:  # perhaps no more is wrong than that a study of the user's encoder has none yet
        to_give = ["ckpt=ENCODER is yours to name", ""]
        try:
            planned = plan(study, [*words, "ckpt=ENCODER"])
        except UserError:
            raise error from None
    lines = [study.title, *([study.source] if study.source else []), "", *to_give]
    for cell in study.cells:
        lines.append(f"{cell.name}" + (f"  ({cell.group})" if cell.group else ""))
        for key in planned.of_seeds(cell.name):
            lines += [f"  evalkit {shlex.join(one.words)}" for one in planned.adapts[key]]
            for one in planned.runs[key]:
                grid = len(one.points) > 1
                words = one.words if grid else one.points[0]
                lines.append(f"  evalkit {'sweep' if grid else 'run'} {shlex.join(words)}")
    lines.append("")
    data = required_data(planned)
    for task, root in data.items():
        there = "is there" if root.exists() else "is not there"
        names = [cell.name for cell in study.cells if task in _tasks(planned, cell.name)]
        readers = "all cells" if len(names) == len(study.cells) > 1 else "; ".join(names)
        lines.append(f"{task}.data.root={root}  {there}; read by {readers}")
    if not data:
        lines.append("no data are needed: all cells are miniatures")
    lines += ["", f"plot: {study.x} against {', '.join(study.y)}", *(f"claim: {c.text}" for c in study.claims)]
    return "\n".join(lines)


def _tasks(planned: Plan, name: str) -> set[str]:
    from evalkit.plugins import display_name

    cells = [cell for key in planned.of_seeds(name) for cell in (*planned.adapts[key], *planned.runs[key])]
    return {display_name(cell.config.options.task) for cell in cells}


def check_data(planned: Plan) -> None:
    """Raises UserError where the data of a task are not there."""
    absent = {task: root for task, root in required_data(planned).items() if not root.exists()}
    if absent:
        task, root = next(iter(absent.items()))
        more = f" (and of {', '.join([*absent][1:])})" if len(absent) > 1 else ""
        raise UserError(
            f"study {planned.study.name}: no data of task {task} at {root}{more}: give {task}.data.root=FOLDER, or "
            f"mini=true; `evalkit study {planned.study.word} --help` shows what each cell reads"
        )


def missing_folder(planned: Plan, cell: Cell, ended: dict[str, Ended]) -> str:
    """Why a cell cannot begin, which then has ended: what it takes was not trained."""
    trained = {one.config.options.out: one for some in planned.adapts.values() for one in some}
    for place in trained_before(cell, trained):
        before = ended[trained[place].mark]
        if before.folder is None:
            ended[cell.mark] = before
            return before.failure
    return ""


def outcome(planned: Plan, name: str, ended: Mapping[str, Ended]) -> Outcome:
    """What came of a cell of the study with one seed, read from its folders."""
    of_cell = Outcome()
    for cell in reversed(planned.adapts[name]):
        end = ended.get(cell.mark)
        if end and end.folder:
            try:
                of_cell.adapted += [adapted_record(end.folder)]
            except UserError as error:
                of_cell.failure = f"{error}: remove {end.folder}, and it is trained again"
        elif end:
            of_cell.failure = end.failure
    for cell in planned.runs[name]:
        end = ended.get(cell.mark)
        if end and end.folder:
            of_cell.runs.append((end.folder, run_folder.load(end.folder)))
        elif end:
            of_cell.failure = of_cell.failure or end.failure
    if planned.seeds and of_cell.failure:
        of_cell.failure = f"{name.rpartition(', ')[2]}: {of_cell.failure}"
    return of_cell


def adapted_record(folder: Path) -> Mapping[str, Any]:
    """What `evalkit adapt` wrote down of its training."""
    files = sorted(folder.glob("adapters/*/adapter.json"))
    return checkpoint.read_json(files[0]) if files else {}


def task_files(planned: Plan) -> list[Path]:
    """The files of tasks of the user's own that the cells name."""
    cells = [cell for some in planned.runs.values() for cell in some]
    return list(dict.fromkeys(Path(c.config.options.task) for c in cells if c.config.options.task.endswith(".py")))


def write(folder: Path, found: Report, outcomes: Mapping[str, Sequence[Outcome]], words: Sequence[str]) -> None:
    """Writes what was found until now: table.md, study.json and study.html."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write(folder / TABLE, markdown(found).encode())
    atomic.write(folder / JSON, (json.dumps(as_json(found, outcomes, words), indent=1) + "\n").encode())
    atomic.write(folder / PAGE, page.html(found).encode())


def draw(folder: Path, found: Report) -> str:
    """Draws plot.png; returns its path, or how to get it."""
    study = found.study
    panels = []
    for k, name in enumerate(study.y):
        points = [
            plot.Mark(p.name, p.group, p.x.estimate.value, of_y.estimate.value, p.on_front[k])
            for p in found.points
            if p.x is not None and (of_y := p.y[k]) is not None
        ]
        panels.append((name, points))
    return plot.front_png(panels, study.x, folder / PLOT, study.axis == "log")
