"""Details of each prediction that the web page draws: likelihoods, neighbors, tokens.

`view_of` says which of its views a run has: `classes` (a class per example), `labels` (several), `options` (an answer
among options), `retrieval`, `captions`, or none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.api import Task
from evalkit.metrics import box_map, multilabel_map
from evalkit.metrics.text.tokenizer import tokenized

NEAREST = 5  # videos shown of a caption
CAPTIONS = ("captions", "captions_meteor", "paragraph", "paragraph_meteor")  # score functions of texts
WORDS = re.compile("[a-z0-9]+")  # what the browser takes for the tokens of a text, unless the page has others

# Of mean average precisions over several classes per example: what the precision of one class is, and whether examples
# with a class, and classes from which on, count.
PRECISIONS = {
    "multilabel_map": (multilabel_map, False, 0),
    "foreground_map": (multilabel_map, False, 1),
    "charades_map": (multilabel_map, True, 0),
    "box_map": (box_map, False, 0),
}

# Of a question, by the name that an adapter keeps them under: what the scores of its options are, whether their softmax
# is each option's share, and decimals that are shown.
OPTION_SCORES = {
    "pmi": ("pointwise mutual information", True, 2),
    "log_likelihood": ("log-likelihood", True, 2),
    "cosines": ("cosine", False, 3),
    "similarity": ("cosine", False, 3),
}

Rows = Sequence[Mapping[str, Any]]


def view_of(record: Mapping[str, Any], rows: Rows, task: Task | None) -> str:
    """The view for the predictions of a run; empty if there is none."""
    function = _function(record)
    if function in CAPTIONS or function in PRECISIONS:
        return "captions" if function in CAPTIONS else "labels"
    predictions = [row["prediction"] for row in rows if row["prediction"] is not None]
    if predictions and all(isinstance(value, dict) and {"t2v", "v2t"} <= value.keys() for value in predictions):
        return "retrieval"
    if function == "top1_map":  # a class per example, in a list
        return "classes"
    if not all(row["target"] is None or isinstance(row["target"], int) for row in rows):
        return ""
    if predictions and all(_ranked(value) for value in predictions):
        return "classes"
    if not all(isinstance(value, int) for value in predictions):
        return ""
    if any(_option_scores(row) for row in rows) or (task and any(example.choices for example in task.test)):
        return "options"
    return "classes" if task and task.classes else ""


def details_of(view: str, record: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """The details that a run's view draws.

    Returns:
        Of `options`: `scores`, what each option scores, with `scores_are`, what that is, and `shares`, whether their
        softmax is each one's share. Of `classes`: `percent`, the probability of each of the likeliest. Of `labels`:
        `precisions`, [class, examples that have it, average precision in percent]. Of `retrieval`: `ranks` of the right
        video and of the best text, and `nearest`, the places of the first samples of the nearest videos.
    """
    if view == "options":
        return _options(record, rows)
    if view == "classes":
        likely = [_listed(row, "probabilities", float | int) for row in rows]
        return {"percent": [[round(100 * share) for share in shares] for shares in likely]} if any(likely) else {}
    if view == "labels":
        return {"precisions": _precisions(_function(record), rows)}
    if view == "retrieval":
        first: dict[str, int] = {}
        for i, row in enumerate(rows):
            first.setdefault(_video_name(row["target"]), i)
        ranks = [row["prediction"] and [row["prediction"][way] for way in ("t2v", "v2t")] for row in rows]
        near = [_listed(row, "nearest", str)[:NEAREST] for row in rows]
        places = [[first.get(name, name) for name in names] for names in near]
        return {"ranks": ranks, **({"nearest": places} if any(near) else {})}
    return {}


def odd_tokens(texts: Sequence[Any]) -> dict[int, str]:
    """By place the tokens of each text, as BLEU and CIDEr count them, that are not just its `WORDS`."""
    odd = {}
    for i, text in enumerate(texts):
        if isinstance(text, str):
            tokens = tokenized(text).split()  # as n-grams are counted: 1 1/2 is two
            if tokens != WORDS.findall(text.lower()):
                odd[i] = " ".join(tokens)
    return odd


def _function(record: Mapping[str, Any]) -> str:
    return str(record["task"]["score"].partition(":")[2])


def _precisions(function: str, rows: Rows) -> list[list[Any]]:
    precision, with_a_class, first = PRECISIONS[function]
    labeled = [row for row in rows if row["target"] is not None and (row["target"] or not with_a_class)]
    classes = 1 + max((label for row in labeled for label in row["target"]), default=-1)
    given = [row["prediction"] for row in labeled]
    if any(scores is not None and len(scores) < classes for scores in given):
        return []  # they are classes, which count as if they had been scored
    found = []
    for number in range(first, classes):
        has = [[0] if number in row["target"] else [] for row in labeled]
        of_class = [None if scores is None else [_float(scores[number])] for scores in given]
        if times := sum(map(len, has)):
            found.append([number, times, round(precision(of_class, has)["mAP"], 1)])
    return found


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _listed(row: Mapping[str, Any], name: str, kind: Any) -> list[Any]:
    """What a row keeps under this name, if it is a list of this kind; else, as nothing checks what is kept, none."""
    values = (row["detail"] or {}).get(name)
    return values if isinstance(values, list) and all(isinstance(value, kind) for value in values) else []


def _ranked(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, int) for item in value)


def _option_scores(row: Mapping[str, Any]) -> tuple[str, list[float | None]] | None:
    """The score of each option of a row, and its kind."""
    for name in OPTION_SCORES:
        values = _listed(row, name, float | int | None)
        if len(values) > 1:
            return name, values
    return None


def _options(record: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    found = [_option_scores(row) for row in rows]
    names = {name for name, _ in filter(None, found)}
    if len(names) != 1:  # none was kept, or they cannot be told apart
        return {}
    (name,) = names
    what, shares, digits = OPTION_SCORES[name]
    scorer = record["adapter"]["settings"].get("scorer")
    scores: list[Any] = []
    for row, kept in zip(rows, found, strict=True):
        values = kept[1] if kept else []
        counts = _listed(row, "tokens", int)
        if scorer == "likelihood_per_token" and counts:
            values = [v / n if n and v is not None else None for v, n in zip(values, counts, strict=False)]
        scores.append([None if value is None else round(value, digits) for value in values])
    if scorer == "likelihood_per_token":
        what += " per token"
    elif scorer == "pmi" and name != "pmi":  # a result from before it was kept
        what, shares = "log-likelihood (the answer is by PMI, which this result does not hold)", False
    return {"scores": scores, "scores_are": what, "shares": shares}


def _video_name(target: Any) -> str:
    return str(target[0] if isinstance(target, list) and target else target)
