"""Ranks of texts and videos from their vectors, for adapters that compare the two."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from evalkit.api import Example, Prediction
from evalkit.errors import counted
from evalkit.metrics.dual_softmax import dual_softmax_ranks
from evalkit.metrics.ranks import nearest, ranks

if TYPE_CHECKING:
    from ._reranked import Reranker

logger = logging.getLogger("evalkit")

NEAREST = 10  # videos kept for each text


def ranked(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    apart: bool,
    dual_softmax: float = 0.0,
    reranker: Reranker | None = None,
) -> list[Prediction]:
    """The rank of each text's video, and of the video's best text; the nearest videos of each text beside them.

    Args:
        examples: a whole split, with a text each and the name of its video as target.
        predictions: the vectors (D,) of each example's video and text; with a reranker, the video's sequences, too,
            which the first example of each video has.
        apart: search those of each kind by themselves, which are data sets of a mixture.
        dual_softmax: temperature of the softmax over all queries that similarities are weighed by; 0 for none.
        reranker: ranks the first of each search again.
    """
    if not examples:
        return []
    if not apart:
        return _ranked(examples, predictions, dual_softmax, reranker)
    made: list[Prediction] = list(predictions)
    for kind in dict.fromkeys(example.kind for example in examples):
        places = [i for i, example in enumerate(examples) if example.kind == kind]
        part = [examples[i] for i in places], [predictions[i] for i in places]
        of_kind = _ranked(*part, dual_softmax, reranker)
        for i, prediction in zip(places, of_kind, strict=True):
            made[i] = prediction
    return made


def _ranked(
    examples: Sequence[Example], predictions: Sequence[Prediction], dual_softmax: float, reranker: Reranker | None
) -> list[Prediction]:
    of, first = numbered(map(video_name, examples))
    video = torch.stack([predictions[i].value[0] for i in first])
    text = torch.stack([prediction.value[1] for prediction in predictions])
    rows = torch.tensor(of)
    found = dual_softmax_ranks(text, video, rows, dual_softmax) if dual_softmax else ranks(text, video, rows)
    near = nearest(text, video, NEAREST).tolist()
    if reranker:
        texts, sequences = [example.text for example in examples], [predictions[i].value[2] for i in first]
        found, best = reranker.rerank(found, text, video, rows, texts, sequences)
        near = [[*dict.fromkeys([*ahead, *rest])][:NEAREST] for ahead, rest in zip(best, near, strict=True)]
    lost = [int(each.isnan().sum()) for each in found]
    if any(lost):
        message = f"{lost[0]} of {counted(len(text), 'text')} and {lost[1]} of {counted(len(video), 'video')}"
        what = "vector, or the logit of their match," if reranker else "vector"
        logger.warning(f"counted as misses, because their {what} is nan or infinite: {message}")
    names = [video_name(examples[i]) for i in first]
    return [
        Prediction(
            {"t2v": found.t2v[i].item(), "v2t": found.v2t[row].item()},
            {"nearest": [names[k] for k in near[i]], "similarity": round(float(text[i] @ video[row]), 6)},
        )
        for i, row in enumerate(of)
    ]


def video_name(example: Example) -> str:
    """The name of the video that a text is about."""
    return str(example.target if isinstance(example.target, str) else example.target[0])


def numbered(keys: Iterable[Hashable]) -> tuple[list[int], list[int]]:
    """Numbers equal keys, from 0 in order of appearance; also returns the first position of each number."""
    numbers: dict[Hashable, int] = {}
    rows = [numbers.setdefault(key, len(numbers)) for key in keys]
    places = dict(zip(reversed(rows), reversed(range(len(rows))), strict=True))
    return rows, [places[number] for number in range(len(numbers))]
