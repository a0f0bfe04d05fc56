import importlib
from typing import Any

import numpy as np
import pytest

from evalkit import metrics
from evalkit.metrics import bootstrap
from evalkit.metrics.bootstrap import (
    PERCENT,
    AdditiveScore,
    ReweightedScore,
    Table,
    average,
    difference,
    interval,
    interval_of,
    mean,
    percentage,
)
from evalkit.metrics.significance import paired_bootstrap, students_t
from evalkit.results.rows import Row
from evalkit.results.scores import scores

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


def test_memory_is_flat_whatever_is_drawn() -> None:
    import tracemalloc

    values = np.random.default_rng(0).random(5000)
    tracemalloc.start()
    interval(values, range(5000), seed=0, resamples=7_000)
    few = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    interval(values, range(5000), seed=0, resamples=14_000)
    many = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert many < 1.1 * few < 60e6


def test_draws_that_are_kept_are_those_that_are_made_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    for values in (generator.random(300), generator.integers(0, 60, 300) / 60, generator.integers(0, 2, 300)):
        with monkeypatch.context() as patch:
            kept = [interval(values, range(300), seed) for seed in (0, 1, 0)]
            patch.setattr(bootstrap, "MAX_CACHED_BYTES", 0)
            patch.setattr(bootstrap, "DRAWS_PER_CHUNK", 70_000)
            assert kept == [pytest.approx(interval(values, range(300), seed), abs=1e-12) for seed in (0, 1, 0)]


def median_of(values: Any) -> ReweightedScore:
    """Of values that are in rising order."""

    def of(times: Any) -> Table:
        return np.array([np.median(np.repeat(values, one)) for one in times.T.astype(int)])

    return ReweightedScore(len(values), of)


def test_a_whole_split_statistic_agrees_with_scipy_moved_onto_its_value() -> None:
    values = np.random.default_rng(0).exponential(size=81)
    found = interval_of(median_of(values), range(81), seed=0, resamples=4000)
    theirs = scipy.bootstrap((values,), np.median, n_resamples=4000, method="percentile", rng=1)
    move = np.median(values) - np.median(theirs.bootstrap_distribution)
    assert found == pytest.approx([edge + move for edge in theirs.confidence_interval], abs=0.06)


def test_a_whole_split_statistic_draws_whole_videos() -> None:
    drawn: list[Any] = []

    def note(times: Any) -> Table:
        drawn.extend(times.T)
        return np.zeros(times.shape[1])

    interval_of(ReweightedScore(6, note, value=0), ["a", "b", "a", "b", "b", "c"], seed=0, resamples=50)
    assert len(drawn) == 50
    for times in drawn:
        assert times[0] == times[2] and times[1] == times[3] == times[4]
        assert times[0] + times[1] + times[5] == 3


def test_the_interval_holds_the_score_where_no_draw_comes_near_it() -> None:
    """As of an average precision, which a video that is drawn twice raises."""
    values = np.arange(40)

    def distinct(times: Any) -> Table:
        return np.array([float(np.count_nonzero(one)) for one in times.T])

    low, high = interval_of(ReweightedScore(40, distinct), values.tolist(), seed=0)
    assert 30 < low < 40 == high


@pytest.mark.parametrize(
    ("values", "clusters"), [([1.0, 2.0], ["a", "a"]), ([1.0, 1.0], ["a", "b"]), ([1.0, np.nan], ["a", "b"])]
)
def test_an_interval_without_width_or_with_nan_is_unknown(values: list[float], clusters: list[str]) -> None:
    assert np.isnan(interval_of(median_of(values), clusters, seed=0, resamples=50)).all()
    assert np.isnan(interval_of(mean(values), clusters, seed=0)).all()


def test_draws_that_differ_by_rounding_alone_are_no_interval() -> None:
    of = np.random.default_rng(0).random(7)

    def same(times: Any) -> Table:
        weights = times.astype(np.float64) * of[:, None]
        return np.asarray((0.3 * weights).sum(0) / weights.sum(0))

    score = ReweightedScore(7, same)
    assert 0 < np.ptp(score.resample(np.arange(7), 7, 0, 100)) < 1e-15
    assert np.isnan(interval_of(score, range(7), seed=0)).all()
    worse, better = mean(of), mean(of + 0.1)
    low, high, p = paired_bootstrap(worse, better, range(7), seed=0)
    assert np.isnan([low, high, p]).all()
    alike = AdditiveScore(worse.parts, lambda sums: worse.of(sums) + 1e-12 * sums[..., 0])
    assert paired_bootstrap(worse, alike, range(7), seed=0)[2] == 1


def test_a_difference_is_drawn_together() -> None:
    generator = np.random.default_rng(0)
    a = generator.random(60)
    better = difference(mean(a), mean(a + 0.1))
    assert better == pytest.approx(10)
    assert np.ptp(better.resample(np.arange(60), 60, 0, 100)) < 1e-9
    both = difference(median_of(np.sort(a)), median_of(np.sort(a) + 1))
    assert both.resample(np.arange(60), 60, 0, 100) == pytest.approx(np.ones(100))


def test_a_mean_made_of_sums_has_the_interval_of_a_mean() -> None:
    generator = np.random.default_rng(0)
    clusters = generator.integers(1000, size=2000).tolist()
    values = generator.beta(2, 3, size=2000)
    low, high = interval_of(mean(values), clusters, seed=0)
    assert (low, high) == pytest.approx([100 * edge for edge in interval(values, clusters, seed=1)], abs=0.1)


def test_a_ratio_of_sums_has_the_interval_of_the_statistic_itself() -> None:
    """As BLEU's, whose sums of matches and lengths are of the whole corpus."""
    generator = np.random.default_rng(0)
    parts = np.stack([generator.poisson(3, size=120), generator.integers(4, 20, size=120)], 1).astype(float)
    clusters = generator.integers(50, size=120).tolist()

    def of(sums: Any) -> Any:
        return 100 * sums[..., 0] / sums[..., 1]

    summed = AdditiveScore(parts, of)
    assert summed == pytest.approx(100 * parts[:, 0].sum() / parts[:, 1].sum())
    again = interval_of(ReweightedScore(120, lambda times: of(times.T @ parts)), clusters, seed=1, resamples=4000)
    assert interval_of(summed, clusters, seed=0) == pytest.approx(again, abs=0.5)


def test_sums_of_one_video_have_no_known_interval() -> None:
    assert np.isnan(interval_of(mean([2.0, 3.0]), ["one", "one"], seed=0)).all()


def test_a_share_of_all_or_none_has_the_interval_of_clopper_and_pearson() -> None:
    for hits in (np.ones(20), np.zeros(20)):
        exact = scipy.binomtest(int(hits.sum()), 20).proportion_ci(method="exact")
        expected = [100 * exact.low, 100 * exact.high]
        assert interval_of(percentage(hits, np.ones(20)), range(20), seed=0) == pytest.approx(expected)
        assert interval_of(mean(hits, PERCENT).subset(np.arange(20)), range(20), seed=0) == pytest.approx(expected)
        assert interval_of(average([percentage(hits, np.ones(20))] * 2), range(20), seed=0) == pytest.approx(expected)


SENTENCES = ["a man runs", "a dog sits down", "two cars are racing", "she paints a wall"] * 3


@pytest.mark.parametrize(
    ("score", "predictions", "targets"),
    [
        (metrics.retrieval, [{"t2v": 1, "v2t": 1}] * 12, [(f"v{i // 2}", i % 2) for i in range(12)]),
        (metrics.retrieval, [None] * 12, [f"v{i}" for i in range(12)]),
        (metrics.mean_retrieval, [None] * 12, [(f"{'ab'[i // 6]}/v{i}", 0) for i in range(12)]),
        (metrics.captions, SENTENCES, [[text] for text in SENTENCES]),
        (metrics.captions, ["nothing"] * 12, [[text] for text in SENTENCES]),
        (metrics.paragraph, SENTENCES, [[text] for text in SENTENCES]),
        (metrics.macro_accuracy, [0, 1] * 6, [0, 1] * 6),
        (metrics.top1_map, [[1.0, 0.0], [0.0, 1.0]] * 6, [[0], [1]] * 6),
        (metrics.multilabel_map, [[1.0, 0.0], [0.0, 1.0]] * 6, [[0], [1]] * 6),
        (metrics.class_mean_recall5, [[0, 1], [1, 0]] * 6, [0, 1] * 6),
    ],
)
def test_scores_that_no_draw_changes_have_intervals(score: Any, predictions: list[Any], targets: list[Any]) -> None:
    rows = []
    for i, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        video = target[0] if isinstance(target, tuple) else f"v{i}"
        rows.append(Row(str(i), video, "", target, prediction, "lost" if prediction is None else None))
    for entry in scores(score, rows, 0):
        low, high = entry["ci95"]
        assert low is not None and low <= entry["value"] <= high, entry
        assert low < high or entry["metric"].endswith("median_rank"), entry


def test_a_median_of_equal_values_is_moved_by_a_majority_alone() -> None:
    """Of 100 queries that rank first, fewer than half of the world can be missing; of three, more."""
    ranks = [{"t2v": 1, "v2t": 1}]
    many, few = (metrics.retrieval(ranks * n, [f"v{i}" for i in range(n)])["t2v_median_rank"] for n in (100, 3))
    assert interval_of(many, range(100), seed=0) == (1, 1)  # type: ignore[arg-type]
    assert interval_of(few, range(3), seed=0) == (1, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 10, 200])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.999])
def test_students_t_is_scipys(degrees: int, share: float) -> None:
    assert students_t(degrees, share) == pytest.approx(scipy.t.ppf((1 + share) / 2, degrees), rel=1e-9)
