"""What the page holds of classes, options, neighbors and captions, and what its scripts make of that."""

import importlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.api import Score
from evalkit.metrics import box_map, charades_map, foreground_map, multilabel_map
from evalkit.metrics.bootstrap import AdditiveScore
from evalkit.metrics.classification import top1_top5
from evalkit.metrics.retrieval import retrieval
from evalkit.metrics.text.bleu import parts
from evalkit.metrics.text.captions import captions
from evalkit.metrics.text.ngrams import count
from evalkit.metrics.text.tokenizer import tokenized
from evalkit.results.rows import Row
from tests.given import make
from tests.leaderboard import scripts
from tests.leaderboard.pages import put, samples_of, unpacked, write

_details = importlib.import_module("evalkit.leaderboard.page.details")
_samples = importlib.import_module("evalkit.leaderboard.page.samples")


def row(**values: Any) -> dict[str, Any]:
    return {"id": "q", "target": 0, "prediction": 0, "detail": None, **values}


def record(score: str = "accuracy", **settings: Any) -> dict[str, Any]:
    return {"task": {"score": f"evalkit.metrics:{score}"}, "adapter": {"settings": settings}}


# --- which view, and what it holds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "one", "view"),
    [
        ("top1_top5", row(prediction=[3, 1]), "classes"),
        ("somebodys", row(prediction=[3]), "classes"),
        ("accuracy", row(detail={"log_likelihood": [-1.0, -2.0]}), "options"),
        ("accuracy", row(detail={"cosines": [0.1, 0.2]}), "options"),
        ("accuracy", row(), ""),  # whether of classes or of options, nothing tells
        ("retrieval", row(target=["v", 0], prediction={"t2v": 1.0, "v2t": 2.0}), "retrieval"),
        ("captions_meteor", row(target=["a cat"], prediction="a cat"), "captions"),
        ("exact_match", row(target=["a cat"], prediction="a cat"), ""),
        ("charades_map", row(target=[1, 2], prediction=[0.5, 0.25, 0.125]), "labels"),
        ("top1_map", row(target=[1], prediction=[0.5, 0.25, 0.125]), "classes"),
        ("verb_noun_accuracy", row(target=[1, 2], prediction=[0.5, 0.25, 0.125]), ""),
    ],
)
def test_the_view_of_a_run_is_told_by_its_rows(score: str, one: dict[str, Any], view: str) -> None:
    failed = row(target=one["target"], prediction=None)
    assert _details.view_of(record(score), [one, failed], None) == view


def test_answers_among_classes_and_among_options_are_told_apart_by_the_task() -> None:
    for name, view in (("nextqa", "options"), ("ssv2", "classes")):
        assert _details.view_of(record(), [row()], make(name, mini=True)) == view


@pytest.mark.parametrize(
    ("settings", "detail", "scores", "what", "shares"),
    [
        ({}, {"log_likelihood": [-1.23456, -20.0]}, [-1.23, -20.0], "log-likelihood", True),
        ({}, {"log_likelihood": [None, -2.0]}, [None, -2.0], "log-likelihood", True),
        ({}, {"cosines": [0.1234, 0.5]}, [0.123, 0.5], "cosine", False),
        (
            *({"scorer": "likelihood_per_token"}, {"log_likelihood": [-6.0, -8.0], "tokens": [2, 4]}),
            *([-3.0, -2.0], "log-likelihood per token", True),
        ),
        (
            *({"scorer": "pmi"}, {"log_likelihood": [-1.0, -2.0], "pmi": [0.5, 1.5]}),
            *([0.5, 1.5], "pointwise mutual information", True),
        ),
        (
            *({"scorer": "pmi"}, {"log_likelihood": [-1.0, -2.0]}, [-1.0, -2.0]),
            *("log-likelihood (the answer is by PMI, which this result does not hold)", False),
        ),
    ],
)
def test_options_have_what_they_were_chosen_by(
    settings: dict[str, Any], detail: dict[str, Any], scores: list[Any], what: str, shares: bool
) -> None:
    found = _details.details_of("options", record(**settings), [row(detail=detail), row(prediction=None)])
    assert found == {"scores": [scores, []], "scores_are": what, "shares": shares}


def test_the_likeliest_classes_have_their_probability(tmp_path: Path) -> None:
    rows = [Row(f"q{i}", f"v{i}", "", 1, [1, 0], detail={"probabilities": [0.996, 0.004]}) for i in range(3)]
    put(tmp_path, rows, "ssv2@mini", score=top1_top5)
    run = unpacked(write(tmp_path), "run-0")
    assert (run["view"], run["percent"]) == ("classes", [[100, 0]] * 3)


@pytest.mark.parametrize("score", [multilabel_map, foreground_map, charades_map, box_map])
def test_the_mean_over_classes_of_their_average_precisions_is_the_score(score: Score) -> None:
    generator = np.random.default_rng(0)
    predictions = [*generator.random((60, 7)).round(2).tolist(), None, None]
    targets = [np.flatnonzero(generator.random(7) < 0.2).tolist() for _ in range(60)] + [[2, 3], []]
    targets = [[label for label in target if label != 5] for target in targets]  # which no example has
    assert [] in targets
    rows = [row(target=t, prediction=p) for t, p in zip(targets, predictions, strict=True)] + [row(target=None)]
    found = _details.details_of("labels", record(score.__name__), rows)["precisions"]
    first = 1 if score is foreground_map else 0
    assert [number for number, *_ in found] == [number for number in range(first, 7) if number != 5]
    assert [n for number, n, _ in found if number == 3] == [sum(3 in target for target in targets)]
    headline = next(iter(score(predictions, targets).values()))
    assert np.mean([precision for *_, precision in found]) == pytest.approx(headline, abs=0.05)


def queries() -> list[Row]:
    """Two captions of each of seven videos; those of the last two find their own video last."""
    names = [f"clip{i}" for i in range(7)]
    return [
        Row(
            *(f"{name}#{k}", f"{name}.mp4", "", [name, k], {"t2v": 1.0 if i < 5 else i + 2.0, "v2t": 1.0}),
            detail={"nearest": [names[(i + (0 if i < 5 else 1) + n) % 7] for n in range(6)], "similarity": 0.5},
        )
        for i, name in enumerate(names)
        for k in range(2)
    ]


def test_neighbors_are_places_of_the_first_sample_of_each_video(tmp_path: Path) -> None:
    put(tmp_path, queries(), "retrieval@mini", score=retrieval)
    html = write(tmp_path)
    run, samples = unpacked(html, "run-0"), samples_of(html)
    assert run["view"] == "retrieval" and run["ranks"][10] == [7.0, 1.0]
    assert run["nearest"][2] == [2, 4, 6, 8, 10]
    assert [samples["targets"][place].split("\n")[0] for place in run["nearest"][12]] == [f"clip{i}" for i in range(5)]


@pytest.mark.parametrize("kept", [None, 1, "x" * 9, {"a": 1}, [], [None, "x"], [[1], {}], [1, 2, 3]])
def test_whatever_a_row_keeps_a_page_is_made_of_it(kept: Any) -> None:
    names = (*_details.OPTION_SCORES, "probabilities", "nearest", "tokens")
    detail = dict.fromkeys(names, kept)
    found = {"t2v": 1.0, "v2t": None}
    for score, one in (
        ("accuracy", row(detail=detail)),
        ("top1_top5", row(prediction=[0, 1], detail=detail)),
        ("retrieval", row(target="v", prediction=found, detail=detail)),
        ("charades_map", row(target=[1], prediction=[None, 0.5], detail=detail)),
        ("charades_map", row(target=[1], prediction=[1], detail=detail)),  # a target, which is right
    ):
        for settings in ({}, {"scorer": "likelihood_per_token"}):
            run = record(score, **settings)
            view = _details.view_of(run, [one], None)
            json.dumps(_details.details_of(view, run, [one]), allow_nan=False)


def test_a_caption_has_its_own_score_where_the_headline_is_a_mean(tmp_path: Path) -> None:
    texts = ["a red ball rolls up to the left", "a blue ring grows", "a green cross turns"]
    rows = [Row(f"q{i}", f"v{i}", "", [text], texts[0]) for i, text in enumerate(texts)]
    put(tmp_path, rows, "captions@mini", score=captions)
    run = unpacked(write(tmp_path), "run-0")
    assert run["values"] is None and run["each"][0] == pytest.approx(1000, abs=0.1) and run["each"][1] < 100
    assert np.mean(run["each"]) == pytest.approx(run["result"]["scores"][0]["value"], abs=0.05)


def test_tokens_are_those_of_the_text_that_is_shown(tmp_path: Path) -> None:
    long = "a cat, " * 200
    put(
        tmp_path,
        [Row(f"q{i}", f"v{i}", "", [long, "don't"], f"{i} {long}") for i in range(2)],
        "c@mini",
        score=captions,
    )
    html = write(tmp_path)
    run, samples = unpacked(html, "run-0"), samples_of(html)
    assert len(run["predictions"][0]) == 601 and run["predictions"][0].endswith("…")
    assert run["tokens"] == {}  # its words, as it is cut
    assert samples["tokens"] == {"1": "do n't", "3": "do n't"}


def test_a_score_that_is_no_mean_has_no_parts() -> None:
    ones = np.ones(3)
    assert _samples._parts_of_mean(AdditiveScore(np.stack([ones, ones], 1), lambda sums: 50 * sums[..., 0])) is None
    assert _samples._parts_of_mean(None) is None and _samples._parts_of_mean(0.5) is None


# --- what the scripts make of it, without a browser -------------------------------------------------------------------

TEXTS = [
    "A man's dog isn't here; it's (perhaps) in the U.S. at 3:30 p.m.!",
    "the cat sat on the mat, the cat sat on the mat",
    "the the the the",
    "Café crème, 1 1/2 cups -- and don't stir.",
    "",
    "a b c d e f",
    "cannot http://x.org/y @home #tag 5,000",
]


def jumbled(seed: int) -> list[list[str]]:
    """A caption and three references, some words of which are of others of `TEXTS`."""
    draw = random.Random(seed)
    words = " ".join(TEXTS).split()
    return [[" ".join(draw.choices(words, k=draw.randint(0, 14))) for _ in range(4)] for _ in range(40)]


def test_n_grams_that_count_are_those_that_bleu_matches(tmp_path: Path) -> None:
    cases = [[text, *TEXTS] for text in TEXTS] + jumbled(0)
    odd = [_details.odd_tokens(texts) for texts in cases]
    script = f"""{json.dumps(list(zip(cases, odd, strict=True)))}.map(([texts, odd]) => {{
      const [caption, ...references] = texts.map((text, i) => tokens(text, odd[i]));
      const found = compareCaption(caption, references);
      return [[caption, ...references].map((one) => one.map((token) => token.word)), found.matches, found.totals];
    }})"""
    told = scripts.evaluate(tmp_path, script, "answers.js")
    for texts, (words, matches, totals) in zip(cases, told, strict=True):
        assert words == [tokenized(text).split() for text in texts]
        caption, *references = map(tokenized, texts)
        (sums,) = parts(count([caption], [references]))
        assert [*totals, *matches] == sums[2:].tolist()


def test_a_word_is_marked_by_the_longest_n_gram_over_it(tmp_path: Path) -> None:
    script = """(() => {
      const [caption, reference] = ["A red ball, a big blue cat", "a red ball. A blue cat"];
      const found = compareCaption(tokens(caption), [tokens(reference)]);
      return [found.levels, found.references[0], marked(caption, tokens(caption), found.levels)];
    })()"""
    levels, reference, text = scripts.evaluate(tmp_path, script, "answers.js")
    assert levels == [4, 4, 4, 4, 0, 2, 2] and reference == [4, 4, 4, 4, 2, 2]
    told = [one if isinstance(one, str) else (one["el"][1]["class"], *one["el"][2]) for one in text]
    assert told == ["", ("gram4", "A red ball, a"), " big ", ("gram2", "blue cat"), ""]


def test_the_interval_of_a_class_is_wilsons_over_its_videos(tmp_path: Path) -> None:
    cases = [(0, 5, 5), (5, 5, 5), (3, 8, 8), (6, 16, 8), (400, 700, 700)]
    found = scripts.evaluate(tmp_path, f"{json.dumps(cases)}.map((one) => wilson(...one))", "classes.js")
    for (right, n, videos), interval in zip(cases, found, strict=True):
        share, z2 = right / n, 1.959964**2  # its ends are where the test of a share just rejects
        ends = np.roots([1 + z2 / videos, -2 * share - z2 / videos, share**2])
        assert interval == pytest.approx(sorted(100 * ends.real), abs=1e-6)


def test_classes_are_counted_and_what_changed_is_in_order_of_certainty(tmp_path: Path) -> None:
    targets = [0] * 8 + [1] * 8 + [2] * 2 + [None]
    here = [0] * 8 + [1] * 4 + [2] * 4 + [2, -1] + [0]
    there = [1] * 6 + [0] * 2 + [1] * 8 + [2, 1] + [1]
    videos = [f"v{i // 2}" for i in range(len(targets))]
    words = f"{json.dumps(targets)}, {json.dumps(here)}"
    script = f"""[tally({words}, {json.dumps(videos)}).map((one) => [one.index, one.n, one.right, one.seen.size,
      [...one.taken]]), changes({words}, {json.dumps(there)})]"""
    counted, changed = scripts.evaluate(tmp_path, script, "classes.js")
    assert counted == [
        [0, 8, 8, 4, [[0, 8]]],
        [1, 8, 4, 4, [[1, 4], [2, 4]]],
        [2, 2, 1, 1, [[2, 1], [-1, 1]]],
    ]
    assert [(one["index"], one["better"], one["worse"], one["difference"]) for one in changed] == [
        (0, 6, 0, 75.0),
        (1, 0, 4, -50.0),
        (2, 0, 0, 0.0),
    ]


def test_labels_of_points_cover_no_other_and_no_point(tmp_path: Path) -> None:
    draw = random.Random(1)
    points = [{"x": draw.uniform(0, 700), "y": draw.uniform(0, 270)} for _ in range(24)]
    points += [{"x": 300, "y": 100}, {"x": 301, "y": 100}]  # almost one over the other
    labels = [{"width": 90, "height": 13} for _ in points]
    words = f"{json.dumps(points)}, {json.dumps(labels)}"
    script = f"[arrange({words}, 700, 272), arrange({words}, 100, 60)]"
    wide, narrow = scripts.evaluate(tmp_path, script, "plot.js")
    assert None not in wide and None in narrow
    boxes = [(one["x"], one["y"], one["x"] + 90, one["y"] + 13) for one in wide]
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 and right <= 700 and bottom <= 272
        assert not [p for p in points if left < p["x"] < right and top < p["y"] < bottom]
        for other in boxes[:i]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_long_names_are_cut_in_the_middle_and_stay_apart(tmp_path: Path) -> None:
    names = [
        "checkpoints/of-the-long-run/epoch=1",
        "checkpoints/of-the-long-run/epoch=19",
        "short",
        "x" * 60 + "a" + "y" * 60,
    ]
    short = scripts.evaluate(tmp_path, f"distinct({json.dumps(names)}, 14)")
    assert short == ["chec…n/epoch=1", "chec…/epoch=19", "short", "xxxx…yyyyyyyyy"]
    alike = ["aaaa" + "-" * 30 + letter + "-" * 40 for letter in "bc"]
    assert len(set(scripts.evaluate(tmp_path, f"distinct({json.dumps(alike)}, 14)"))) == 2
