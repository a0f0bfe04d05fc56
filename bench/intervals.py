"""Whether intervals and tests have the coverage they promise, and what they cost, as Markdown tables.

    PYTHONPATH=. OMP_NUM_THREADS=1 python bench/intervals.py

Data sets are drawn from a known distribution: hard and easy videos, with several samples each. An interval should
contain the truth in 95 % of the data sets, and a test of two equally good runs should find a difference in 5 %. The
truth is the mean score of splits of this size (that of an average precision depends on the size). Takes about two
minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from evalkit.metrics.average_precision import multilabel_map
from evalkit.metrics.bootstrap import AdditiveScore, ReweightedScore, interval, interval_of, mean
from evalkit.metrics.classification import macro_accuracy
from evalkit.metrics.retrieval import retrieval
from evalkit.metrics.significance import exchange_test, paired_bootstrap

Drawn = tuple[Any, list[int]]  # what was scored, and the video of each sample
VIDEOS = 100


def videos(generator: np.random.Generator) -> tuple[Any, list[int]]:
    """How easy each sample's video is, 0..1 and 0.6 on average, and its number; 1 to 7 samples of each of 100."""
    sizes = generator.integers(1, 8, size=VIDEOS)
    easy = generator.beta(0.6, 0.4, size=VIDEOS)
    return np.repeat(easy, sizes), np.repeat(np.arange(VIDEOS), sizes).tolist()


def right(generator: np.random.Generator) -> Drawn:
    """Right or wrong; samples of one video are correlated by 0.5."""
    easy, clusters = videos(generator)
    return (generator.random(len(easy)) < easy).astype(float), clusters


def summed(generator: np.random.Generator) -> Drawn:
    """A mean of what may be above 1, as CIDEr."""
    easy, clusters = videos(generator)
    return mean(generator.gamma(1.0, easy)), clusters


def ranked(generator: np.random.Generator) -> Drawn:
    """A median rank."""
    easy, clusters = videos(generator)
    ranks = 1 + generator.exponential(30 * (1.1 - easy))
    found = retrieval([{"t2v": rank, "v2t": 1} for rank in ranks.tolist()], list(range(len(ranks))))
    return found["t2v_median_rank"], clusters


def labeled(generator: np.random.Generator) -> Drawn:
    """A mean average precision of three classes, which all samples of a video share."""
    easy, clusters = videos(generator)
    truth = (generator.random((VIDEOS, 3)) < 0.3)[clusters]
    scores = truth * easy[:, None] + generator.normal(0, 0.5, truth.shape)
    return multilabel_map(list(scores), [np.flatnonzero(one).tolist() for one in truth])["mAP"], clusters


def classes(generator: np.random.Generator) -> Drawn:
    """A mean over five classes, one of each video."""
    easy, clusters = videos(generator)
    target = generator.choice(5, VIDEOS, p=(0.4, 0.3, 0.15, 0.1, 0.05))[clusters]
    target[:5] = range(5)
    hit = generator.random(len(easy)) < easy
    given = np.where(hit, target, (target + 1) % 5)
    return macro_accuracy([[k, 9, 9, 9, 9] for k in given.tolist()], target.tolist())["macro_accuracy"], clusters


def coverage(draw: Callable[[np.random.Generator], Drawn], sets: int, resamples: int) -> float:
    """The share of data sets whose interval holds what they score on average."""
    generator = np.random.default_rng(0)
    spans, values = [], []
    for seed in range(sets):
        scored, clusters = draw(generator)
        if isinstance(scored, AdditiveScore | ReweightedScore):
            spans.append(interval_of(scored, clusters, seed, resamples))
            values.append(float(scored))
        else:
            spans.append(interval(scored, clusters, seed, resamples))
            values.append(float(scored.mean()))
    truth = np.mean(values)
    return float(np.mean([low <= truth <= high for low, high in spans]))


def equal(generator: np.random.Generator) -> tuple[AdditiveScore, AdditiveScore, list[int]]:
    """Two runs that are equally good, each at its own videos."""
    _, clusters = videos(generator)
    easy = generator.beta(0.6, 0.4, size=(2, VIDEOS))[:, clusters]
    a, b = (generator.random(easy.shape) < easy).astype(float)
    return mean(a), mean(b), clusters


def equal_rankings(generator: np.random.Generator) -> tuple[ReweightedScore, ReweightedScore, list[int]]:
    """Two equally good mean average precisions, of the same samples."""
    easy, clusters = videos(generator)
    truth = (generator.random((VIDEOS, 3)) < 0.3)[clusters]
    targets = [np.flatnonzero(one).tolist() for one in truth]
    a, b = (
        multilabel_map(list(truth * easy[:, None] + generator.normal(0, 0.5, truth.shape)), targets)["mAP"]
        for _ in range(2)
    )
    assert isinstance(a, ReweightedScore) and isinstance(b, ReweightedScore)
    return a, b, clusters


def false_positives(sets: int, resamples: int) -> float:
    """The share of pairs of equally good runs between which the exchange test finds a difference at 5 %."""
    generator = np.random.default_rng(0)
    return float(np.mean([exchange_test(*equal(generator), seed, resamples) <= 0.05 for seed in range(sets)]))


def false_positives_of_rankings(sets: int, resamples: int) -> float:
    """The same of average precisions, by the bootstrap."""
    generator = np.random.default_rng(0)
    return float(
        np.mean([paired_bootstrap(*equal_rankings(generator), seed, resamples)[2] <= 0.05 for seed in range(sets)])
    )


def error(share: float, sets: int) -> str:
    """Its simulation error, 95 %, in percent points."""
    return f"+-{196 * (share * (1 - share) / sets) ** 0.5:.1f}"


def main() -> None:
    """Runs and prints."""
    print("| 95 % interval, 100 videos with 1 to 7 samples | data sets | holds the truth, % | simulation error |")
    print("|---|---|---|---|")
    for name, draw, sets in (
        ("accuracy", right, 10_000),
        ("a mean above 1", summed, 10_000),
        ("median rank", ranked, 1_000),
        ("mAP", labeled, 1_000),
        ("macro accuracy", classes, 1_000),
    ):
        found = coverage(draw, sets, 1_000)
        print(f"| {name} | {sets:,} | {100 * found:.1f} | {error(0.95, sets)} |", flush=True)
    print("\n| test at 5 % of two equally good runs | data sets | finds a difference, % | simulation error |")
    print("|---|---|---|---|")
    for name, test, sets in (
        ("accuracy: exchange", false_positives, 10_000),
        ("mAP: bootstrap", false_positives_of_rankings, 2_000),
    ):
        found = test(sets, 999)
        print(f"| {name} | {sets:,} | {100 * found:.1f} | {error(0.05, sets)} |", flush=True)
    print("\n| EgoSchema at 50 % | half width, points |\n|---|---|")
    for n in (500, 5031):
        low, high = interval(np.arange(n) % 2, range(n), seed=0)
        print(f"| {n:,} videos | {50 * (high - low):.2f} |")
    print("\n| 10,000 resamples | s |\n|---|---|")
    generator = np.random.default_rng(0)
    n = 1863
    truth = generator.random((n, 157)) < 0.043
    shown: dict[str, Any] = {
        "accuracy of 5,000 samples": lambda: interval(generator.random(5000) < 0.5, range(5000), 0),
        "CIDEr of 5,000 captions": lambda: interval_of(mean(generator.random(5000)), range(5000), 0),
        "median rank of 5,000 texts": lambda: interval_of(
            retrieval([{"t2v": int(r), "v2t": 1} for r in generator.integers(1, 99, 5000)], list(range(5000)))[
                "t2v_median_rank"
            ],  # type: ignore[arg-type]
            range(5000),
            0,
        ),
        "mAP of 1,863 videos and 157 classes": lambda: interval_of(
            multilabel_map(list(generator.random(truth.shape)), [np.flatnonzero(one).tolist() for one in truth])["mAP"],  # type: ignore[arg-type]
            range(n),
            0,
        ),
    }
    for name, work in shown.items():
        started = time.process_time()
        work()
        print(f"| {name} | {time.process_time() - started:.2f} |", flush=True)


if __name__ == "__main__":
    main()
