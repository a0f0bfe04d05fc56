import csv
import json
import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.localization.key_frames import read_detections, read_key_frames, read_label_map
from evalkit.localization.segments import read_segment_predictions, read_segments
from evalkit.metrics.bootstrap import AdditiveScore, ReweightedScore, interval_of
from evalkit.metrics.localization import (
    ACTIVITYNET,
    THUMOS14,
    activitynet_map,
    ava_map,
    class_average_precisions,
    error_kinds,
    thumos_map,
)
from evalkit.results.rows import Row
from evalkit.results.scores import scores
from tests.given import ANNOTATIONS, DATA, real


def average_precision(hits: list[float], positives: int) -> float:
    """By the definition of VOC 2010."""
    right = np.cumsum(hits)
    precision = np.maximum.accumulate((right / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float((precision * hits).sum() / positives)


def overlap(a: Any, b: Any) -> float:
    """Of two segments."""
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return float(shared / (b[1] - b[0] + a[1] - a[0] - shared))


def plain_map(predictions: list[Any], targets: list[Any], thresholds: Any) -> dict[int, list[float]]:
    """Average precisions by label, as eval_detection.py takes one segment after the other."""
    found: dict[int, list[float]] = defaultdict(list)
    for label in {label for target in targets for *_, label in target}:
        truth = {v: [s for s in target if s[2] == label] for v, target in enumerate(targets)}
        ranked = sorted(((s[3], v, s) for v, p in enumerate(predictions) for s in p if s[2] == label), reverse=True)
        for threshold in thresholds:
            taken, hits = set(), []
            for _, video, segment in ranked:
                candidates = sorted(((overlap(segment, s), k) for k, s in enumerate(truth[video])), reverse=True)
                free = [(video, k) for iou, k in candidates if iou >= threshold and (video, k) not in taken]
                taken |= {*free[:1]}
                hits.append(float(bool(free)))
            found[label].append(average_precision(hits, sum(map(len, truth.values()))))
    return found


def plain_recall(predictions: list[Any], targets: list[Any]) -> list[float]:
    """Average recall at 1 to 100 segments a video, as eval_proposal.py computes it."""
    videos = [v for v, target in enumerate(targets) if target]
    ratio = 100.0 * len(videos) / sum(map(len, predictions))
    lists = {
        v: sorted(predictions[v], key=lambda s: -s[3])[: min(int(len(predictions[v]) * ratio), len(predictions[v]))]
        for v in videos
    }
    share = np.arange(1, 101) / 100.0 * (100.0 * len(videos) / sum(map(len, lists.values())))
    recalls = np.zeros((len(ACTIVITYNET), 100))
    for t, threshold in enumerate(ACTIVITYNET):
        for v in videos:
            for j, n in enumerate(np.minimum((len(lists[v]) * share).astype(int), len(lists[v]))):
                recalls[t, j] += sum(any(overlap(s, a) >= threshold for s in lists[v][:n]) for a in targets[v])
    return [float(x) for x in (recalls / sum(map(len, targets))).mean(0)]


def drawn(seed: int, videos: int = 12, most: int = 40) -> tuple[list[Any], list[Any]]:
    """Random segments, crowded so that many ask for one annotated segment."""
    generator = np.random.default_rng(seed)
    predictions, targets = [], []
    for video in range(videos):
        target = [
            [*sorted(generator.uniform(0, 20, 2).tolist()), int(generator.integers(3))]
            for _ in range(generator.integers(0 if video else 1, 6))
        ]
        prediction = []
        for _ in range(generator.integers(0, most)):
            base = target[generator.integers(len(target))] if target else [0.0, 9.0, 0]
            start, end = sorted((np.array(base[:2]) + generator.normal(0, 0.7, 2)).tolist())
            label = base[2] if generator.random() < 0.8 else int(generator.integers(5))
            prediction.append([start, end, label, float(generator.random())])
        predictions.append(prediction)
        targets.append(target)
    return predictions, targets


# --- segments in time ------------------------------------------------------------------------------------------------


@real
def test_activitynet_map_equals_the_official_scorer() -> None:
    videos = read_segments(ANNOTATIONS / "activitynet" / "activity_net.v1-3.val.from_tsp.json")
    expected = json.loads((DATA / "expected/activitynet/expected_jittered.json").read_text())
    file = DATA / "expected/activitynet/jittered_detection_prediction.json"
    found, others = read_segment_predictions(file, [video.name for video in videos.videos], videos.classes)
    predictions = [found.get(video.name, []) for video in videos.videos]
    targets = [video.segments for video in videos.videos]
    scores = activitynet_map(predictions, targets)
    assert not others and next(iter(scores)) == "mAP"
    assert scores["mAP"] / 100 == pytest.approx(expected["average_mAP"], abs=1e-12)
    for threshold, value in expected["mAP@tiou"].items():
        assert scores[f"mAP@{float(threshold):.2g}"] / 100 == pytest.approx(value, abs=1e-12)
    by_class = class_average_precisions(predictions, targets)
    assert {name: of[0] for name, of in by_class.items()} == pytest.approx(expected["AP@0.5_per_class"], abs=1e-12)
    assert scores["missed_error"] == pytest.approx(100 * error_kinds(predictions, targets)["missed"] / 7654)


@real
def test_activitynet_s_own_sample_is_all_right_with_its_segments_of_no_length() -> None:
    videos = read_segments(ANNOTATIONS / "activitynet" / "activity_net.v1-3.val.from_tsp.json").videos
    targets = [video.segments for video in videos]
    predictions = [[[*segment, 1.0] for segment in target] for target in targets]
    scores = activitynet_map(predictions, targets)
    assert scores["mAP"] == scores["mAP@0.95"] == scores["AR@100"] == 100.0
    assert activitynet_map(targets, targets)["mAP"] == 100.0


@pytest.mark.parametrize("seed", range(6))
def test_segments_are_matched_as_one_after_the_other(seed: int) -> None:
    predictions, targets = drawn(seed)
    for score, thresholds in ((activitynet_map, ACTIVITYNET), (thumos_map, THUMOS14)):
        expected = plain_map(predictions, targets, thresholds)
        found = class_average_precisions(predictions, targets, thresholds)
        assert {label: pytest.approx(of, abs=1e-12) for label, of in found.items()} == expected
        mean = 100 * np.mean(list(expected.values()), 0)
        scores = score(predictions, targets)
        assert scores["mAP"] == pytest.approx(mean.mean(), abs=1e-12)
        assert [scores[f"mAP@{t:.2g}"] for t in thresholds] == pytest.approx(mean.tolist(), abs=1e-12)


@pytest.mark.parametrize(("seed", "most"), [(0, 40), (1, 4), (2, 400)])
def test_average_recall_equals_the_official_algorithm(seed: int, most: int) -> None:
    predictions, targets = drawn(seed, most=most)
    expected = plain_recall(predictions, targets)
    scores = activitynet_map(predictions, targets)
    for n in (1, 10, 100):
        assert scores[f"AR@{n}"] == pytest.approx(100 * expected[n - 1], abs=1e-9)
    assert scores["AUC"] == pytest.approx(100 * float(np.trapezoid(expected)) / 100, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_failed_videos_that_were_right_lower_no_recall(seed: int) -> None:
    predictions, targets = drawn(seed, most=3)
    rows = [
        Row(f"{i}", f"v{i}", target=t, prediction=p) for i, (p, t) in enumerate(zip(predictions, targets, strict=True))
    ]
    for i in (0, 3, 4):
        rows[i] = replace(rows[i], prediction=None, failure="cut off")
    found = {entry["metric"]: entry["bounds"] for entry in scores(activitynet_map, rows, 0)}
    for name in ("mAP", "AR@1", "AR@10", "AR@100", "AUC"):
        low, high = found[name]
        assert 0 <= low <= high <= 100
    # The others find what they did, and the failed ones all of theirs.
    failed = sum(len(targets[i]) for i in (0, 3, 4)) / sum(map(len, targets))
    for name in ("AR@1", "AR@10", "AR@100"):
        low, high = found[name]
        assert high == pytest.approx(low + 100 * failed, abs=1e-5)


@pytest.mark.parametrize("metric", ["mAP", "mAP@0.7", "AR@10", "missed_error"])
def test_a_draw_of_videos_scores_as_these_videos_do(metric: str) -> None:
    predictions, targets = drawn(7)
    times = np.random.default_rng(0).integers(0, 3, size=len(targets))
    score = activitynet_map(predictions, targets)[metric]
    again = np.repeat(np.arange(len(targets)), times)
    expected = activitynet_map([predictions[i] for i in again], [targets[i] for i in again])[metric]
    if isinstance(score, ReweightedScore):
        assert score.of(times[:, None].astype(np.float32))[0] == pytest.approx(float(expected), abs=1e-9)
    elif metric == "missed_error":  # which depends on no other video
        assert isinstance(score, AdditiveScore)
        assert score.of(times @ score.parts) == pytest.approx(float(expected), abs=1e-9)


def test_the_interval_is_that_of_its_draws_and_clusters_are_drawn_whole() -> None:
    predictions, targets = drawn(3, videos=30)
    score = activitynet_map(predictions, targets)["mAP"]
    assert isinstance(score, ReweightedScore)
    videos = [i // 3 for i in range(30)]
    alike = ReweightedScore(30, score.of, score.resamples, float(score))
    member = np.array(videos)
    as_drawn, moved = (of.resample(member, 10, 0, 500) for of in (alike, score))
    assert moved == pytest.approx(as_drawn + float(score) - np.median(as_drawn), abs=1e-9)
    low, high = interval_of(score, videos, 0)
    assert low < score < high and [low, high] == pytest.approx(np.quantile(moved, [0.025, 0.975]), abs=1.5)
    one_video = interval_of(score, [0] * 30, 0)
    assert one_video == pytest.approx((0.025 * score, 100 - 0.025 * (100 - score)))


def test_what_a_segment_does_wrong_is_told_by_kind() -> None:
    targets = [[[0.0, 10.0, "a"], [20.0, 30.0, "b"], [50.0, 60.0, "a"]], [[0.0, 5.0, "b"]]]
    predictions = [
        [
            [0.0, 10.0, "a", 0.9],  # right
            [0.0, 9.0, "a", 0.8],  # double
            [20.0, 29.0, "a", 0.7],  # wrong label
            [53.0, 70.0, "a", 0.6],  # localization: 7 / 20
            [26.0, 36.0, "a", 0.5],  # confusion: 4 / 16
            [80.0, 90.0, "a", 0.4],  # background
        ],
        None,
    ]
    counts = error_kinds(predictions, targets, per_instance=3)
    assert counts == {"right": 1, "double": 1, "wrong_label": 1, "localization": 1, "confusion": 1} | {
        "background": 1,
        "missed": 3,
    }
    shares = activitynet_map(predictions, targets)  # the two most likely ones of "a", which appears twice
    assert (shares["double_error"], shares["wrong_label_error"], shares["missed_error"]) == (50.0, 0.0, 75.0)
    assert [name for name in shares if name.endswith("_error")][-1] == "missed_error"


def test_labels_and_videos_that_are_not_annotated_and_nothing_at_all() -> None:
    targets: list[Any] = [[[0.0, 5.0, "a"]], []]
    right = [[0.0, 5.0, "a", 0.5]]
    assert activitynet_map([right, []], targets)["mAP"] == 100.0
    assert activitynet_map([right, [[0.0, 5.0, "z", 0.9]]], targets)["mAP"] == 100.0  # a class without a segment
    assert activitynet_map([right, [[0.0, 5.0, "a", 0.9]]], targets)["mAP"] == 50.0  # a video without one
    nothing = activitynet_map([None, math.nan], targets)
    assert (nothing["mAP"], nothing["AR@100"], nothing["missed_error"]) == (0.0, 0.0, 100.0)
    assert math.isnan(activitynet_map([[], []], [[], []])["mAP"])
    assert activitynet_map([[(0, 5, "a")], []], [[[0, 5, "a"]], []])["mAP"] == 100.0  # a target in its place


@pytest.mark.parametrize(
    "segment",
    [
        [5.0, 1.0, "a", 0.5],
        [0.0, math.inf, "a", 0.5],
        [0.0, 1.0, "a", math.nan],
        [0.0, 1.0, "a", None],
        [0.0, "1", "a", 0.5],
        [0.0, True, "a", 0.5],
        [0.0, 1.0, None, 0.5],
        [0.0, 1.0, ["a"], 0.5],
        [0.0, 1.0, "a"],
        [0.0, 1.0, "a", 0.5, 1],
        3,
        "abcd",
    ],
)
def test_a_segment_that_is_none_is_refused_in_one_line(segment: Any) -> None:
    good = [0.0, 1.0, "a", 0.5]
    with pytest.raises(
        UserError, match=r"activitynet_map: prediction of example 1 holds .* wanted a list of"
    ) as caught:
        activitynet_map([[good], [good, segment]], [[[0.0, 2.0, "a"]]] * 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [None, [[3.0, 2.0, "a"]], [[0.0, 1.0]], {"a": 1}])
def test_a_target_that_is_none_is_refused(target: Any) -> None:
    with pytest.raises(UserError, match="target of example 0 holds"):
        activitynet_map([None], [target])


# --- boxes in frames -------------------------------------------------------------------------------------------------


@real
@pytest.mark.parametrize(
    ("truth", "found", "labels", "expected"),
    [
        (
            "mmaction2_eval_detection_gt",
            "mmaction2_eval_detection_pred",
            "mmaction2_eval_detection_action_list",
            "",
        ),
        ("synthetic_gt", "synthetic_pred", "ava_action_list_v2.1_for_activitynet_2018.pbtxt", "synthetic"),
    ],
)
def test_ava_map_equals_the_official_scorer(truth: str, found: str, labels: str, expected: str) -> None:
    ava = ANNOTATIONS / "ava"
    actions = read_label_map(ava / f"{labels}.txt")
    annotated = read_key_frames(ava / f"{truth}.csv", actions)
    detected = read_detections(ava / f"{found}.csv", actions)
    raw: dict[str, list[Any]] = defaultdict(list)
    for row in csv.reader((ava / f"{found}.csv").read_text().splitlines()):
        raw[f"{row[0]},{float(row[1])}"].append([*map(float, row[2:6]), actions[int(row[6])], float(row[7])])
    name = DATA / "expected/ava" / f"expected_{expected or 'mmaction2_sample'}.txt"
    by_name = eval(name.read_text(), {"np": np, "nan": math.nan})
    for predictions in (
        [detected.boxes.get(key, []) for key in annotated.boxes],
        [raw[f"{name},{second}"] for name, second in annotated.boxes],  # more than 50 of some frames
    ):
        scores = {key: value / 100 for key, value in ava_map(predictions, [*annotated.boxes.values()]).items()}
        for key, value in by_name.items():
            ours = "mAP" if "Precision/" in key else "AP/" + key.split("IOU/")[1]
            assert scores.pop(ours, math.nan) == pytest.approx(value, abs=1e-12, nan_ok=True)
        assert not scores


def test_fifty_boxes_of_a_frame_count_whatever_their_labels() -> None:
    box = [0.1, 0.1, 0.5, 0.5]
    others = [[0.6, 0.6, 0.9, 0.9, "b", 0.9 - n / 1000] for n in range(50)]
    targets = [[[*box, "a"], [0.6, 0.6, 0.9, 0.9, "b"]]]
    assert ava_map([[[*box, "a", 0.5], *others]], targets)["AP/a"] == 0.0
    assert ava_map([[[*box, "a", 0.5], *others[1:]]], targets)["AP/a"] == 100.0
    tied = [[*box, "a", 0.5], *others[1:], [0.0, 0.0, 0.1, 0.1, "b", 0.5]]  # what came first stays
    assert ava_map([tied], targets)["AP/a"] == 100.0


def test_a_box_is_one_annotated_box_s_or_none_s() -> None:
    """The box that it overlaps most is taken: it is not given the next, as a segment is."""
    targets = [[[0.0, 0.0, 0.4, 0.4, 1], [0.0, 0.0, 0.5, 0.4, 1]]]
    twice = [[0.0, 0.0, 0.4, 0.4, 1, 0.9], [0.0, 0.0, 0.41, 0.4, 1, 0.8]]
    assert ava_map([twice], targets)["mAP"] == 50.0
    flat = [[0.5, 0.5, 0.5, 0.9, 1, 1.0], [0.9, 0.5, 0.5, 0.9, 1, 1.0]]  # no area: left out
    assert ava_map([[*flat, *twice]], targets)["mAP"] == 50.0


def test_frames_and_labels_without_boxes_and_what_failed() -> None:
    targets: list[Any] = [[[0.0, 0.0, 0.5, 0.5, "a"]], [], [[0.0, 0.0, 0.5, 0.5, "b"]]]
    hit = [0.0, 0.0, 0.5, 0.5, "a", 0.5]
    scores = ava_map([[hit], [[0.0, 0.0, 0.5, 0.5, "a", 0.9], [0.0, 0.0, 0.1, 0.1, "z", 0.9]], None], targets)
    assert scores == {"mAP": 25.0, "AP/a": 50.0, "AP/b": 0.0}
    assert ava_map([None] * 3, targets)["mAP"] == 0.0
    assert ava_map(targets, targets) == {"mAP": 100.0, "AP/a": 100.0, "AP/b": 100.0}
    assert math.isnan(ava_map([[hit]], [[]])["mAP"])
    low, high = interval_of(ava_map([[hit], [], [[*hit[:4], "b", 1.0]]], targets)["mAP"], "abc", 0)  # type: ignore[arg-type]
    assert math.isnan(low) and math.isnan(high)  # every draw is all right


def test_boxes_of_one_video_are_drawn_together() -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 0.5, (40, 2))
    targets = [[[*low, *(low + 0.4), int(generator.integers(2))]] for low in corner]
    predictions = [
        [[*np.clip(np.array(box[:4]) + generator.normal(0, 0.05, 4), 0, 1), box[4], float(generator.random())]]
        for (box,) in targets
    ]
    score = ava_map(predictions, targets)["mAP"]
    assert isinstance(score, ReweightedScore)
    times = generator.integers(0, 3, size=40)
    again = np.repeat(np.arange(40), times)
    expected = ava_map([predictions[i] for i in again], [targets[i] for i in again])["mAP"]
    assert score.of(times[:, None].astype(np.float32))[0] == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("box", [[0.1, 0.1, 0.5, "a", 0.5], [0.1, 0.1, 0.5, math.nan, "a", 0.5], [0.1] * 6])
def test_a_box_that_is_none_is_refused_in_one_line(box: Any) -> None:
    with pytest.raises(UserError, match="ava_map: prediction of example 0 holds") as caught:
        ava_map([[box]], [[[0.1, 0.1, 0.5, 0.5, "a"]]])
    assert "\n" not in str(caught.value)


def test_the_interval_reaches_to_both_sides_where_copies_of_a_video_raise_the_score() -> None:
    """Forty classes of three videos each, as ActivityNet has many classes of few: every draw scores higher."""
    generator = np.random.default_rng(0)
    targets = [[[0.0, 10.0, f"class {i // 3}"]] for i in range(120)]
    predictions = [
        [[0.0, 10.0 * generator.uniform(0.3, 1), target[0][2], float(generator.random())] for _ in range(4)]
        for target in targets
    ]
    score = activitynet_map(predictions, targets)["mAP"]
    low, high = interval_of(score, range(120), 0)  # type: ignore[arg-type]
    assert 0.5 < (score - low) / (high - score) < 2
