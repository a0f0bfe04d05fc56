"""Sample size and detectable difference of a paired comparison of two accuracies."""

from __future__ import annotations

import math
from statistics import NormalDist

# In standard errors: two-sided at 5 %, with 80 % power.
_TEST, _POWER = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(0.8)


def required_samples(difference: float, baseline: float, correlation: float) -> int:
    """The number of samples, each of its own video, for 80 % power of a paired test at 5 %.

    For samples that are right or wrong, by the normal approximation (Connor 1987, https://doi.org/10.2307/2531961): the
    test's error is that of runs which are equally good and disagree as often.

    Args:
        difference: between the runs, in percent points.
        baseline: accuracy of the worse run, in percent.
        correlation: between the two runs of being right on a sample.
    """
    p, q = baseline / 100, (baseline + difference) / 100
    variance = p * (1 - p) + q * (1 - q) - 2 * correlation * math.sqrt(p * (1 - p) * q * (1 - q))
    # Two runs that differ by q - p disagree at least that often, whatever their correlation.
    variance = max(variance, (q - p) * (1 - (q - p)))
    equal = variance + (q - p) ** 2
    return math.ceil((_TEST * math.sqrt(equal) + _POWER * math.sqrt(variance)) ** 2 / (q - p) ** 2)


def detectable_difference(n: int, baseline: float, correlation: float) -> float:
    """The smallest difference, in percent points, that n samples detect; NaN if not even 100 % accuracy is detected."""
    low, high = 0.0, 100 - baseline
    if required_samples(high, baseline, correlation) > n:
        return math.nan
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if required_samples(middle, baseline, correlation) <= n else (middle, high)
    return high
