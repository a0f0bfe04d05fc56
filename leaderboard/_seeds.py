"""Runs that differ in nothing but their seed, as one: the mean of their scores, and how far those lie apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evalkit.metrics.bootstrap import AdditiveScore, average, interval, interval_of, numbered
from evalkit.results.scores import rounded

from ._runs import Headline, Run


@dataclass(frozen=True)
class Seeds:
    """Runs of one encoder under one protocol on the same data, one of each seed.

    Attributes:
        runs: by their seed; at least one.
        newest: of them.
        times: how many runs there are of the same, older ones of a seed too.
    """

    runs: tuple[Run, ...]
    newest: Run
    times: int

    @property
    def numbers(self) -> list[int]:
        """The seeds."""
        return [run.result["provenance"]["seed"] for run in self.runs]

    @property
    def told(self) -> str:
        """How many runs there are, and of which seeds where that is several."""
        if len(self.runs) > 1:
            return f"{self.times}, of seeds {', '.join(map(str, self.numbers))}"
        return "1" if self.times == 1 else f"newest of {self.times}"

    @property
    def worst(self) -> Run:
        """The run in which most examples failed."""
        return max(self.runs, key=lambda run: int(run.result["data"]["n_failed"]))

    @cached_property
    def headline(self) -> Headline:
        """What each labeled example scores, as the mean over seeds; the runs have scores."""
        first, *others = (run.headline for run in self.runs)
        if not others:
            return first
        found = [one.values for one in (first, *others)]
        values: Any = None
        if all(np.array_equal(one.clusters, first.clusters) for one in others):
            if all(isinstance(one, np.ndarray) for one in found):
                values = np.mean(np.array(found), 0)
            elif sums := [one for one in found if isinstance(one, AdditiveScore)]:
                values = average(sums) if len(sums) == len(found) else None
        return Headline(values, first.clusters)

    @cached_property
    def score(self) -> Mapping[str, Any] | None:
        """The headline as a result has it, of several seeds their mean; None where no example has a public answer.

        The interval is that of the mean: whole videos are drawn, and what an example scores is its mean over seeds. It
        is unknown where the headline is neither of single examples nor made of sums.
        """
        each = [run.result["scores"][0] for run in self.runs if run.result["scores"]]
        if len(each) < 2:
            return each[0] if each else None
        value, right = (_mean([one["bounds"][i] for one in each]) for i in (0, 1))
        values, clusters = self.headline.values, numbered(self.headline.clusters.tolist())
        ends: tuple[float, float] = (math.nan, math.nan)
        if isinstance(values, AdditiveScore):
            ends = interval_of(values, clusters, seed=0)
        elif values is not None:
            low, high = interval(values, clusters, seed=0)
            ends = 100 * low, 100 * high
        return {**each[0], "value": value, "ci95": list(map(rounded, ends)), "bounds": [value, right]}

    @property
    def sd(self) -> float | None:
        """The standard deviation of the headline over seeds; None where there is one seed, or no value."""
        values = [run.result["scores"][0]["value"] for run in self.runs if run.result["scores"]]
        return None if len(values) < 2 or None in values else statistics.stdev(values)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return rounded(statistics.fmean(known)) if len(known) == len(values) else None


def pooled(runs: Sequence[Run]) -> Seeds:
    """What runs of one encoder, protocol and data are together: the newest of each seed.

    Args:
        runs: from the oldest to the newest; those whose adapter has other settings than the newest's, such as the
            folder that it came from, are counted alone.
    """
    newest = runs[-1]
    same = [run for run in runs if run.result["adapter"]["settings"] == newest.result["adapter"]["settings"]]
    of_seed = {run.result["provenance"]["seed"]: run for run in same}
    return Seeds(tuple(of_seed[seed] for seed in sorted(of_seed)), newest, len(runs))
