import json
import math
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.metrics.text.bleu import bleu, parts
from evalkit.metrics.text.captions import captions
from evalkit.metrics.text.cider import cider
from evalkit.metrics.text.ngrams import count
from evalkit.metrics.text.rouge import rouge_l
from evalkit.results.rows import Row
from evalkit.results.scores import reference, resolve, scores
from evalkit.runtime import notes
from tests.given import DATA, real

EXPECTED = DATA / "expected" / "youcook2"
SAID = ["a man rides a horse", "the dog sleeps on a bed", "a woman cuts an onion", "two boys play chess"]


def tokenized() -> tuple[list[str], list[list[str]], dict[str, Any]]:
    """The captions, references and scores of the reference scorer."""
    found = json.loads((EXPECTED / "expected_youcook2_nn.json").read_text())
    texts, ids = found["tokenized"], found["ids"]
    return [texts["res"][i][0] for i in ids], [texts["gts"][i] for i in ids], found


def row(i: int, prediction: Any, target: Any) -> Row:
    return Row(str(i), f"{i}.mp4", target=target, prediction=prediction)


@real
def test_corpus_scores_of_youcook2_equal_the_reference() -> None:
    given = json.loads((EXPECTED / "val_segment_captions_with_nn_predictions.json").read_text())
    expected = json.loads((EXPECTED / "expected_youcook2_nn.json").read_text())["scores"]
    found = captions([given["res"][i][0] for i in given["gts"]], list(given["gts"].values()))
    assert list(found) == ["CIDEr", "BLEU-4", "BLEU-3", "BLEU-2", "BLEU-1", "ROUGE-L"]
    for name, value in found.items():
        score = np.mean(value) if isinstance(value, list) else value / 100
        key = {"CIDEr": "CIDEr", "ROUGE-L": "ROUGE_L"}.get(name, name.replace("BLEU-", "Bleu_"))
        assert score == pytest.approx(expected[key], abs=1e-12), name


@real
def test_each_caption_of_youcook2_scores_as_in_the_reference() -> None:
    ours, theirs, found = tokenized()
    grams, expected = count(ours, theirs), found["per_item"]
    np.testing.assert_allclose(cider(grams), expected["CIDEr"], atol=1e-12)
    np.testing.assert_allclose(
        bleu(parts(grams)), np.stack([expected[f"Bleu_{n}"] for n in (1, 2, 3, 4)], 1), atol=1e-12
    )
    np.testing.assert_allclose(
        [rouge_l(*one) for one in zip(ours, theirs, strict=True)], expected["ROUGE_L"], atol=1e-12
    )


def test_several_references_of_each_caption_score_as_in_pycocoevalcap() -> None:
    for module in ("bleu.bleu", "cider.cider", "rouge.rouge"):
        pytest.importorskip(f"pycocoevalcap.{module}", reason="needs video-evalkit[captions]")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    generator = np.random.default_rng(0)
    words = [chr(97 + i) for i in range(12)]

    def text(shortest: int) -> str:
        return " ".join(generator.choice(words, generator.integers(shortest, 12)))

    ours = [text(0) for _ in range(200)]
    theirs = [[text(1) for _ in range(generator.integers(1, 5))] for _ in ours]
    gts, res = dict(enumerate(theirs)), {i: [one] for i, one in enumerate(ours)}
    grams = count(ours, theirs)
    corpus, each = Bleu(4).compute_score(gts, res, verbose=0)
    np.testing.assert_allclose(bleu(parts(grams)).T, each, atol=1e-12)
    np.testing.assert_allclose(bleu(parts(grams).sum(0)), corpus, atol=1e-12)
    np.testing.assert_allclose(cider(grams), Cider().compute_score(gts, res)[1], atol=1e-12)
    expected = Rouge().compute_score(gts, res)[1]
    np.testing.assert_allclose([rouge_l(*one) for one in zip(ours, theirs, strict=True)], expected, atol=1e-12)


def test_splits_scored_together_have_document_frequencies_of_their_own() -> None:
    theirs = [["a b c"], ["a d e"], ["a b c"], ["x y z"], ["a y q"]]
    ours = ["a b c", "d e a", "a b", "x y z z", "q"]
    split = np.array([1, 1, 3, 3, 3])
    together = cider(count(ours, theirs), split)
    np.testing.assert_allclose(together[:2], cider(count(ours[:2], theirs[:2])), atol=1e-12)
    np.testing.assert_allclose(together[2:], cider(count(ours[2:], theirs[2:])), atol=1e-12)


def test_a_perfect_caption_has_every_score_at_its_best() -> None:
    found = captions(SAID, [[said, "something else"] for said in SAID])
    assert found["ROUGE-L"] == [1.0] * 4
    assert found["BLEU-4"] == pytest.approx(100, abs=1e-5)
    assert captions(SAID, SAID)["CIDEr"] == pytest.approx(1000)  # times 10, in percent


def test_a_failed_caption_is_an_empty_one_and_its_target_in_its_place_is_right() -> None:
    targets = [(said, "something else") for said in SAID]
    worst, best = captions([None, *SAID[1:]], targets), captions([targets[0], *SAID[1:]], targets)
    assert worst["ROUGE-L"] == [0.0, 1.0, 1.0, 1.0] and best["ROUGE-L"] == [1.0] * 4
    for name in ("CIDEr", "BLEU-4", "BLEU-1"):
        assert worst[name] == captions(["", *SAID[1:]], targets)[name]
        assert worst[name] < best[name] == captions(SAID, targets)[name]  # type: ignore[operator]


def test_a_failed_caption_is_wrong_even_where_the_reference_has_no_word() -> None:
    assert captions([None, "", "a"], ["?", "?", "a"])["ROUGE-L"] == [0.0, 1.0, 1.0]


def test_the_record_has_intervals_bounds_and_kinds_of_every_metric() -> None:
    rows = [row(i, None if i == 3 else said, [said]) for i, said in enumerate(SAID)]
    found = {one["metric"]: one for one in scores(captions, rows, seed=0)}
    assert found["CIDEr"]["bounds"] == [750, 1000] and found["ROUGE-L"]["bounds"] == [75, 100]
    assert found["BLEU-4"]["bounds"][1] == pytest.approx(100, abs=1e-5)
    low, high = found["CIDEr"]["ci95"]
    assert low < 750 < high
    assert resolve(reference(captions)) is captions


def test_one_caption_alone_has_no_cider_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with notes.remarks():
        found = captions(["a dog"], ["a dog"])
    assert math.isnan(float(found["CIDEr"])) and found["ROUGE-L"] == [1.0]  # type: ignore[arg-type]
    assert capsys.readouterr().err.startswith("CIDEr of one caption is undefined")
    assert scores(captions, [row(0, "a dog", "a dog")], seed=0)[0]["value"] is None


def test_perfect_captions_without_cider_say_why(caplog: pytest.LogCaptureFixture) -> None:
    """Where all references are alike, no word is rarer than another; where one example's are, it alone has none."""
    mixed = ["a dog", "a dog runs", "the a dog sleeps"]
    with notes.remarks():
        assert float(captions(["a dog runs"] * 3, ["a dog runs"] * 3)["CIDEr"]) == 0  # type: ignore[arg-type]
        assert "CIDEr is 0 whatever is said of 3 of 3 examples" in caplog.text
        assert float(captions(mixed, mixed)["CIDEr"]) > 0  # type: ignore[arg-type]
        assert "CIDEr is 0 whatever is said of 1 of 3 examples" in caplog.text
    caplog.clear()
    with notes.remarks():
        captions(["nothing", *SAID[1:]], SAID)  # zero, and its own fault
    assert not caplog.text


def test_emoji_accents_and_spaces_score_as_in_pycocoevalcap() -> None:
    """The corpus scores of pycocoevalcap 1.2 with its Java tokenizer.

    Its token "1 1/2" has a no-break space in it, which is two words to BLEU and CIDEr, and one to ROUGE-L.
    """
    ours = ["a dog \U0001f600 runs", "a cafe\u0301 is open", "two\u00a0men play", "a red\u2009ball rolls"]
    theirs = ["a dog runs fast", "the caf\u00e9 is open", "two men play chess", "the red ball rolls away"]
    found = captions([*ours, "add 1 1/2 cups"], [*theirs, "add 1 1/2 cups of 1 milk"])
    scores = {metric: float(np.mean(value) if isinstance(value, list) else value) for metric, value in found.items()}
    assert scores == pytest.approx(
        {
            "CIDEr": 481.86858341621576,
            "BLEU-4": 43.31553807594114,
            "BLEU-3": 52.822665477592544,
            "BLEU-2": 57.36841794587302,
            "BLEU-1": 59.71094254118123,
            "ROUGE-L": 0.6907340569330401,
        },
        abs=1e-9,
    )


@pytest.mark.parametrize("prediction", [3, [], ["a", 3], {"a": "b"}])
def test_what_is_no_text_is_refused_in_one_line(prediction: Any) -> None:
    with pytest.raises(UserError, match=r"captions: prediction .* is not text; wanted a text or a list of texts"):
        captions([prediction], ["a dog"])
    with pytest.raises(UserError, match=r"captions: target .* is not text"):
        captions(["a dog"], [prediction])
