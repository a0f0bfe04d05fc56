"""How many samples detect a difference between two runs, and which difference a task can detect."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

from evalkit import plugins
from evalkit.config import parse
from evalkit.config.values import convert
from evalkit.errors import UserError, counted, suggest
from evalkit.metrics.power import detectable_difference, required_samples
from evalkit.plugins import display_name
from evalkit.results.table import columns

# Shown where none is given: what two runs have in common is not known before they are run.
CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.9)

EXAMPLE = {"difference": "2", "baseline": "50", "correlation": "0.5", "samples": "500"}  # of a value
SMALLEST = 0.001  # percent points; below, the numbers of samples are larger than any benchmark


def main(words: Sequence[str]) -> int:
    """0, after `report` was printed."""
    print(report(words))
    return 0


def report(words: Sequence[str]) -> str:
    """What `evalkit power difference=2 [baseline=50] [correlation=0.5] [samples=500 | task=NAME ...]` prints.

    Raises:
        UserError: a word is wrong, or the task's data are not there.
    """
    known = {"difference": 2.0, "baseline": 50.0, "correlation": math.nan, "samples": math.nan}
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if key not in known:
            rest.append(word)
            continue
        try:
            known[key] = convert(value, float)
        except ValueError:
            raise UserError(f"{word}: expected a number, such as {key}={EXAMPLE[key]}") from None
    difference, baseline, correlation, samples = known.values()
    if not 0 <= baseline < 100 or not 0 < difference <= 100 - baseline:
        room = f"{100 - difference:g} that" if 0 < difference < 100 else "below 100 that"
        raise UserError(
            f"difference={difference:g} baseline={baseline:g}: wanted percent points above 0, and a baseline from 0 to "
            f"{room} leaves room for them"
        )
    if difference < SMALLEST:
        raise UserError(f"difference={difference:g}: wanted at least {SMALLEST:g} percent points")
    if correlation < -1 or correlation > 1:
        raise UserError(f"correlation={correlation:g}: wanted -1 to 1")
    if not math.isnan(samples) and (samples < 2 or not samples.is_integer() or rest):
        why = f"leave it out, {rest[0]} counts them itself" if rest else "expected a whole number from 2"
        raise UserError(f"samples={samples:g}: {why}")
    rows = [["correlation of the two", f"samples to see {difference:g} points"]]
    supposed = CORRELATIONS if math.isnan(correlation) else (correlation,)
    rows += [[f"{assumed:g}", f"{required_samples(difference, baseline, assumed):,}"] for assumed in supposed]
    lines = [
        f"two runs on the same samples, the worse at {baseline:g} %; 80 % power at 5 %; each sample of its own video"
    ]
    if rest or samples > 0:
        name, n, videos = _size(rest) if rest else ("", int(samples), int(samples))
        lines += [f"{name}: {counted(n, 'sample')} of {counted(videos, 'video')}"] if rest else []
        for count, what in {videos: "videos", n: "samples"}.items():
            rows[0].append(f"{count:,} {what} show")
            for row, assumed in zip(rows[1:], supposed, strict=True):
                points = detectable_difference(count, baseline, assumed)
                row.append("nothing" if math.isnan(points) else f"{points:.1f} points")
        if n > videos:
            lines.append(
                "samples of one video count for less than as many of their own: the truth lies between the two"
            )
    return "\n".join([*lines, "", columns(rows)])


def _stated(task: str) -> int | None:
    """How many test samples a task's module states, `DATA.sizes`; None where it states none, or has no miniature."""
    module, function = plugins.module_and_factory("task", task)
    sizes: Any = getattr(getattr(module, "DATA", None), "sizes", {}).get("test")
    count = sizes[0] if isinstance(sizes, tuple) and sizes else sizes
    return count if isinstance(count, int) and "mini" in inspect.signature(function).parameters else None


def _size(words: Sequence[str]) -> tuple[str, int, int]:
    """What the task of these words is called, its labeled test samples, and their videos."""
    for word in words:
        if "=" not in word or not word.startswith(("task=", "mini=", "data.", "config=")):
            near = suggest(word.partition("=")[0], ["difference", "baseline", "correlation", "samples", "task", "mini"])
            raise UserError(
                "power takes difference=, baseline=, correlation=, samples=, task=, mini= and data.*, "
                f"got {word}.{near}"
            )
    from evalkit.pipeline.task_data import load_task

    settled = parse.resolve("check", words)
    published: int | None = None
    try:
        task = load_task(settled)
    except UserError as error:
        published = _stated(settled.options.task) if not settled.data else None
        if published is None:
            raise UserError(
                f"{error}; or give power the number of its test samples, samples=500, in place of task="
            ) from error
        task = load_task(parse.resolve("check", [f"task={settled.options.task}", "mini=true"]))  # scored as it is
    labeled = [example for example in task.test if example.target is not None]
    if not labeled:
        raise UserError(f"task {settled.options.task}: no test sample has a public answer")
    name = display_name(settled.options.task) + ("@mini" if settled.options.mini else "")
    targets = [example.target for example in labeled[:100]]
    metric, value = next(iter(task.score(targets, targets).items()))
    if isinstance(value, float):
        raise UserError(f"task {name}: {metric} is no share of samples that are right; power knows no other")
    if published:
        return f"{name} as published, each sample taken as of a video of its own", published, published
    return name, len(labeled), len({example.video for example in labeled})
