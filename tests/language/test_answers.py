import math

import pytest

from evalkit.language.answers import Stop, cut, lettered, likeliest


def test_the_likeliest_answer_is_the_first_of_equals() -> None:
    assert likeliest([-3.0, -1.0, -1.0], "abc", {"tokens": 1}) == ("b", {"tokens": 1})
    assert likeliest([-math.inf, -9.0], range(2), {}).value == 1


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([math.nan, -1.0, -2.0], "nan as the score of 1 of 3 answers"),
        ([-1.0, math.nan], "nan as the score of 1 of 2 answers"),
        ([math.inf, -1.0], "inf as the score of 1 of 2 answers"),
        ([-math.inf, -math.inf], "no chance to any of 2 answers"),
    ],
)
def test_scores_that_are_no_numbers_are_a_failed_example_and_never_the_first_answer(
    scores: list[float], told: str
) -> None:
    value, detail = likeliest(scores, range(len(scores)), {"log_likelihood": scores, "tokens": [1, 2]})
    assert value is None and detail == {"tokens": [1, 2], "failure": f"the language model gives {told}"}


@pytest.mark.parametrize(
    ("stop", "said", "kept"),
    [
        ("question", "yes\nQuestion: is it blue? Answer: no", "yes"),
        ("question", "yes\n\nQuestion 2: what?", "yes"),
        ("question", "a red ring\nQ: and then?", "a red ring"),
        ("question", "Question: what? Answer: a ring", ""),
        ("question", "one\ntwo", "one\ntwo"),
        ("question", "the question is answered", "the question is answered"),
        ("line", "one\ntwo", "one"),
        ("line", "one", "one"),
        ("none", "yes\nQuestion: is it?", "yes\nQuestion: is it?"),
    ],
)
def test_a_text_ends_where_it_goes_on_to_something_else(stop: Stop, said: str, kept: str) -> None:
    assert cut(said, stop) == (kept, kept != said)


def test_options_stand_after_their_letters() -> None:
    assert lettered(("a ring", "a cross")) == "A: a ring B: a cross"
