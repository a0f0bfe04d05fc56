"""VideoGLUE's aggregates: a stratified mean over groups of tasks, and one score over adaptations and their cost.

https://arxiv.org/abs/2307.03166, equation 3; VideoPrism's table 17 (https://arxiv.org/abs/2402.13217) prints both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from evalkit.errors import UserError

# Tasks of one capability are one group, so that none weighs more for having more benchmarks.
GROUPS = {
    "appearance": ("kinetics400", "moments_in_time"),
    "motion": ("ssv2", "diving48"),
    "several labels": ("charades",),
    "localization in time": ("activitynet_tal",),
    "localization in space and time": ("ava", "ava_kinetics"),
}

# In the order of VideoPrism's table 17.
ADAPTATIONS = ("frozen", "mlap", "adapter", "finetune")


def stratified_mean(scores: Mapping[str, float]) -> float:
    """The mean over groups of the mean within each; groups without a score are left out.

    Args:
        scores: in 0..100 by the task's name.

    Raises:
        UserError: a task is in no group, or there is none.
    """
    known = {task for tasks in GROUPS.values() for task in tasks}
    if not scores or scores.keys() - known:
        named = f"{min(scores.keys() - known)!r} is not one of them" if scores else "there are no scores"
        raise UserError(f"VideoGLUE is taken over {', '.join(sorted(known))}; {named}")
    groups = [[scores[task] for task in tasks if task in scores] for tasks in GROUPS.values()]
    return fmean(fmean(group) for group in groups if group)


def mean_and_cost(records: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The stratified mean of one adaptation's runs, and what they train: GFLOPs of one clip.

    The layers that are trained differ from task to task; as the papers print those of the classification head, the
    `adapter.trainable_flops` of the first run count, which is Kinetics-400's in VideoGLUE's order.

    Args:
        records: of the runs (docs/results.md), in the order of the tasks; a miniature counts as its task.

    Returns:
        The mean in 0..100, and the cost, NaN where the first record has none. None where a run has no score.

    Raises:
        UserError: a task is in no group.
    """
    scores: dict[str, float] = {}
    for record in records:
        if not record["scores"] or record["scores"][0]["value"] is None:
            return None
        scores[record["task"]["name"].removesuffix("@mini")] = record["scores"][0]["value"]
    if not records:
        return None
    flops = records[0]["adapter"].get("trainable_flops") or math.nan
    return stratified_mean(scores), flops / 1e9


def score(means: Mapping[str, float], costs: Mapping[str, float]) -> float:
    """The VideoGLUE score: the means of all adaptations, each weighted by 1 / log10 of its training cost.

    VideoPrism's table 17 comes out with costs in trainable GFLOPs; VideoGLUE's third version also averages over
    trainable parameters, in a unit that it does not print.

    Args:
        means: in 0..100 by the name of the adaptation: frozen, mlap, adapter, finetune.
        costs: by the same names, each above 1, for example in GFLOPs of one clip's trained layers.

    Raises:
        UserError: a cost is missing, or not above 1, where its logarithm makes no weight.
    """
    for name in means:
        cost = costs.get(name, math.nan)
        if not cost > 1:
            raise UserError(f"VideoGLUE score: adaptation {name!r} costs {cost:g}; wanted a number above 1")
    weights = {name: 1 / math.log10(costs[name]) for name in means}
    return sum(weights[name] * mean for name, mean in means.items()) / sum(weights.values())
