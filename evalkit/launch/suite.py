"""`evalkit run suite=NAME`: one encoder on every task of a paper, beside the published scores."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from evalkit.config.options import SECTIONS
from evalkit.datasets import published
from evalkit.datasets.suites import Suite, nearest_published, nearest_row, read
from evalkit.errors import UserError, nearest
from evalkit.launch import cells, sweep
from evalkit.launch.cells import Cell, Jobs
from evalkit.launch.sweep import Done
from evalkit.metrics import videoglue
from evalkit.pipeline.described import path_name
from evalkit.results.table import columns, decimal, interval

logger = logging.getLogger("evalkit")


def run(words: Sequence[str]) -> int:
    """Runs every cell that is not finished yet and prints one table; 1 where a cell failed.

    Words go to every task, those that begin with a task's name to that task alone: `ssv2.data.root=/d/ssv2`.

    Raises:
        UserError: a word is wrong; nothing has been run then.
    """
    name = next(word for word in words if word.startswith("suite=")).partition("=")[2]
    suite = read(name)
    jobs, planned = plan(suite, [word for word in words if not word.startswith("suite=")])
    logger.info(f"suite {name}: passes: {len(planned)}")
    done = sweep.run_all(jobs, [cell for _, cell in planned], path_name(name))
    print(table(suite, list(zip((adaptation for adaptation, _ in planned), done, strict=True))))
    return 1 if any(outcome.failure for outcome in done) else 0


def plan(suite: Suite, words: Sequence[str]) -> tuple[Jobs, list[tuple[str, Cell]]]:
    """Where the cells run, and each cell with its adaptation.

    Raises:
        UserError: a word is wrong, or is for no task of the suite.
    """
    lines = [(adaptation, line.split()) for adaptation, lines in suite.cells.items() for line in lines]
    tasks = {word.partition("=")[2] for _, line in lines for word in line if word.startswith("task=")}
    if suite.mean not in ("", "stratified"):
        raise UserError(f"mean: {suite.mean}: a suite has mean: stratified, or none")
    if suite.mean:
        videoglue.stratified_mean(dict.fromkeys(tasks, 0.0))  # fails now where a task is in none of its groups
    of_all = [word for word in words if word.partition(".")[0] not in tasks]
    if wrong := [word for word in of_all if word.startswith("task=")]:
        raise UserError(f"{wrong[0]}: a suite has its own tasks: {', '.join(sorted(tasks))}")
    for word in of_all:
        head, dot, rest = word.partition("=")[0].partition(".")
        if dot and head not in SECTIONS and rest != "from" and rest.partition(".")[0] in SECTIONS:
            near = nearest(head, tasks)
            hint = f" Did you mean '{near}.{rest}'?" if near else f" Its tasks: {', '.join(sorted(tasks))}"
            raise UserError(f"unknown key '{head}.{rest}': the suite has no task {head!r}.{hint}")
    jobs, planned = Jobs(), []
    for adaptation, line in lines:
        task = next(word for word in line if word.startswith("task=")).partition("=")[2]
        of_task = [word.removeprefix(f"{task}.") for word in words if word.startswith(f"{task}.")]
        settled: dict[str, str] = {}
        for word in (*line, *of_all, *of_task):  # what is said last counts
            settled[word.partition("=")[0]] = word
        try:
            jobs, of_line = cells.plan(list(settled.values()), "run")
        except UserError as error:
            if not any(word.partition("=")[0] in str(error) for word in of_task):
                raise
            prefixed = re.sub(rf"(?<![\w./])({'|'.join(SECTIONS)})\.(?=\w)", rf"{task}.\1.", str(error))
            raise UserError(prefixed) from error
        planned += [(adaptation, cell) for cell in of_line]
    return jobs, planned


def table(suite: Suite, done: Sequence[tuple[str, Done]]) -> str:
    """A line per cell: the headline with its interval, and what the nearest encoder has in print; then the means."""
    rows: list[tuple[str, ...]] = [
        ("task", "how", "metric", "score", "95 % interval", "examples", "chance", "published", "of")
    ]
    failures: dict[int, str] = {}
    for adaptation, outcome in done:
        record = outcome.record
        if record is None or not record["scores"]:
            why = "failed" if record is None else "no public answers"
            rows.append((outcome.cell.config.options.task, adaptation, why, *[""] * 6))
            if record is None:
                failures[len(rows) - 1] = outcome.failure
            continue
        score = record["scores"][0]
        numbers = (decimal(score["value"]), interval(score["ci95"], missing=""), f"{score['n']:,}")
        in_print = nearest_published(suite, adaptation, record)
        rows.append(
            (record["task"]["name"], adaptation, score["metric"], *numbers, decimal(record["chance"]), *in_print)
        )
    means, why_no_score = _means(suite, done) if suite.mean else ([], "")
    return "\n".join(filter(None, (sweep.with_failures(columns([*rows, *means]), failures), why_no_score)))


def _means(suite: Suite, done: Sequence[tuple[str, Done]]) -> tuple[list[tuple[str, ...]], str]:
    """The stratified mean of each adaptation with scores on all tasks, and the VideoGLUE score of all four.

    Returns:
        Rows of the table, and a line that says why the four means have no score; empty where they have, or are not all
        there.
    """
    rows: list[tuple[str, ...]] = []
    means: dict[str, float] = {}
    costs: dict[str, float] = {}
    scored = [(how, outcome.record) for how, outcome in done if outcome.record and outcome.record["scores"]]
    minis = {record["task"]["name"].endswith("@mini") for _, record in scored}
    if len(minis) != 1:  # there is none, or miniatures stand beside real ones
        return [], ""
    first, encoder = scored[0][1]["task"]["name"], scored[0][1]["encoder"]

    def in_print(metric: str, adaptation: str) -> tuple[str, str]:
        known = {} if minis == {True} else published.rows("videoglue", metric, adaptation)
        return nearest_row(suite, encoder, known)

    for adaptation in suite.cells:
        records = [outcome.record for how, outcome in done if how == adaptation]
        of_adaptation = videoglue.mean_and_cost([record for record in records if record])
        if of_adaptation is None or None in records:
            continue
        mean, costs[adaptation] = of_adaptation
        rows.append(
            ("stratified mean", adaptation, "", decimal(mean), *[""] * 3, *in_print("stratified_mean", adaptation))
        )
        means[adaptation] = mean
    if means.keys() != {*videoglue.ADAPTATIONS}:
        return rows, ""
    try:
        score = videoglue.score(means, costs)
    except UserError as error:
        return rows, f"no {error} (trainable GFLOPs per clip of {first})"
    return [*rows, ("VideoGLUE score", "all", "", decimal(score), *[""] * 3, *in_print("videoglue_score", "all"))], ""
