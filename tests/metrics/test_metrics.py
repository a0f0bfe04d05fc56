import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.metrics import classification
from evalkit.metrics.average_precision import box_map, chance_map, charades_map, foreground_map, multilabel_map, pr_auc
from evalkit.metrics.bootstrap import ReweightedScore
from evalkit.metrics.classification import accuracy, macro_accuracy, top1_top5
from evalkit.metrics.retrieval import retrieval
from tests.given import FIXTURES

EXPECTED = FIXTURES / "retrieval"
CHARADES = FIXTURES / "charades"


def percent(values: Any) -> float:
    return float(100 * np.mean(values))


def test_accuracy_equals_scikit_learn_and_torchmetrics() -> None:
    import torch
    from sklearn.metrics import accuracy_score
    from torchmetrics.functional.classification import multiclass_accuracy

    rng = np.random.default_rng(0)
    predictions, targets = rng.integers(7, size=(2, 500)).tolist()
    found = percent(accuracy(predictions, targets)["accuracy"])
    assert found == pytest.approx(100 * accuracy_score(targets, predictions), abs=1e-9)
    reference = multiclass_accuracy(torch.tensor(predictions), torch.tensor(targets), 7, average="micro")
    assert found == pytest.approx(100 * float(reference), abs=1e-4)


def test_a_failed_or_nan_prediction_is_wrong_and_a_target_in_its_place_is_right() -> None:
    assert accuracy([None, math.nan, 2, 0], [0, 1, 2, 3]) == {"accuracy": [0.0, 0.0, 1.0, 0.0]}
    assert top1_top5([None, math.nan, 2], [0, 1, 2]) == {"top1": [0.0, 0.0, 1.0], "top5": [0.0, 0.0, 1.0]}
    found = retrieval([None, {"t2v": math.nan, "v2t": 2}, {"t2v": 3, "v2t": None}, "d"], "abcd")
    assert found["t2v_R@10"] == [0.0, 0.0, 1.0, 1.0] and found["v2t_R@10"] == [0.0, 1.0, 0.0, 1.0]


def test_a_failed_prediction_is_wrong_even_where_the_target_is_nan() -> None:
    assert accuracy([None], [0])["accuracy"] == [0.0]
    assert retrieval([None], [None])["t2v_R@1"] == [0.0]


def test_numpy_and_torch_integers_are_class_indices() -> None:
    import torch

    assert accuracy([np.int64(3), torch.tensor(1)], [3, 1])["accuracy"] == [1.0, 1.0]


@pytest.mark.parametrize("prediction", [[3, 1], "3", 3.0, {"rank": 1}])
def test_accuracy_refuses_what_is_not_a_class_index(prediction: object) -> None:
    with pytest.raises(UserError, match=r"accuracy: prediction .* is not a class index"):
        accuracy([prediction], [3])


def test_top1_and_top5_equal_scikit_learn_and_torchmetrics() -> None:
    import torch
    from sklearn.metrics import top_k_accuracy_score
    from torchmetrics.functional.classification import multiclass_accuracy

    rng = np.random.default_rng(1)
    logits = rng.normal(size=(400, 11))
    targets = np.concatenate([np.arange(11), rng.integers(11, size=389)])
    found = top1_top5(np.argsort(-logits, axis=1).tolist(), targets.tolist())
    for k in (1, 5):
        mine = percent(found[f"top{k}"])
        assert mine == pytest.approx(100 * top_k_accuracy_score(targets, logits, k=k), abs=1e-9)
        theirs = multiclass_accuracy(torch.tensor(logits), torch.tensor(targets), 11, average="micro", top_k=k)
        assert mine == pytest.approx(100 * float(theirs), abs=1e-4)


def test_top5_needs_no_five_entries_where_there_are_fewer_classes() -> None:
    assert top1_top5([[1, 0], [1, 0]], [0, 1]) == {"top1": [0.0, 1.0], "top5": [1.0, 1.0]}


@pytest.mark.parametrize("prediction", [[0, 1, 2], 3, "01234", {"rank": 1}])
def test_top5_refuses_a_prediction_that_is_too_short_or_no_list(prediction: object) -> None:
    with pytest.raises(UserError, match="is not a list of at least 5 class indices in falling order of score"):
        top1_top5([prediction, [9, 8, 7, 6, 5]], [0, 9])


def ranks_of(text: Any, video: Any, of: Sequence[int] | None = None) -> list[dict[str, float]]:
    """What the adapter predicts for texts of which each is about a video: one each, in order, where `of` is None."""
    import torch

    from evalkit.metrics.ranks import ranks

    numbers = torch.arange(len(video)) if of is None else torch.tensor(of)
    found = ranks(torch.from_numpy(np.asarray(text)), torch.from_numpy(np.asarray(video)), numbers)
    return [{"t2v": float(found.t2v[i]), "v2t": float(found.v2t[k])} for i, k in enumerate(numbers)]


def numbered(of: Sequence[int]) -> list[tuple[str, int]]:
    """Targets of captions of these videos."""
    return [(f"video{k}", list(of[:i]).count(k)) for i, k in enumerate(of)]


def test_recall_at_k_equals_torchmetrics_hit_rate() -> None:
    import torch
    from torchmetrics.functional.retrieval import retrieval_hit_rate

    similarity = np.random.default_rng(2).normal(size=(60, 60)) + np.eye(60)
    found = retrieval(ranks_of(similarity, np.eye(60)), range(60))
    for way, seen in (("t2v", similarity), ("v2t", similarity.T)):
        for k in (1, 5, 10):
            hits = [
                float(retrieval_hit_rate(torch.tensor(row), torch.arange(60) == i, top_k=k))
                for i, row in enumerate(seen)
            ]
            assert found[f"{way}_R@{k}"] == hits


def test_each_caption_asks_once_and_each_video_once() -> None:
    predictions = [{"t2v": 1, "v2t": 1}, {"t2v": 9, "v2t": 1}, {"t2v": 9, "v2t": 1}, {"t2v": 9, "v2t": 7}]
    found = retrieval(predictions, [("a", 0), ("a", 1), ("a", 2), ("b", 0)])
    assert found["t2v_R@1"] == [1, 0, 0, 0] and found["t2v_mean_rank"] == 7
    assert found["v2t_R@1"] == 50 and found["v2t_R@10"] == 100 and found["v2t_mean_rank"] == 4
    drawn_twice = retrieval(predictions[:3] * 2 + predictions[3:], [("a", 0), ("a", 1), ("a", 2)] * 2 + [("b", 0)])
    assert drawn_twice["v2t_R@1"] == pytest.approx(200 / 3), "a video that a resample draws twice counts twice"


def test_a_tie_for_the_first_place_is_no_hit_at_one() -> None:
    assert retrieval([{"t2v": 1.5, "v2t": 1}], [0])["t2v_R@1"] == [0.0]


def test_a_failed_query_ranks_last_in_the_median_and_the_mean() -> None:
    first, second, far = ({"t2v": rank, "v2t": rank} for rank in (1, 2, 90))
    assert retrieval([first, None, second, None], "abcd")["t2v_mean_rank"] == (1 + 4 + 2 + 4) / 4
    assert retrieval([first, None, far], "abc")["v2t_mean_rank"] == (1 + 90 + 90) / 3
    assert retrieval([None, None], "ab")["t2v_median_rank"] == 2
    found = retrieval([first, first, None, None, None], [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)])
    assert found["t2v_mean_rank"] == (1 + 1 + 3 * 2) / 5, "the last of two videos"
    assert found["v2t_mean_rank"] == (1 + 5) / 2, "the last of five captions"


def test_nothing_to_score_gives_nothing_rather_than_an_error() -> None:
    assert accuracy([], []) == {"accuracy": []}
    assert top1_top5([], []) == {"top1": [], "top5": []}
    found = retrieval([], [])
    assert found["t2v_R@1"] == [] and isinstance(found["v2t_mean_rank"], float) and math.isnan(found["v2t_mean_rank"])


def test_a_top5_that_counts_everything_says_so(caplog: pytest.LogCaptureFixture) -> None:
    classification._warn_every_class.cache_clear()
    assert top1_top5([[0, 1, 2, 3], [3, 2, 1, 0], None], [3, 3, 0])["top5"] == [1.0, 1.0, 0.0]
    assert "with 4 classes, top5 counts every prediction as right" in caplog.text
    top1_top5([[4, 3, 2, 1, 0], [0, 1, 2, 3, 4]] * 10, [4, 2] * 10)
    assert "with 5 classes" in caplog.text
    caplog.clear()
    classification._warn_every_class.cache_clear()
    top1_top5([[4, 3, 2, 1, 0], [0, 1, 2, 3, 4]], [4, 2])  # as of a val of two, which may leave out a sixth
    top1_top5([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]], [0, 5])  # five of six
    macro_accuracy([[0, 1], [1, 0]], [0, 1])  # which has no top5
    assert not caplog.text


@pytest.mark.parametrize("score", [accuracy, top1_top5, retrieval])
def test_a_wrong_number_of_predictions_is_an_error(score: Any) -> None:
    with pytest.raises(ValueError):
        score([None, None], [1])


@pytest.mark.parametrize("prediction", [{"t2v": 0, "v2t": 1}, {"t2v": 1, "v2t": -3.0}, {"t2v": 1}, {"rank": 1}, 5])
def test_retrieval_refuses_what_has_no_rank_from_one(prediction: object) -> None:
    with pytest.raises(UserError, match="is not"):
        retrieval([prediction], [7])


THEIRS = {"R@1": "R1", "R@5": "R5", "R@10": "R10", "median_rank": "MedianR", "mean_rank": "MeanR"}


def agree(found: dict[str, Any], way: str, theirs: dict[str, float], metrics: Sequence[str] = tuple(THEIRS)) -> None:
    """To 1e-9 in points and ranks."""
    for metric in metrics:
        value = found[f"{way}_{metric}"]
        mine = percent(value) if isinstance(value, list) else value
        assert mine == pytest.approx(theirs.get(THEIRS[metric], theirs.get("MedR")), rel=0, abs=1e-9), (way, metric)


@pytest.mark.parametrize("code", ["clip4clip", "frozen"])
@pytest.mark.parametrize("way", ["t2v", "v2t"])
def test_retrieval_equals_clip4clip_and_frozen_in_time_where_nothing_ties(code: str, way: str) -> None:
    told = json.loads((EXPECTED / "expected.json").read_text())["square_1000"]
    with np.load(EXPECTED / "square_1000.npz") as arrays:
        found = retrieval(ranks_of(arrays["text"], arrays["video"]), [f"video{i}" for i in range(1000)])
    agree(found, way, told[f"{code}_{way}"])


@pytest.mark.parametrize("masked", [False, True])
def test_retrieval_with_several_captions_equals_clip4clip_and_frozen_in_time(masked: bool) -> None:
    told = json.loads((EXPECTED / "expected.json").read_text())["multi_200x20"]
    with np.load(EXPECTED / "multi_200x20.npz") as arrays:
        text, video, there = arrays["text"], arrays["video"], arrays["mask"].reshape(-1) > 0
    of = np.repeat(np.arange(200), 20)
    if masked:  # captions that are not there: videos have unequal numbers of them
        text, of = text[there], of[there]
    found = retrieval(ranks_of(text, video, of.tolist()), numbered(of.tolist()))
    suffix = "_masked" if masked else ""
    for way in ("t2v", "v2t"):
        agree(found, way, told[f"frozen_{way}{suffix}"])
    if not masked:
        # CLIP4Clip's rates of texts are float32.
        agree(found, "t2v", told["clip4clip_t2v_tensor"], ["median_rank", "mean_rank"])
        assert percent(found["t2v_R@1"]) == pytest.approx(told["clip4clip_t2v_tensor"]["R1"], abs=1e-5)
        agree(found, "v2t", told["clip4clip_v2t_tensor"])


def test_ties_are_averaged_as_in_frozen_in_times_v2t_and_nowhere_else() -> None:
    told = json.loads((EXPECTED / "expected.json").read_text())
    with np.load(EXPECTED / "ties_200.npz") as arrays:
        similarity = arrays["sims"]  # (texts, videos)
    found = retrieval(ranks_of(similarity, np.eye(200)), range(200))
    averaged = told["ties_200"]["frozen_v2t(averaging)"]
    agree(found, "v2t", averaged, ["R@1", "median_rank", "mean_rank"])
    # A rank from 0 below k is a hit there: 5.5 from 1 counts as one at 5, and here it does not.
    ranks = [one["v2t"] for one in ranks_of(similarity, np.eye(200))]
    for k in (5, 10):
        halves = sum(rank == k + 0.5 for rank in ranks)
        assert percent(found[f"v2t_R@{k}"]) == pytest.approx(averaged[f"R{k}"] - halves / 2, rel=0, abs=1e-9)
    # Frozen in Time's t2v takes the best place of what ties, CLIP4Clip has an entry for each that ties.
    optimistic, each = told["ties_200"]["frozen_t2v(optimistic)"], "clip4clip_t2v(len(ind) counts every tie)"
    own = similarity.diagonal()[:, None]
    assert percent((similarity > own).sum(1) < 1) == pytest.approx(optimistic["R1"], rel=0, abs=1e-9)
    places = [np.flatnonzero(np.sort(-row) == -row[i]) for i, row in enumerate(similarity)]
    assert percent(np.concatenate(places) < 1) == pytest.approx(told["ties_200"][each]["R1"], rel=0, abs=1e-9)
    assert percent(found["t2v_R@1"]) <= optimistic["R1"]


def test_a_constant_similarity_is_the_middle_as_in_clip4clip_and_frozen_in_times_v2t() -> None:
    told = json.loads((EXPECTED / "expected.json").read_text())["constant_50"]
    found = retrieval(ranks_of(np.ones((50, 1)), np.ones((50, 1))), range(50))
    for way in ("t2v", "v2t"):
        agree(found, way, told["frozen_v2t"])
    agree(found, "t2v", told["clip4clip_t2v"], ["median_rank", "mean_rank"])
    assert told["frozen_t2v"]["R1"] == 100, "which a collapsed encoder would get there"


def several(seed: int, n: int = 80, classes: int = 7, empty: int = 9) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """Scores (n, classes) in 0..1 that know something of the classes, and the classes; the last examples have none."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, classes)) < 0.3
    truth[n - empty :] = False
    return np.clip(0.25 * truth + 0.75 * rng.random((n, classes)), 0, 1), [tuple(np.flatnonzero(row)) for row in truth]


def test_average_precision_of_several_classes_equals_scikit_learn_and_torchmetrics_ties_included() -> None:
    import torch
    from sklearn.metrics import average_precision_score
    from torchmetrics.functional.classification import multilabel_average_precision

    scores, targets = several(3)
    truth = np.array([[c in target for c in range(7)] for target in targets])
    for given in (scores, scores.round(1)):
        found = multilabel_map(given.tolist(), targets)["mAP"]
        assert found == pytest.approx(100 * average_precision_score(truth, given, average="macro"), abs=1e-9)
        theirs = multilabel_average_precision(torch.tensor(given), torch.tensor(truth).long(), 7, average="macro")
        assert found == pytest.approx(100 * float(theirs), abs=1e-4)


def test_charades_map_equals_its_own_scorer() -> None:
    expected = json.loads((CHARADES / "expected_test200.json").read_text())
    with np.load(CHARADES / "expected_test200.npz") as arrays:
        scores, truth = arrays["scores"].tolist(), arrays["gt"]
    found = charades_map(scores, [tuple(np.flatnonzero(row).tolist()) for row in truth])
    assert found["mAP"] / 100 == pytest.approx(expected["mAP(charades_map)"], abs=1e-9)
    assert found["mAP_all_videos"] / 100 == pytest.approx(expected["mAP(nanmean)"], abs=1e-9)
    for c, theirs in enumerate(expected["AP"]):
        mine = multilabel_map([row[c : c + 1] for row in scores], [(0,) if row[c] else () for row in truth])["mAP"]
        assert math.isnan(mine) if theirs is None else mine / 100 == pytest.approx(theirs, abs=1e-9)


def test_pr_auc_equals_keras() -> None:
    with np.load(CHARADES / "expected_test200.npz") as arrays:
        scores, truth = 1 / (1 + np.exp(-arrays["scores"])), arrays["gt"]
    found = pr_auc(scores.tolist(), [tuple(np.flatnonzero(row).tolist()) for row in truth])["PR-AUC"]
    # tf.keras.metrics.AUC(curve="PR", multi_label=True) of Keras 3.15.1, float32, over the 152 classes with a positive
    assert found == pytest.approx(28.467294573783875, abs=1e-4)


def test_pr_auc_is_the_integral_of_precision_where_hits_grow_linearly_between_thresholds() -> None:
    scores, targets = several(4)
    thresholds = [-1e-7, *(i / 199 for i in range(1, 199)), 1 + 1e-7]
    areas = []
    for c in range(7):
        positive = np.array([c in target for target in targets])
        area = 0.0
        for low, high in zip(thresholds[:-1], thresholds[1:], strict=True):
            (p0, t0), (p1, t1) = (
                ((scores[:, c] > t).sum(), (positive & (scores[:, c] > t)).sum()) for t in (high, low)
            )
            steps = 2000
            x = (np.arange(steps) + 0.5) / steps
            if p1 > p0:  # the midpoint rule over what is found between two thresholds
                area += ((t0 + x * (t1 - t0)) / (p0 + x * (p1 - p0))).mean() * (t1 - t0) / positive.sum()
        areas.append(area)
    assert pr_auc(scores.tolist(), targets)["PR-AUC"] == pytest.approx(100 * np.mean(areas), abs=1e-4)


@pytest.mark.parametrize("score", [multilabel_map, box_map, charades_map, pr_auc])
def test_a_failed_example_is_never_found_and_a_target_in_its_place_always(score: Any) -> None:
    scores, targets = several(5)
    predictions: list[Any] = scores.tolist()
    plain, worse, better = (
        next(iter(score(given, targets).values()))
        for given in (
            predictions,
            [None if i % 3 == 0 else row for i, row in enumerate(predictions)],
            [targets[i] if i % 3 == 0 else row for i, row in enumerate(predictions)],
        )
    )
    assert worse < plain < better
    assert next(iter(score([None] * len(targets), targets).values())) == 0
    assert next(iter(score(targets, targets).values())) == pytest.approx(100)
    assert next(iter(score([[None] * 7] * len(targets), targets).values())) == 0  # as JSON says NaN


def test_scores_that_look_like_class_indices_are_still_scores() -> None:
    assert multilabel_map([[0.0, 1.0], [1.0, 0.0]], [(0, 1), (1,)])["mAP"] == pytest.approx(75)
    assert multilabel_map([(0, 1), [1.0, 0.0]], [(0, 1), (1,)])["mAP"] == pytest.approx(100)


@pytest.mark.parametrize("empty", [True, False])
def test_chance_is_what_random_scores_give(empty: bool) -> None:
    _, targets = several(6)
    rng = np.random.default_rng(0)
    score = multilabel_map if empty else charades_map
    drawn = [score(rng.random((80, 7)).tolist(), targets)["mAP"] for _ in range(800)]
    assert np.mean(drawn) == pytest.approx(chance_map(targets, empty), abs=4 * float(np.std(drawn)) / math.sqrt(800))


@pytest.mark.parametrize(
    ("predictions", "told"),
    [
        ([[0.1, 0.2], [0.3]], "predictions hold 1 and 2 scores"),
        ([[0.1], [0.3]], "predictions hold 1 scores, and there is a class 1"),
        ([[0.1, 0.2], 3], "prediction .3. is not a list of scores"),
        ([[0.1, 0.2], "0.5"], "prediction .0.5. is not a list of scores"),
        ([[0.1, 0.2], {"a": 1}], "is not a list of scores"),
    ],
)
def test_what_is_no_score_of_each_class_is_refused(predictions: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        multilabel_map(predictions, [(0,), (1,)])


def test_pr_auc_refuses_what_is_no_probability() -> None:
    with pytest.raises(UserError, match=r"scores reach from -2 to 0.5; wanted probabilities in 0..1"):
        pr_auc([[0.5], [-2.0]], [(0,), ()])


def test_no_class_at_all_gives_nan_rather_than_an_error() -> None:
    for score in (multilabel_map, box_map, charades_map, pr_auc):
        assert math.isnan(next(iter(score([[0.1, 0.2]], [()]).values())))
        assert math.isnan(next(iter(score([], []).values())))


@pytest.mark.parametrize(
    ("score", "several"),
    [
        pytest.param(score, several)
        for score, several in ((retrieval, False), (retrieval, True), (macro_accuracy, False))
    ]
    + [pytest.param(score, False) for score in (multilabel_map, foreground_map, box_map, charades_map, pr_auc)],
)
def test_a_score_that_knows_its_draws_is_what_it_gives_on_the_drawn_examples(score: Any, several: bool) -> None:
    rng = np.random.default_rng(0)
    n, several_classes = 60, score not in (retrieval, macro_accuracy)
    predictions: list[Any] = [(rng.integers(0, 10, 4) / 9).tolist() for _ in range(n)]  # with ties
    targets: list[Any] = [np.flatnonzero(rng.random(4) < 0.4).tolist() for _ in range(n)]
    if score is retrieval:
        predictions = [{"t2v": int(a), "v2t": int(b)} for a, b in rng.integers(1, 60, size=(n, 2))]
        targets = [(f"v{i // 3}", i % 3) if several else f"v{i}" for i in range(n)]
    elif score is macro_accuracy:
        predictions, targets = rng.integers(4, size=(n, 5)).tolist(), rng.integers(4, size=n).tolist()
    if several_classes:
        predictions[7] = None
    found = score(predictions, targets)
    known = {name: value for name, value in found.items() if not isinstance(value, list)}
    assert known
    for _ in range(5):
        times = rng.multinomial(n, np.full(n, 1 / n))
        drawn = np.repeat(np.arange(n), times).tolist()
        again = score([predictions[i] for i in drawn], [targets[i] for i in drawn])
        for name, value in known.items():
            if isinstance(value, ReweightedScore):
                ours = value.of(np.stack([times, times], 1).astype(np.float32))[1]
            else:
                ours = value.of(times @ value.parts)
            assert ours == pytest.approx(float(again[name]), abs=1e-9), name
