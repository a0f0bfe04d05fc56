import json

import pytest

from evalkit.errors import UserError
from evalkit.metrics.text.exact_match import exact_match
from evalkit.results.rows import Row
from evalkit.results.scores import scores


def test_an_answer_is_right_where_it_is_equal_in_lower_case() -> None:
    said = ["Play", " two ", "a dog", "dogs", "no.", None, ""]
    right = ["play", "Two", "dog", ["cat", "DOGS"], "no", "yes", "yes"]
    assert exact_match(said, right) == {"accuracy": [1, 1, 0, 1, 0, 0, 0]}


def test_a_failed_answer_is_wrong_even_where_nothing_is_right_and_its_bounds_are_known() -> None:
    assert exact_match([None, ""], ["", ""]) == {"accuracy": [0, 1]}
    rows = [Row("1", "v", target=["yes", "no"], prediction=None), Row("2", "w", target="no", prediction="no")]
    assert scores(exact_match, rows, seed=0)[0]["bounds"] == [50, 100]


def test_an_answer_that_is_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="exact_match: prediction 2 is not text"):
        exact_match([2], json.loads('["2"]'))
