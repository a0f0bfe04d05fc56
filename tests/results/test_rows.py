import math

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.results.rows import Row, tally


def test_a_row_equals_what_is_read_back() -> None:
    import torch

    row = Row(
        "q\u2028\n1",
        "caf\u00e9/\udcff.mp4",
        target=np.int64(3),
        prediction=(torch.tensor(2), np.float32(0.5), {"boxes": np.ones((2, 2)), 3: torch.tensor([1.0])}),
        detail={"logp": [-math.inf, math.nan, np.float64(-1.25)], "right": np.bool_(True)},
        decoder="av 18.1.0",
    )
    line = row.json()
    assert "\n" not in line and line.isascii()
    assert Row.parse(line) == row
    assert row.target == 3 and type(row.target) is int
    assert row.prediction == [2, 0.5, {"boxes": [[1.0, 1.0], [1.0, 1.0]], "3": [1.0]}]
    assert row.detail == {"logp": [None, None, -1.25], "right": True}


def test_a_nan_prediction_is_a_failed_one() -> None:
    assert Row("q", "v", target=1, prediction=math.nan).prediction is None
    assert tally([Row("q", "v", prediction=np.float32("nan"))])["failures"] == [{"id": "q", "reason": "no prediction"}]


def test_what_json_cannot_hold_is_refused_with_the_examples_id() -> None:
    with pytest.raises(UserError, match="^prediction of example 'q7': a result cannot hold set"):
        Row("q7", "v", prediction=[{1, 2}])


def test_a_row_is_not_both_predicted_and_failed() -> None:
    with pytest.raises(ValueError, match="'q7' has both"):
        Row("q7", "v", prediction=1, failure="broken file")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[]", "not of type 'object'"),
        ('{"id": "q"}', "required"),
        (Row("q", "v").json().replace('"kind"', '"knid"'), "knid"),
        (Row("q", "v").json().replace('"v"', "7"), "video: 7 is not of type 'string'"),
        (Row("q", "v", prediction=1).json().replace("1", "NaN"), "NaN is not JSON"),
        (Row("q", "v", prediction=1).json().replace("1", "1e999"), "1e999 is too large"),
        (Row("q", "v").json() + "{}", "Extra data"),
        (Row("q", "v", prediction=1).json().replace('"failure": null', '"failure": "broken"'), "'q' has both"),
    ],
)
def test_a_line_that_is_no_row_is_refused(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Row.parse(line)


def test_a_row_of_a_known_shape_is_still_refused_where_a_type_differs() -> None:
    """What was checked once is not checked again; what has another shape is."""
    row = Row("1", "a.mp4", target=1, prediction=2)
    assert Row.parse(row.json()) == Row.parse(row.json()) == row
    for wrong in ('"video": 3', '"video": null'):
        with pytest.raises(ValueError, match="video"):
            Row.parse(row.json().replace('"video": "a.mp4"', wrong))
    with pytest.raises(ValueError, match="extra"):
        Row.parse(row.json()[:-1] + ', "extra": 1}')
    with pytest.raises(ValueError):
        Row.parse("[]")
