"""From rows to scores with intervals and bounds, and the task's score function found again by its name."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from evalkit import metrics, plugins
from evalkit.api import Score
from evalkit.errors import UserError, counted
from evalkit.metrics.bootstrap import AdditiveScore, Indices, ReweightedScore, interval, interval_of, number_clusters
from evalkit.results.rows import Row
from evalkit.results.schema import plain

# Per metric: one value of each example, in 0..1, or a score over the split.
Measured = dict[str, "npt.NDArray[np.float64] | AdditiveScore | ReweightedScore"]

# What results name that were written before score functions had the names that evalkit.metrics exports.
_FORMER_MODULES = re.compile(r"evalkit\.(wording\.\w+|answers|events|videocon)")
_FORMER_NAMES = {"by_video": "dense_by_video", "by_video_meteor": "dense_by_video_meteor"}

_CALLS = 1_000  # of a score function that gives one float only, for its interval


def scores(score: Score, rows: Sequence[Row], seed: int, measured: Measured | None = None) -> list[dict[str, Any]]:
    """The scores over all labeled rows, as result.json holds them: the headline first, then the headline per kind.

    Every labeled example counts, a failed one as wrong. Rates are in percent. `bounds` is what the score would be with
    all failed examples wrong (the score itself) and all of them right. Numbers are rounded to six decimals, so that
    the order in which a machine adds does not show.

    Args:
        score: the task's score function.
        rows: all test examples; those without a target are left out.
        seed: of the bootstrap.
        measured: what `measure` gives of them, where that is known.

    Returns:
        A list of {metric, value, ci95 [low, high], n, n_clusters, bounds [all failed wrong, all failed right]}; None
        stands for a number that is undefined. Empty where no row has a target.

    Raises:
        UserError: the score function returns something else than `evalkit.api.Score` allows.
    """
    labeled = [row for row in rows if row.target is not None]
    if not labeled:
        return []
    videos = [row.video for row in labeled]
    worst = best = measured or measure(score, rows)
    failed = np.array([row.prediction is None for row in labeled])
    if failed.any():
        corrected = [row.target if row.prediction is None else row.prediction for row in labeled]
        best = _measure(score, corrected, [row.target for row in labeled], must_be=1.0, where=failed)

    def entries(metrics: Sequence[str], indices: Indices, suffix: str = "") -> list[dict[str, Any]]:
        """One entry per metric, over the labeled examples with these indices."""
        clusters = number_clusters([videos[i] for i in indices.tolist()])
        scored = []
        for metric in metrics:
            rates, bound = worst[metric], best[metric]
            if isinstance(rates, np.ndarray):
                low, high = interval(rates[indices], clusters, seed)
                value = [
                    100 * number for number in (low, rates[indices].mean(), np.asarray(bound)[indices].mean(), high)
                ]
            else:
                assert not isinstance(bound, np.ndarray)
                some = rates.subset(indices) if suffix else rates
                low, high = interval_of(some, clusters, seed)
                value = [low, some, bound.subset(indices) if suffix else bound, high]
            least, middle, right, most = map(rounded, value)
            scored.append(
                {
                    "metric": metric + suffix,
                    "value": middle,
                    "ci95": [least, most],
                    "n": len(indices),
                    "n_clusters": clusters.n,
                    "bounds": [middle, right],
                }
            )
        return scored

    metrics = list(worst)
    scored = entries(metrics, np.arange(len(labeled)))
    for kind in sorted({row.kind for row in labeled} - {""}):
        members = np.flatnonzero([row.kind == kind for row in labeled])
        scored += entries(metrics[:1], members, f"/{kind}")
    return scored


def measure(score: Score, rows: Sequence[Row]) -> Measured:
    """The value of each metric on the labeled rows, with failed ones wrong; empty if no row has a target.

    Raises:
        UserError: as `scores`.
    """
    labeled = [row for row in rows if row.target is not None]
    if not labeled:
        return {}
    failed = np.array([row.prediction is None for row in labeled])
    return _measure(score, [row.prediction for row in labeled], [row.target for row in labeled], 0.0, failed)


def _measure(
    score: Score,
    predictions: Sequence[Any],
    targets: Sequence[Any],
    must_be: float,
    where: npt.NDArray[np.bool_],
) -> Measured:
    """The checked return value of the score function; per-example values must be `must_be` at `where`."""
    returned = score(predictions, targets)
    name = f"score function {getattr(score, '__module__', '?')}:{getattr(score, '__qualname__', score)}"
    if not isinstance(returned, Mapping) or not returned:
        raise UserError(f"{name} returns {str(returned)[:60]!r}; it must return a dictionary {{metric: value}}")

    @lru_cache(maxsize=_CALLS)  # each metric asks for the same draws
    def call(times: bytes) -> Mapping[str, Any]:
        drawn = np.repeat(np.arange(len(targets)), np.frombuffer(times, np.uint16)).tolist()
        return score([predictions[i] for i in drawn], [targets[i] for i in drawn])

    def again(metric: str, times: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return np.array([float(call(draw.tobytes())[metric]) for draw in times.T.astype(np.uint16)])

    measured: Measured = {}
    for metric, value in returned.items():
        if isinstance(value, AdditiveScore | ReweightedScore):
            measured[metric] = value
            continue
        if isinstance(value, int | float):
            measured[metric] = ReweightedScore(len(targets), partial(again, metric), _CALLS, float(value))
            continue
        try:
            rates = np.asarray(plain(value), dtype=np.float64)
        except (UserError, TypeError, ValueError):
            rates = np.empty((0, 0))
        if rates.ndim == 0:  # a numpy or torch scalar; None for NaN becomes NaN again
            measured[metric] = ReweightedScore(len(targets), partial(again, metric), _CALLS, float(rates))
            continue
        if rates.shape != (len(targets),) or not ((rates >= 0) & (rates <= 1)).all():
            raise UserError(
                f"{name} returns {str(value)[:60]!r} for {metric!r}; it must return one number in 0..1 for each of the "
                f"{counted(len(targets), 'example')}, or one float over all of them"
            )
        if (rates[where] != must_be).any():
            given = "a failed example (prediction None)" if must_be == 0 else "a target in place of a prediction"
            raise UserError(f"{name} gives {metric!r} another value than {must_be:g} to {given}")
        measured[metric] = rates
    return measured


def headline(score: Score, predictions: Sequence[Any], targets: Sequence[Any]) -> float:
    """A score's first entry; a value per example becomes its mean in percent."""
    value = next(iter(score(predictions, targets).values()))
    return float(value) if np.ndim(value) == 0 else 100 * float(np.mean(value))  # type: ignore[arg-type]


# Orders of the options that are scored; of examples with 2 to 10 options all are alike in number after 2,520.
MOST_ORDERS = 5040


def control(
    name: str, score: Score, values: Sequence[Any], targets: Sequence[Any], former: bool = False
) -> tuple[str, float]:
    """The headline's name, and a control's score by it, from its predictions of the labeled examples; None is wrong.

    A prediction of `option_order` is a list with one entry per order of the options. The score is the mean over orders,
    in which all orders of an example have the same weight; with `former`, as in older records, it has as many turns as
    the most options, and the first orders of an example with fewer count more often.
    """
    metric = next(iter(score(targets[:2], targets[:2])))
    if name != "option_order":
        return metric, headline(score, values, targets)
    counts = {len(value) for value in values if value is not None}
    orders = min(MOST_ORDERS, max(counts, default=1) if former else math.lcm(*counts))
    turns = ([None if value is None else value[k % len(value)] for value in values] for k in range(orders))
    return metric, sum(headline(score, turn, targets) for turn in turns) / orders


def rounded(number: float) -> float | None:
    """A number as results hold it, to six decimals; None for NaN."""
    return round(float(number), 6) if np.isfinite(number) else None


def lower_is_better(metric: str) -> bool:
    """Whether a lower value is better: ranks, the repetition R@4, error shares, and distances between views."""
    return is_rank(metric) or metric in ("R@4", "alignment", "uniformity") or metric.endswith("_error")


def is_rank(metric: str) -> bool:
    """Whether a metric is a rank, which is not a rate in percent."""
    return metric.endswith("_rank")


class Unverified(UserError):
    """The score function is in a task file that the user did not name, so it is not run."""


def task_files(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """The words without those that read `task=FILE.py`, and these files: tasks of the user's own, to score by.

    Raises:
        UserError: there is no such file.
    """
    files = []
    for word in words:
        if word.startswith("task="):
            name = word.removeprefix("task=")
            file = Path(name).expanduser()
            if file.suffix != ".py" or not file.is_file():
                why = "there is no such file" if file.suffix == ".py" else "evalkit's own tasks need no naming"
                raise UserError(f"{word}: {why}; wanted the file of a task of your own, such as task=./my_task.py")
            files.append(file.resolve())
    return [word for word in words if not word.startswith("task=")], files


def reference(function: Callable[..., Any], kind: Literal["score", "any"] = "score") -> str:
    """The name under which re-scoring finds a score function again.

    Args:
        function: what the task scores with, and so trusted.
        kind: see `resolve`.

    Returns:
        `evalkit.metrics:accuracy`, or `/home/me/my_task.py:score` for a task in a file of its own.

    Raises:
        UserError: it is a lambda, a local function, or otherwise not to be found by name.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not isinstance(function, FunctionType) or not name.isidentifier():
        raise UserError(
            f"score function {name!r} could not be found again to re-score: define it with def at the top level of the "
            "task's file, or take one from evalkit.metrics"
        )
    module = function.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if getattr(metrics, name, None) is function:
        module = metrics.__name__
    full_name = f"{module if _installed(module) or file is None else Path(file).resolve()}:{name}"
    try:
        resolve(full_name, [Path(file).resolve()] if file else [], kind)
    except UserError as error:
        raise UserError(f"{error}; define the score function in the task's own file or take one of evalkit") from error
    return full_name


def present(reference: str) -> str:
    """The current name of a score function, given its name in an old or new result."""
    where, _, name = reference.rpartition(":")
    if _FORMER_MODULES.fullmatch(where):
        where = metrics.__name__
    return f"{where}:{_FORMER_NAMES.get(name, name) if where == metrics.__name__ else name}"


def resolve(reference: str, files: Sequence[Path] = (), kind: Literal["score", "any"] = "score") -> Score:
    """The score function that a result names.

    A result that came from elsewhere must not be able to name, and so to run, just any code that is on this machine.
    Of evalkit only the modules that hold score functions are imported, and of them only public functions of
    (predictions, targets) are taken; of an installed plug-in only what its own modules import; and a task's file is
    imported only where the user named it too.

    Args:
        reference: as `reference` gives it.
        files: of tasks of the user's own, named by the user.
        kind: `any` takes functions of these modules that are no score functions; never for what a result names.

    Raises:
        Unverified: it is in a task's file that is none of `files`.
        UserError: there is no such function.
    """
    where, _, name = present(reference).rpartition(":")
    if where.endswith(".py"):
        module = plugins.module_and_factory("task", str(named_file(where, files)))[0]
    elif where.partition(".")[0] == "evalkit":
        if not _holds_scores(where) and (kind, where) != ("any", "evalkit.metrics.bootstrap"):
            raise UserError(f"score function {reference!r}: evalkit has no score functions in {where}")
        try:
            module = importlib.import_module(where)
        except ImportError as error:
            raise UserError(f"score function {reference!r}: {error}") from error
    elif _installed(where):
        module = _announced(where)
    else:
        raise UserError(f"score function {reference!r} is not part of evalkit, an installed plug-in or a task's file")
    function = getattr(module, name, None)
    exported = module is metrics and name in metrics.__all__
    if not isinstance(function, FunctionType) or not (exported or function.__module__ == module.__name__):
        raise UserError(f"score function {reference!r}: {where} defines no function {name!r}")
    if kind == "score" and where.partition(".")[0] == "evalkit" and not _scores(function):
        raise UserError(f"score function {reference!r}: it is not a function of (predictions, targets)")
    return function


def named_file(where: str, files: Sequence[Path]) -> Path:
    """The one of the user's own files that a result means: of this path, or, where it was moved, of this name."""
    matches = [file for file in files if str(file) == where] or [
        file for file in files if file.name == Path(where).name
    ]
    if len(matches) == 1:
        return matches[0]
    shown = " ".join(where.split())
    if matches:
        raise Unverified(
            f"unverified: the scores come from the task file {shown}, and {len(matches)} of that name are given"
        )
    raise Unverified(
        f"unverified: the scores come from the task file {shown}, which runs only where you name it: "
        f"{shlex.quote(f'task={shown}')} verifies them"
    )


def _holds_scores(module: str) -> bool:
    """Whether a module of evalkit, by its name, may define score functions: evalkit.metrics and the tasks' files.

    In a checkout everything beside the package can be imported as a part of it, tests and benchmarks included.
    """
    package, _, name = module.rpartition(".")
    task = package == "evalkit.tasks" and name.isidentifier() and plugins.names("task").get(name, "").endswith(".py")
    return task or module == metrics.__name__


def _scores(function: FunctionType) -> bool:
    parameters = inspect.signature(function).parameters
    first = list(parameters)[:2] == ["predictions", "targets"]
    needed = [parameter for parameter in parameters.values() if parameter.default is parameter.empty]
    return first and len(needed) == 2 and not function.__name__.startswith("_")


def _announced(where: str) -> ModuleType:
    """A module of an installed plug-in, which is not imported for its name: the plug-in's own modules decide on that.

    Raises:
        UserError: they do not import it, or do not import themselves.
    """
    for point in entry_points(group="evalkit.tasks"):
        if point.module.partition(".")[0] == where.partition(".")[0]:
            plugins.module_and_factory("task", point.name)
    if where not in sys.modules:
        raise UserError(f"score function in {where}: the installed plug-in does not import that module where it begins")
    return sys.modules[where]


def _installed(module: str) -> bool:
    """Whether a module belongs to evalkit or to a package that announces tasks to it."""
    package = module.partition(".")[0]
    return package == "evalkit" or package in {
        point.module.partition(".")[0] for point in entry_points(group="evalkit.tasks")
    }
