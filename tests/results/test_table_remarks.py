"""Lines on answers that are nearly all alike, and on a choice by a tie."""

from typing import Any

import pytest

from evalkit.results.rows import Row
from evalkit.results.table import collapsed, tied


def rows(answers: list[Any], targets: list[Any]) -> list[Row]:
    return [
        Row(str(i), f"{i}.mp4", target=t, prediction=a) for i, (a, t) in enumerate(zip(answers, targets, strict=True))
    ]


FOUR = [k % 4 for k in range(100)]


@pytest.mark.parametrize("as_list", [False, True])
def test_answers_that_are_nearly_all_of_one_class_are_told(as_list: bool) -> None:
    answers: list[Any] = [2] * 94 + [0, 1, 3, 0, 1, 3]
    told = collapsed(rows([[a, 1] if as_list else a for a in answers], FOUR), ["run", "jump", "sit", "fall"])
    assert told.startswith("94 of 100 answers are 'sit', which is right for 25: the head has hardly learned.")
    untrained = collapsed(rows(answers, FOUR), fitted=False)  # as letters of a language model, which no epoch changes
    assert untrained == "94 of 100 answers are '2', which is right for 25"


@pytest.mark.parametrize(
    ("answers", "targets"),
    [
        (FOUR, FOUR),
        ([2] * 94 + [0] * 6, [2] * 90 + [0] * 10),  # most are of that class
        ([2] * 40 + FOUR[:60], FOUR),  # no majority
        ([2] * 10, FOUR[:10]),  # too few
        (["a text"] * 100, FOUR),
        ([[0.1, 0.9]] * 100, [[0, 1]] * 100),  # several classes each
        ([None] * 100, FOUR),
    ],
)
def test_answers_that_are_as_they_may_be_are_not(answers: list[Any], targets: list[Any]) -> None:
    assert collapsed(rows(answers, targets)) == ""


def test_a_choice_among_equals_is_told() -> None:
    selection = {"grid_val_scores": [60.0, 80.0, 80.0, None], "val_score": 80.0, "n_val": 5}
    assert tied(selection) == ("2 of 4 grid points tie on val (80.0 on 5 examples); the first of them was chosen")
    assert tied({**selection, "grid_val_scores": [60.0, 80.0, 70.0, None]}) == "" == tied(None)
    assert tied({"grid_val_scores": [80.0], "val_score": 80.0, "n_val": 5}) == ""
