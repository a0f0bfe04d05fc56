"""Runs that differ only in their seed, as one: the mean and standard deviation of their scores."""

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
    """Runs of one encoder under one protocol on the same data, one of each seed.

    Attributes:
        runs: by their seed; at least one.
        newest: the run that finished last.
        total: number of runs, older ones of the same seed included.
    """

    runs: tuple[Run, ...]
    newest: Run
    total: int

    @property
    def numbers(self) -> list[int]:
        """The seeds."""
        return [run.result["provenance"]["seed"] for run in self.runs]

    @property
    def summary(self) -> str:
        """The number of runs, and their seeds if there are several."""
        if len(self.runs) > 1:
            return f"{self.total}, of seeds {', '.join(map(str, self.numbers))}"
        return "1" if self.total == 1 else f"newest of {self.total}"

    @property
    def worst(self) -> Run:
        """The run with most failed examples."""
        return max(self.runs, key=lambda run: int(run.result["data"]["n_failed"]))

    @cached_property
    def headline(self) -> Headline:
        """Each labeled example's score, as the mean over seeds; the runs must have scores."""
        first, *others = (run.headline for run in self.runs)
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

    @cached_property
    def score(self) -> Mapping[str, Any] | None:
        """The headline as result.json has it, as the mean over seeds; None if no example has a public answer.

        The interval is of the mean: videos are resampled, and an example's score is its mean over seeds. It is unknown
        if the headline is neither per example nor an `AdditiveScore`.
        """
        headlines = [run.result["scores"][0] for run in self.runs if run.result["scores"]]
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
        return {**headlines[0], "value": value, "ci95": list(map(rounded, ends)), "bounds": [value, upper]}

    @property
    def sd(self) -> float | None:
        """The standard deviation of the headline over seeds; None with one seed, or without a value."""
        values = [run.result["scores"][0]["value"] for run in self.runs if run.result["scores"]]
        return None if len(values) < 2 or None in values else statistics.stdev(values)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return rounded(statistics.fmean(known)) if len(known) == len(values) else None


def pool_seeds(runs: Sequence[Run]) -> Seeds:
    """Pools runs of one encoder, protocol and data: the newest of each seed.

    Args:
        runs: from the oldest to the newest; those whose adapter settings differ from the newest's are only counted.
    """
    newest = runs[-1]
    same = [run for run in runs if run.result["adapter"]["settings"] == newest.result["adapter"]["settings"]]
    by_seed = {run.result["provenance"]["seed"]: run for run in same}
    return Seeds(tuple(by_seed[seed] for seed in sorted(by_seed)), newest, len(runs))
