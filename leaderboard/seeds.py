"""Runs that differ only in their seed or their fold, as one: the mean and standard deviation of their scores."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evalkit.metrics.bootstrap import AdditiveScore, average, interval, interval_of, number_clusters
from evalkit.results.scores import rounded

from .runs import Headline, Run


@dataclass(frozen=True)
class Seeds:
    """Runs of one encoder under one protocol on the same data, one of each seed; or on the official splits of one
    benchmark, its folds, one of each fold and seed.

    Attributes:
        runs: by fold and seed; at least one.
        newest: the run that finished last.
        total: number of runs, older ones of the same fold and seed included.
    """

    runs: tuple[Run, ...]
    newest: Run
    total: int

    @property
    def numbers(self) -> list[int]:
        """The seeds."""
        return sorted({run.result["provenance"]["seed"] for run in self.runs})

    @property
    def folds(self) -> list[int]:
        """The folds; none where the benchmark has one split."""
        return sorted({fold for run in self.runs if (fold := _fold(run))})

    @property
    def pooled(self) -> str:
        """What the score is the mean of, such as `3 seeds`; or the one fold that it is of; empty for one run."""
        counted = [("fold", self.folds), ("seed", self.numbers)]
        several = [f"{len(numbers)} {word}s" for word, numbers in counted if len(numbers) > 1]
        return " of ".join(several) or (f"fold {self.folds[0]}" if self.folds else "")

    @property
    def summary(self) -> str:
        """The number of runs, and their folds and seeds if there are several."""
        counted = [("folds", self.folds), ("seeds", self.numbers)]
        several = [f"of {word} {', '.join(map(str, numbers))}" for word, numbers in counted if len(numbers) > 1]
        if several:
            return ", ".join([str(self.total), *several])
        return "1" if self.total == 1 else f"newest of {self.total}"

    @property
    def worst(self) -> Run:
        """The run with most failed examples."""
        return max(self.runs, key=lambda run: int(run.result["data"]["n_failed"]))

    @cached_property
    def headline(self) -> Headline:
        """Each labeled example's score, as the mean over seeds; the runs must have scores.

        The examples of several folds stand one fold after another, each weighted so that their mean is that of the
        folds' means.
        """
        by_fold = [_mean_headline([run for run in self.runs if _fold(run) == fold]) for fold in self.folds or [0]]
        if len(by_fold) == 1:
            return by_fold[0]
        total, starts = sum(len(fold.clusters) for fold in by_fold), [0]
        for fold in by_fold:
            starts.append(starts[-1] + int(fold.clusters.max(initial=-1)) + 1)
        clusters = np.concatenate([fold.clusters + start for fold, start in zip(by_fold, starts, strict=False)])
        values: Any = None
        if all(isinstance(fold.values, np.ndarray) for fold in by_fold):
            values = np.concatenate([fold.values * (total / len(by_fold) / len(fold.values)) for fold in by_fold])  # type: ignore[arg-type]
        return Headline(values, clusters)

    @cached_property
    def score(self) -> Mapping[str, Any] | None:
        """The headline as result.json has it, as the mean over folds and seeds; None if no example has a public answer.

        The interval is of the mean: videos are resampled, and an example's score is its mean over seeds. It is unknown
        if the headline is neither per example nor an `AdditiveScore`.
        """
        scored = [run for run in self.runs if run.result["scores"]]
        headlines = [run.result["scores"][0] for run in scored]
        if len(headlines) < 2:
            return headlines[0] if headlines else None
        # The lower bound, where failures count as wrong, is the score itself.
        value, upper = (_mean([headline["bounds"][i] for headline in headlines]) for i in (0, 1))
        values, clusters = self.headline.values, number_clusters(self.headline.clusters.tolist())
        ends: tuple[float, float] = (math.nan, math.nan)
        if isinstance(values, AdditiveScore):
            ends = interval_of(values, clusters, seed=0)
        elif values is not None:
            low, high = interval(values, clusters, seed=0)
            ends = 100 * low, 100 * high
        tested = {_fold(run): run.result["scores"][0] for run in scored if _fold(run)}  # of each fold
        sizes = {key: sum(each[key] for each in tested.values()) for key in ("n", "n_clusters")} if tested else {}
        return {**headlines[0], **sizes, "value": value, "ci95": list(map(rounded, ends)), "bounds": [value, upper]}

    def mean_of(self, metric: str) -> Mapping[str, Any] | None:
        """Another metric as result.json has it, as the mean over the runs, then without interval; None if undefined."""
        scored = [run.result["scores"] for run in self.runs if run.result["scores"]]
        if not scored or scored[0][0]["metric"] == metric:
            mean = self.score
        else:
            entries = [next((one for one in scores if one["metric"] == metric), None) for scores in scored]
            if not all(entries):
                return None
            value = _mean([entry["value"] for entry in entries if entry])
            mean = entries[0] if len(entries) == 1 else {**(entries[0] or {}), "value": value, "ci95": [None, None]}
        return mean if mean and mean["value"] is not None else None

    @property
    def sd(self) -> float | None:
        """The standard deviation of the headline over the runs; None with one run, or without a value."""
        values = [run.result["scores"][0]["value"] for run in self.runs if run.result["scores"]]
        return None if len(values) < 2 or None in values else statistics.stdev(values)


def _fold(run: Run) -> int:
    """The fold of a run; 0 where the benchmark has one split."""
    return int(run.result["task"].get("fold", 0))


def _mean_headline(runs: Sequence[Run]) -> Headline:
    """Each labeled example's score, as the mean over runs on the same examples; unknown where they differ."""
    first, *others = (run.headline for run in runs)
    if not others:
        return first
    per_seed = [headline.values for headline in (first, *others)]
    values: Any = None
    if all(np.array_equal(other.clusters, first.clusters) for other in others):
        if all(isinstance(scores, np.ndarray) for scores in per_seed):
            values = np.mean(np.array(per_seed), 0)
        elif additive := [score for score in per_seed if isinstance(score, AdditiveScore)]:
            values = average(additive) if len(additive) == len(per_seed) else None
    return Headline(values, first.clusters)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return rounded(statistics.fmean(known)) if len(known) == len(values) else None


def pool_seeds(runs: Sequence[Run]) -> Seeds:
    """Pools runs of one encoder, protocol and data: the newest of each fold and seed.

    Args:
        runs: from the oldest to the newest; those whose adapter settings differ from the newest's are only counted.
    """
    newest = runs[-1]
    same = [run for run in runs if run.result["adapter"]["settings"] == newest.result["adapter"]["settings"]]
    by_place = {(_fold(run), run.result["provenance"]["seed"]): run for run in same}
    return Seeds(tuple(by_place[place] for place in sorted(by_place)), newest, len(runs))
