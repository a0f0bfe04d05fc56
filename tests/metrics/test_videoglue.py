"""The VideoGLUE score and the stratified mean against what VideoPrism and VideoGLUE print."""

import pytest

from evalkit.datasets.published import published_numbers
from evalkit.errors import UserError
from evalkit.metrics.videoglue import GROUPS, score, stratified_mean

ADAPTATIONS = ("frozen", "mlap", "adapter", "finetune")
TASKS = {task for tasks in GROUPS.values() for task in tasks}
# Rows whose printed mean does not follow from their printed scores, by more than rounding: printed, recomputed.
EXCEPTIONS = {
    ("CLIP-B", "mlap"): (43.3, 43.0),
    ("VideoMAE-B", "mlap"): (40.9, 41.1),
    ("CLIP-B", "finetune"): (52.8, 50.9),  # its SSv2 score looks stale
    ("DINOv2-B", "finetune"): (50.5, 50.8),
}


def printed(row: str, adaptation: str, metric: str, task: str = "videoglue") -> float:
    (value,) = {
        n.value
        for n in published_numbers()
        if (n.row, n.adaptation, n.metric, n.task) == (row, adaptation, metric, task)
    }
    return value


def rows_with(metric: str) -> list[str]:
    return sorted({n.row for n in published_numbers() if n.metric == metric})


def test_the_scores_of_eight_models_are_as_printed() -> None:
    rows = rows_with("videoglue_score")
    assert len(rows) == 8
    for row in rows:
        means = {name: printed(row, name, "stratified_mean") for name in ADAPTATIONS}
        costs = {name: printed(row, name, "trainable_gflops") for name in ADAPTATIONS}
        assert score(means, costs) == pytest.approx(printed(row, "all", "videoglue_score"), abs=0.1), row


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_the_means_of_an_adaptation_are_as_printed(adaptation: str) -> None:
    for row in rows_with("stratified_mean"):
        scores = {
            n.task: n.value
            for n in published_numbers()
            if (n.row, n.adaptation) == (row, adaptation) and n.task in TASKS and not n.note.endswith("training data")
        }
        expected = printed(row, adaptation, "stratified_mean")
        if (row, adaptation) in EXCEPTIONS:
            assert (expected, round(stratified_mean(scores), 1)) == EXCEPTIONS[row, adaptation]
        else:
            assert stratified_mean(scores) == pytest.approx(expected, abs=0.1), row


def test_a_group_without_scores_is_left_out() -> None:
    assert stratified_mean({"kinetics400": 80.0, "moments_in_time": 40.0, "charades": 20.0}) == 40.0


@pytest.mark.parametrize(
    ("scores", "told"), [({}, "there are no scores"), ({"kinetics400": 1.0, "msrvtt": 2.0}, "'msrvtt' is not one")]
)
def test_a_mean_of_other_tasks_is_refused(scores: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        stratified_mean(scores)


@pytest.mark.parametrize("cost", [1.0, 0.13, float("nan")])
def test_a_cost_whose_logarithm_makes_no_weight_is_refused(cost: float) -> None:
    with pytest.raises(UserError, match=r"'frozen' costs .*; wanted a number above 1"):
        score({"frozen": 50.0}, {"frozen": cost})


def test_a_missing_cost_is_refused() -> None:
    with pytest.raises(UserError, match="'mlap' costs nan"):
        score({"frozen": 50.0, "mlap": 60.0}, {"frozen": 3.72})
