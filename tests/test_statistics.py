import importlib
import time
from typing import Any

import numpy as np
import pytest

from evalkit.statistics import Indices, interval, interval_of

scipy: Any = importlib.import_module("scipy.stats")  # comes with scikit-learn, without types


@pytest.mark.parametrize(("n", "half_width"), [(500, 4.4), (5031, 1.4)])
def test_half_widths_at_fifty_percent_are_those_known_for_egoschema(n: int, half_width: float) -> None:
    low, high = interval(np.arange(n) % 2, range(n), seed=0)
    assert 50 * (high - low) == pytest.approx(half_width, abs=0.1)


def coverage(draw: Any, truth: float, trials: int = 300) -> tuple[float, float]:
    """How often the interval holds the truth: clustered, and with every example taken for a cluster of its own."""
    generator = np.random.default_rng(0)
    hits = np.zeros(2)
    for trial in range(trials):
        values, clusters = draw(generator)
        for i, members in enumerate((clusters, range(len(values)))):
            low, high = interval(values, members, seed=trial, resamples=1000)
            hits[i] += low <= truth <= high
    return hits[0] / trials, hits[1] / trials


def test_with_several_questions_per_video_coverage_is_near_95_percent_only_when_clustered() -> None:
    def draw(generator: np.random.Generator) -> tuple[Any, list[int]]:
        sizes = generator.integers(1, 8, size=100)
        difficulty = generator.beta(0.6, 0.4, size=100)  # mean .6, correlation within a video .5
        values = generator.random(sizes.sum()) < np.repeat(difficulty, sizes)
        return values, np.repeat(np.arange(100), sizes).tolist()

    clustered, naive = coverage(draw, truth=0.6)
    assert 0.92 <= clustered <= 0.98
    assert naive < 0.85


@pytest.mark.parametrize(("n", "truth"), [(10, 0.9), (30, 0.97), (100, 0.995)])
def test_coverage_holds_near_the_top_where_most_samples_are_all_right(n: int, truth: float) -> None:
    assert coverage(lambda generator: (generator.random(n) < truth, range(n)), truth)[0] >= 0.95


@pytest.mark.parametrize("n", [1, 2, 20, 500])
def test_all_right_and_all_wrong_give_the_clopper_pearson_interval(n: int) -> None:
    for right in (n, 0):
        exact = scipy.binomtest(right, n).proportion_ci(0.95, method="exact")
        assert interval(np.full(n, right / n), range(n), seed=0) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_one_video_says_next_to_nothing_however_many_questions_it_has() -> None:
    low, high = interval([1.0, 0.0] * 50, ["the only video"] * 100, seed=0)
    assert low < 0.02 and high > 0.98


def test_the_interval_holds_the_mean_and_stays_in_range() -> None:
    generator = np.random.default_rng(3)
    for n in (1, 2, 3, 10, 200):
        values = generator.random(n) ** 8
        low, high = interval(values, generator.integers(0, n, size=n).tolist(), seed=1)
        assert 0 <= low <= values.mean() <= high <= 1


def test_the_seed_decides_the_interval() -> None:
    values = np.random.default_rng(0).random(50)
    assert interval(values, range(50), seed=1) == interval(values, range(50), seed=1)
    assert interval(values, range(50), seed=1) != interval(values, range(50), seed=2)


def test_clusters_may_be_of_any_hashable_kind_and_their_names_do_not_matter() -> None:
    values = np.random.default_rng(0).random(6)
    assert interval(values, list("aabbcc"), 0) == interval(values, [None, None, (1,), (1,), 3, 3], 0)


def test_five_thousand_videos_take_about_a_second_and_flat_memory() -> None:
    import tracemalloc

    values = np.random.default_rng(0).random(5000)
    tracemalloc.start()
    interval(values, range(5000), seed=0, resamples=300)
    few = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    interval(values, range(5000), seed=0, resamples=3000)
    many = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert many < 1.1 * few < 60e6
    start = time.process_time()
    interval(values, range(5000), seed=0)
    assert time.process_time() - start < 5  # 0.4 s on an idle core


def test_a_whole_split_statistic_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=80)
    low, high = interval_of(lambda i: float(np.median(values[i])), range(80), seed=0, resamples=2000)
    theirs = scipy.bootstrap((values,), np.median, n_resamples=2000, method="percentile", rng=1).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.06)


def test_a_whole_split_statistic_draws_whole_videos() -> None:
    clusters = ["a", "b", "a", "b", "b", "c"]
    drawn: list[list[int]] = []

    def note(indices: Indices) -> float:
        drawn.append(indices.tolist())
        return len(drawn)

    interval_of(note, clusters, seed=0, resamples=50)
    assert len(drawn) == 50
    for indices in drawn:
        counts = np.bincount(indices, minlength=6)
        assert counts[0] == counts[2] and counts[1] == counts[3] == counts[4]
        assert counts[0] + counts[1] + counts[5] == 3


def test_several_statistics_come_from_the_same_draws() -> None:
    values = np.random.default_rng(0).random(40)
    both = interval_of(lambda i: [values[i].mean(), np.median(values[i])], range(40), seed=0, resamples=100)
    alone = interval_of(lambda i: np.median(values[i]), range(40), seed=0, resamples=100)
    assert (both[0][1], both[1][1]) == alone


@pytest.mark.parametrize(
    ("values", "clusters"), [([1.0, 2.0], ["a", "a"]), ([1.0, 1.0], ["a", "b"]), ([1.0, np.nan], ["a", "b"])]
)
def test_an_interval_without_width_or_with_nan_is_unknown(values: list[float], clusters: list[str]) -> None:
    assert np.isnan(interval_of(lambda i: np.asarray(values)[i].mean(), clusters, seed=0, resamples=50)).all()
