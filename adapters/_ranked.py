"""Ranks of texts and videos from their vectors, for adapters that compare the two."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence

import torch

from evalkit.api import Example, Prediction
from evalkit.metrics.dual_softmax import dual_softmax_ranks
from evalkit.metrics.ranks import nearest, ranks

logger = logging.getLogger("evalkit")

NEAREST = 10  # videos kept for each text


def ranked(
    examples: Sequence[Example], predictions: Sequence[Prediction], apart: bool, dual_softmax: float = 0.0
) -> list[Prediction]:
    """The rank of each text's video, and of the video's best text; the nearest videos of each text beside them.

    Args:
        examples: a whole split, with a text each and the name of its video as target.
        predictions: the vectors (D,) of each example's video and text.
        apart: search those of each kind by themselves, which are data sets of a mixture.
        dual_softmax: temperature of the softmax over all queries that similarities are weighed by; 0 for none.
    """
    if not examples:
        return []
    if not apart:
        return _ranked(examples, predictions, dual_softmax)
    made: list[Prediction] = list(predictions)
    for kind in dict.fromkeys(example.kind for example in examples):
        places = [i for i, example in enumerate(examples) if example.kind == kind]
        of_kind = _ranked([examples[i] for i in places], [predictions[i] for i in places], dual_softmax)
        for i, prediction in zip(places, of_kind, strict=True):
            made[i] = prediction
    return made


def _ranked(examples: Sequence[Example], predictions: Sequence[Prediction], dual_softmax: float) -> list[Prediction]:
    of, first = numbered(map(video_name, examples))
    video = torch.stack([predictions[i].value[0] for i in first])
    text = torch.stack([prediction.value[1] for prediction in predictions])
    rows = torch.tensor(of)
    found = dual_softmax_ranks(text, video, rows, dual_softmax) if dual_softmax else ranks(text, video, rows)
    lost = [int(each.isnan().sum()) for each in found]
    if any(lost):
        message = f"{lost[0]} of {len(text)} texts and {lost[1]} of {len(video)} videos"
        logger.warning(f"counted as misses, because their vector is nan or infinite: {message}")
    names = [video_name(examples[i]) for i in first]
    return [
        Prediction(
            {"t2v": found.t2v[i].item(), "v2t": found.v2t[row].item()},
            {"nearest": [names[k] for k in near], "similarity": round(float(text[i] @ video[row]), 6)},
        )
        for i, (row, near) in enumerate(zip(of, nearest(text, video, NEAREST).tolist(), strict=True))
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
