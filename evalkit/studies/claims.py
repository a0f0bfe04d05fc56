"""Whether the numbers of a study's cells bear out what is claimed of them: holds, does not hold, cannot tell.

What is claimed holds where the whole interval lies in the range that the claim states, and does not hold where none of
it does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from evalkit.errors import UserError
from evalkit.studies.estimates import Estimate, Outcome, Pairs, value
from evalkit.studies.files import Claim, Expectation

Verdict = Literal["holds", "does not hold", "cannot tell"]


class Judged(NamedTuple):
    """A claim and what the numbers say of it.

    Attributes:
        estimates: of the difference, the ratio or the value; of an order, the difference of each pair.
        reason: why there is no estimate.
    """

    claim: Claim
    verdict: Verdict
    estimates: tuple[Estimate, ...] = ()
    reason: str = ""


def judge(claim: Claim, outcomes: Mapping[str, Sequence[Outcome]], pairs: Pairs) -> Judged:
    """A claim, held against what came of the cells."""
    try:
        values = [value(outcomes[name], claim.metric) for name in claim.of]
        match claim.expect.of:
            case "value":
                estimates = [values[0].estimate]
            case "difference":
                estimates = [pairs.difference(*values)]
            case "ratio":
                estimates = [pairs.ratio(*values)]
            case "lowest" | "highest":
                estimates = [pairs.difference(values[0], other) for other in values[1:]]
            case _:
                estimates = [pairs.difference(after, before) for before, after in itertools.pairwise(values)]
    except UserError as error:
        return Judged(claim, "cannot tell", reason=str(error))
    return Judged(claim, verdict(claim.expect, estimates), tuple(estimates))


def verdict(expect: Expectation, estimates: Sequence[Estimate]) -> Verdict:
    """What the estimates say: of several, all must lie in the range for it to hold, and one outside refutes it."""
    if expect.of in ("increasing", "highest"):
        verdicts = [_above(estimate) for estimate in estimates]
    elif expect.of in ("decreasing", "lowest"):
        verdicts = [_above(Estimate(-value, -high, -low)) for value, low, high in estimates]
    else:
        verdicts = [_within(estimate, expect.low, expect.high) for estimate in estimates]
    if "does not hold" in verdicts:
        return "does not hold"
    return "cannot tell" if "cannot tell" in verdicts else "holds"


def _above(estimate: Estimate) -> Verdict:
    """Whether a difference is above 0; of two costs that are equal it is not."""
    value, low, high = estimate
    if math.isnan(value + low + high):
        return "cannot tell"
    return "holds" if low > 0 else "does not hold" if high < 0 or low == high == 0 else "cannot tell"


def _within(estimate: Estimate, low: float, high: float) -> Verdict:
    if math.isnan(estimate.value + estimate.low + estimate.high):
        return "cannot tell"
    if low <= estimate.low and estimate.high <= high:
        return "holds"
    return "does not hold" if estimate.high < low or estimate.low > high else "cannot tell"


def front(points: Sequence[tuple[float, float]], lower: bool = False) -> list[bool]:
    """Which points (cost, worth) are on the Pareto front: none costs less or as much and is worth more, or as much.

    Args:
        points: NaN where one is unknown, which is on no front.
        lower: less is more, of the worth.
    """
    known = [(x, -y if lower else y) for x, y in points]
    return [
        not math.isnan(x + y)
        and not any(a <= x and b >= y and (a, b) != (x, y) for a, b in known if not math.isnan(a + b))
        for x, y in known
    ]
