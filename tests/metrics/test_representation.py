"""Scores of features without labels, against the papers' definitions in plain numpy."""

import json
from typing import Any

import numpy as np
import pytest

from evalkit.metrics import representation
from evalkit.metrics.bootstrap import interval_of
from evalkit.metrics.effective_rank import LiDAR, RankMe
from evalkit.metrics.representation import alignment, packed, uniformity, unpacked
from evalkit.results.rows import Row
from evalkit.results.scores import lower_is_better, scores

GENERATOR = np.random.default_rng(0)


def views(videos: int, count: int, width: int, noise: float = 0.3) -> np.ndarray[Any, Any]:
    """Vectors (n, V, E) of unlike scale in each direction, the views of a video near one another."""
    scale = np.linspace(0.1, 3, width)
    means = GENERATOR.normal(size=(videos, 1, width)) * scale + 0.5
    return means + noise * GENERATOR.normal(size=(videos, count, width))


# --- the papers, written out --------------------------------------------------------------------------------------


def entropy_rank(values: np.ndarray[Any, Any], epsilon: float) -> float:
    total = 0.0
    for value in values:
        p = value / np.abs(values).sum() + epsilon
        total -= p * np.log(p)
    return float(np.exp(total))


def plain_rankme(z: np.ndarray[Any, Any]) -> float:
    return entropy_rank(np.linalg.svd(z)[1], 1e-7)


def plain_lidar(x: np.ndarray[Any, Any]) -> float:
    n, q, width = x.shape
    grand = x.reshape(-1, width).mean(0)
    between, within = np.zeros((width, width)), np.zeros((width, width))
    for video in x:
        mean = video.mean(0)
        between += np.outer(mean - grand, mean - grand) / n
        for view in video:
            within += np.outer(view - mean, view - mean) / (n * q)
    within += 1e-4 * np.eye(width)
    values, basis = np.linalg.eigh(within)
    root = basis @ np.diag(values**-0.5) @ basis.T
    return entropy_rank(np.linalg.eigvalsh(root @ between @ root), 1e-7)


def plain_alignment(x: np.ndarray[Any, Any]) -> float:
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    pairs = [np.linalg.norm(video[i] - video[j]) ** 2 for video in unit for i in range(len(video)) for j in range(i)]
    return float(np.mean(pairs))


def plain_uniformity(z: np.ndarray[Any, Any]) -> float:
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    pairs = [np.exp(-2 * np.linalg.norm(unit[i] - unit[j]) ** 2) for i in range(len(z)) for j in range(i)]
    return float(np.log(np.mean(pairs)))


@pytest.mark.parametrize(("videos", "width"), [(40, 12), (10, 24), (5, 24)])
def test_each_is_what_its_paper_defines(videos: int, width: int) -> None:
    x = views(videos, 3, width)
    assert RankMe(x[:, 0]).value == pytest.approx(plain_rankme(x[:, 0]), abs=1e-6)
    assert LiDAR(x).value == pytest.approx(plain_lidar(x), abs=1e-6)
    assert alignment(x) == pytest.approx(plain_alignment(x), abs=1e-6)
    assert uniformity(x[:, 0])[0] == pytest.approx(plain_uniformity(x[:, 0]), abs=1e-6)


@pytest.mark.parametrize("width", [5, 24])
def test_what_counts_twice_counts_as_two(width: int) -> None:
    x = views(9, 2, width).astype(np.float32).astype(np.float64)
    times = np.array([2, 1, 0, 1, 3, 1, 1, 0, 1])
    drawn = np.repeat(x, times, axis=0)
    found = representation([packed(one.astype(np.float32)) for one in x], [0] * 9)
    weights = times.astype(np.float32)[:, None]
    of_rank: Any = found["rankme"]
    assert of_rank.of(weights)[0] == pytest.approx(plain_rankme(drawn.mean(1)), abs=1e-4)
    of_classes: Any = found["lidar"]
    assert of_classes.of(weights)[0] == pytest.approx(plain_lidar(drawn), abs=1e-4)
    pairs = [(i, j) for i in range(9) for j in range(9) if i != j]
    unit = x.mean(1) / np.linalg.norm(x.mean(1), axis=1, keepdims=True)
    near = [np.exp(-2 * ((unit[i] - unit[j]) ** 2).sum()) for i, j in pairs]
    expected = np.log(np.average(near, weights=[times[i] * times[j] for i, j in pairs]))
    of_pairs: Any = found["uniformity"]
    assert of_pairs.of(weights)[0] == pytest.approx(expected, abs=1e-6)
    of_views: Any = found["alignment"]
    assert of_views.subset(np.flatnonzero(times == 1)) == pytest.approx(plain_alignment(x[times == 1]), abs=1e-6)


def test_extremes_are_as_they_should_be() -> None:
    alike = np.ones((20, 2, 6))
    assert RankMe(alike[:, 0]).value == pytest.approx(1, abs=1e-4)
    assert uniformity(alike[:, 0])[0] == pytest.approx(0) and alignment(alike) == 0
    every = np.repeat(np.eye(6)[:, None], 2, 1)
    assert RankMe(every[:, 0]).value == pytest.approx(6, abs=1e-4)
    assert LiDAR(every).value == pytest.approx(5, abs=1e-4)  # around their mean they span one dimension less
    assert uniformity(every[:, 0])[0] == pytest.approx(-4)
    assert np.isnan(RankMe(np.zeros((3, 2))).value)


def test_failed_videos_have_no_part_and_intervals_hold_the_score() -> None:
    x = views(30, 2, 8).astype(np.float32)
    rows = [Row(str(i), f"{i}.mp4", "", "", packed(one)) for i, one in enumerate(x)]
    failed = [*rows, Row("gone", "gone.mp4", "", "", None, "no such file")]
    whole, without = scores(representation, failed, 0), scores(representation, rows, 0)
    assert [entry["value"] for entry in whole] == [entry["value"] for entry in without]
    assert whole[0]["n"] == 31 and whole[0]["metric"] == "rankme"
    for entry in whole:
        low, high = entry["ci95"]
        assert low < entry["value"] < high and entry["bounds"] == [entry["value"]] * 2
    assert [lower_is_better(entry["metric"]) for entry in whole] == [False, False, True, True]


def test_a_video_that_several_examples_ask_about_counts_once() -> None:
    x = views(10, 2, 4).astype(np.float32)
    once = scores(representation, [Row(str(i), f"{i}.mp4", "", "", packed(one, f"{i}")) for i, one in enumerate(x)], 0)
    often = [Row(f"{i}-{k}", f"{i}.mp4", "", "", packed(x[i], f"{i}")) for i in range(10) for k in range(1 + i % 3)]
    assert [entry["value"] for entry in scores(representation, often, 0)] == [entry["value"] for entry in once]
    alike = [Row(str(i), f"{i}.mp4", "", "", packed(x[0], f"{i}")) for i in range(10)]  # a collapsed encoder's
    assert scores(representation, alike, 0)[0]["value"] == pytest.approx(1, abs=1e-3)


def test_one_view_has_neither_lidar_nor_alignment() -> None:
    rows = [Row(str(i), f"{i}.mp4", "", "", packed(one)) for i, one in enumerate(views(12, 1, 4).astype(np.float32))]
    values = {entry["metric"]: entry["value"] for entry in scores(representation, rows, 0)}
    assert values["lidar"] is None and values["alignment"] is None
    assert values["rankme"] and values["uniformity"]
    (low, high) = interval_of(representation([row.prediction for row in rows], [""] * 12)["rankme"], [*range(12)], 0)  # type: ignore[arg-type]
    assert low < values["rankme"] < high


def test_vectors_come_back_from_json_as_they_were() -> None:
    vectors = views(1, 3, 5)[0].astype(np.float32)
    back = unpacked(json.loads(json.dumps(packed(vectors))))
    assert back is not None and np.array_equal(back, vectors.astype(np.float64))
    assert unpacked(None) is None and unpacked(3) is None and unpacked("") is None
