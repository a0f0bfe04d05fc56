import json

import numpy as np
import pytest

from evalkit.metrics.text.paragraph import letters, paragraph, repetition
from evalkit.results.rows import Row
from evalkit.results.scores import scores
from tests.given import ANNOTATIONS, real


def test_all_that_is_no_letter_is_a_space() -> None:
    assert letters(" It's 2 CUPS, half-and-half...\tpiñata") == "it s cups half and half pi ata"


def test_repetition_counts_4_grams_that_were_there_before() -> None:
    assert repetition("a b c d. a b c d. a b c d e") == 1 - 2 / 4
    assert repetition("a b c d a b c d") == 1 - 4 / 5
    assert repetition("a b c. d e f. g") == 0.0 == repetition("")
    assert repetition("Cut it, in two. Cut it in two!") == 0.5


def test_no_4_gram_goes_across_the_end_of_a_sentence() -> None:
    assert repetition("a b. c d e f. a b c d. c d e f") == pytest.approx(1 / 3)


@real
def test_real_paragraphs_score_as_in_pycocoevalcap() -> None:
    for module in ("bleu.bleu", "cider.cider", "rouge.rouge"):
        pytest.importorskip(f"pycocoevalcap.{module}", reason="needs video-evalkit[captions]")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    told = list(json.loads((ANNOTATIONS / "youcook2" / "para_yc2_val.json").read_text()).values())[:100]
    ours = [*told[1:], None]
    found = paragraph(ours, told)
    gts = {i: [letters(text)] for i, text in enumerate(told)}
    res = {i: [letters(text or "")] for i, text in enumerate(ours)}
    expected = {
        "ROUGE-L": Rouge().compute_score(gts, res)[0],
        "CIDEr": Cider().compute_score(gts, res)[0],
        **{f"BLEU-{n + 1}": value for n, value in enumerate(Bleu(4).compute_score(gts, res, verbose=0)[0])},
        "R@4": np.mean([1.0 if text is None else repetition(text) for text in ours]),
    }
    assert list(found) == ["ROUGE-L", "CIDEr", "BLEU-4", "BLEU-3", "BLEU-2", "BLEU-1", "R@4"]
    for name, value in found.items():
        score = np.mean(value) if isinstance(value, list) else value / 100
        assert score == pytest.approx(expected[name], abs=1e-12), name


def test_a_failed_paragraph_is_all_repetition_and_an_empty_one_repeats_nothing() -> None:
    rows = [
        Row("said", "a", target="a b c d e", prediction="a b c d e. a b c d."),
        Row("failed", "b", target="f g h i j", failure="cut off"),
        Row("empty", "c", target="k l m n o", prediction=""),
    ]
    found = {one["metric"]: one for one in scores(paragraph, rows, 0)}["R@4"]
    assert found["bounds"] == [found["value"], pytest.approx(100 * (1 / 3) / 3)]
    assert found["value"] == pytest.approx(100 * (1 / 3 + 1) / 3, abs=1e-6), "to fail is no way to repeat less"
