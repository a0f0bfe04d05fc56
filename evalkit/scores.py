"""From rows to scores with intervals and bounds, and the task's score function found again by its name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit import plugins
from evalkit.api import Score, UserError
from evalkit.rows import Row
from evalkit.schema import plain
from evalkit.statistics import Indices, Summed, Weighted, interval, interval_of, numbered

# Per metric: one value of each example, in 0..1, or a score over the split.
Measured = dict[str, "npt.NDArray[np.float64] | Summed | Weighted"]

_CALLS = 1_000  # of a score function that gives one float only, for its interval


def scores(score: Score, rows: Sequence[Row], seed: int, measured: Measured | None = None) -> list[dict[str, Any]]:
    """The scores over all labelled rows, as result.json holds them: the headline first, then the headline per kind.

    Every labelled example counts, a failed one as wrong. Rates are in percent. `bounds` is what the score would be with
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
    labelled = [row for row in rows if row.target is not None]
    if not labelled:
        return []
    videos = [row.video for row in labelled]
    worst = best = measured or measure(score, rows)
    failed = np.array([row.prediction is None for row in labelled])
    if failed.any():
        corrected = [row.target if row.prediction is None else row.prediction for row in labelled]
        best = _measure(score, corrected, [row.target for row in labelled], must_be=1.0, where=failed)

    def entries(metrics: Sequence[str], indices: Indices, suffix: str = "") -> list[dict[str, Any]]:
        """One entry per metric, over the labelled examples with these indices."""
        clusters = numbered([videos[i] for i in indices.tolist()])
        found = []
        for metric in metrics:
            rates, bound = worst[metric], best[metric]
            if isinstance(rates, np.ndarray):
                low, high = interval(rates[indices], clusters, seed)
                value = [
                    100 * number for number in (low, rates[indices].mean(), np.asarray(bound)[indices].mean(), high)
                ]
            else:
                assert not isinstance(bound, np.ndarray)
                some = rates.among(indices) if suffix else rates
                low, high = interval_of(some, clusters, seed)
                value = [low, some, bound.among(indices) if suffix else bound, high]
            least, middle, right, most = map(rounded, value)
            found.append(
                {
                    "metric": metric + suffix,
                    "value": middle,
                    "ci95": [least, most],
                    "n": len(indices),
                    "n_clusters": clusters.n,
                    "bounds": [middle, right],
                }
            )
        return found

    metrics = list(worst)
    found = entries(metrics, np.arange(len(labelled)))
    for kind in sorted({row.kind for row in labelled} - {""}):
        members = np.flatnonzero([row.kind == kind for row in labelled])
        found += entries(metrics[:1], members, f"/{kind}")
    return found


def measure(score: Score, rows: Sequence[Row]) -> Measured:
    """What the labelled rows score by each metric, failed ones wrong; nothing where no row has a target.

    Raises:
        UserError: as `scores`.
    """
    labelled = [row for row in rows if row.target is not None]
    if not labelled:
        return {}
    failed = np.array([row.prediction is None for row in labelled])
    return _measure(score, [row.prediction for row in labelled], [row.target for row in labelled], 0.0, failed)


def _measure(
    score: Score,
    predictions: Sequence[Any],
    targets: Sequence[Any],
    must_be: float,
    where: npt.NDArray[np.bool_],
) -> Measured:
    """What the score function returns, checked; values of examples are `must_be` at `where`."""
    found = score(predictions, targets)
    name = f"score function {getattr(score, '__module__', '?')}:{getattr(score, '__qualname__', score)}"
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{name} returns {str(found)[:60]!r}; it must return a dictionary {{metric: value}}")

    @lru_cache(maxsize=_CALLS)  # each metric asks for the same draws
    def call(times: bytes) -> Mapping[str, Any]:
        drawn = np.repeat(np.arange(len(targets)), np.frombuffer(times, np.uint16)).tolist()
        return score([predictions[i] for i in drawn], [targets[i] for i in drawn])

    def again(metric: str, times: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return np.array([float(call(one.tobytes())[metric]) for one in times.T.astype(np.uint16)])

    measured: Measured = {}
    for metric, value in found.items():
        if isinstance(value, Summed | Weighted):
            measured[metric] = value
            continue
        if isinstance(value, int | float):
            measured[metric] = Weighted(len(targets), partial(again, metric), _CALLS, float(value))
            continue
        try:
            rates = np.asarray(plain(value), dtype=np.float64)
        except (UserError, TypeError, ValueError):
            rates = np.empty((0, 0))
        if rates.ndim == 0:  # a numpy or torch scalar; None for NaN becomes NaN again
            measured[metric] = Weighted(len(targets), partial(again, metric), _CALLS, float(rates))
            continue
        if rates.shape != (len(targets),) or not ((rates >= 0) & (rates <= 1)).all():
            raise UserError(
                f"{name} returns {str(value)[:60]!r} for {metric!r}; it must return one number in 0..1 for each of the "
                f"{len(targets)} examples, or one float over all of them"
            )
        if (rates[where] != must_be).any():
            given = "a failed example (prediction None)" if must_be == 0 else "a target in place of a prediction"
            raise UserError(f"{name} gives {metric!r} another value than {must_be:g} to {given}")
        measured[metric] = rates
    return measured


def rounded(number: float) -> float | None:
    """A number as results hold it, to six decimals; None for NaN."""
    return round(float(number), 6) if np.isfinite(number) else None


def lower_is_better(metric: str) -> bool:
    """Whether less is more: of ranks, and of the repetition R@4."""
    return is_rank(metric) or metric == "R@4"


def is_rank(metric: str) -> bool:
    """Whether a metric is a place, of which the lower is better; all others are rates in percent."""
    return metric.endswith("_rank")


def reference(function: Callable[..., Any]) -> str:
    """The name under which re-scoring finds a score function again.

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
    found = f"{module if _installed(module) or file is None else Path(file).resolve()}:{name}"
    try:
        resolve(found)
    except UserError as error:
        raise UserError(f"{error}; define the score function in the task's own file or take one of evalkit") from error
    return found


def resolve(reference: str) -> Score:
    """The score function that a result names.

    Only functions that evalkit, an installed plug-in or a task's file defines itself are taken: a result that came
    from elsewhere must not be able to name, and so to call, anything installed on this machine. A task's file is
    imported, so a result that names a file is to be trusted as that file is.

    Raises:
        UserError: there is no such function.
    """
    where, _, name = reference.rpartition(":")
    if where.endswith(".py"):
        module = plugins.module_and_factory("task", where)[0]
    elif _installed(where):
        try:
            module = importlib.import_module(where)
        except ImportError as error:
            raise UserError(f"score function {reference!r}: {error}") from error
    else:
        raise UserError(f"score function {reference!r} is not part of evalkit, an installed plug-in or a task's file")
    function = getattr(module, name, None)
    if not isinstance(function, FunctionType) or function.__module__ != module.__name__:
        raise UserError(f"score function {reference!r}: {where} defines no function {name!r}")
    return function


def _installed(module: str) -> bool:
    """Whether a module belongs to evalkit or to a package that announces tasks to it."""
    package = module.partition(".")[0]
    return package == "evalkit" or package in {
        point.module.partition(".")[0] for point in entry_points(group="evalkit.tasks")
    }
